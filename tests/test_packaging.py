"""Each way of installing the project lets ``twistd`` find the plugin, and leaves Twisted alone.

The environments made here see the libraries of the one that the tests run in, but not what is installed there
as the project itself; nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from attrs import frozen

from tests.support.servers import ROOT, TWISTD

pytestmark = pytest.mark.slow

SOURCES = ("dstreams", "systemd", "twisted", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg")
"""What the build needs."""


@frozen
class Environment:
    """A virtual environment with all libraries but without the project."""

    directory: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where pip installs."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.directory)}))

    def run(self, *arguments: str, cwd: Path, path: Path | None = None) -> str:
        """What Python prints; its failure is the test's.

        :param path: a directory to import from.
        """
        left_out = ("PYTHON", "PIP_", "DS_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        if path is not None:
            environ["PYTHONPATH"] = str(path)
        finished = subprocess.run(
            [str(self.python), *arguments],
            cwd=cwd,
            env=environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def pip(self, *arguments: str, cwd: Path) -> None:
        """Run pip without an index."""
        self.run("-m", "pip", *arguments, cwd=cwd)

    def twistd_help(self, cwd: Path, path: Path | None = None) -> str:
        """What ``twistd --help`` prints in a directory."""
        return self.run(str(TWISTD), "--help", cwd=cwd, path=path)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A fresh environment."""
    made = Environment(tmp_path / "environment")
    venv.create(made.directory)
    # A bare path: unlike a site directory, the .pth files in it aren't read, and so an editable install of
    # the project has no effect. pip and setuptools come from there, too.
    libraries = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (made.site_packages / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    return made


@pytest.fixture
def other_paths(tmp_path: Path) -> Path:
    """An empty directory: what is found there was installed."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    return directory


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, so that building leaves nothing in the real ones."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, directory)
    return directory


def build_wheel(environment: Environment, checkout: Path, directory: Path) -> Path:
    """A wheel of the sources."""
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    environment.pip("wheel", *offline, "--wheel-dir", str(directory), str(checkout), cwd=directory)
    (wheel,) = directory.glob("*.whl")
    return wheel


def offers_the_server(help_text: str) -> bool:
    """Whether the list of commands in twistd's help has ours."""
    return any(line.split()[:1] == ["durable-streams"] for line in help_text.splitlines())


class PackagingTests:
    """The plugin is found however the project is installed."""

    def test_not_installed(self, environment: Environment, other_paths: Path) -> None:
        """Where the project isn't installed, twistd doesn't offer it."""
        assert not offers_the_server(environment.twistd_help(other_paths))

    def test_wheel(self, environment: Environment, checkout: Path, other_paths: Path) -> None:
        """An installed wheel is offered; after its removal Twisted still works and offers it no more."""
        wheel = build_wheel(environment, checkout, other_paths)
        install = ("install", "--no-deps", "--no-index", "--ignore-installed")
        environment.pip(*install, str(wheel), cwd=other_paths)
        assert offers_the_server(environment.twistd_help(other_paths))

        environment.pip("uninstall", "--yes", "dstreams", cwd=other_paths)
        assert not offers_the_server(environment.twistd_help(other_paths))

    def test_wheel_contents(self, environment: Environment, checkout: Path, other_paths: Path) -> None:
        """Of Twisted's package the wheel holds our plugin and nothing else; our own is marked as typed."""
        with zipfile.ZipFile(build_wheel(environment, checkout, other_paths)) as wheel:
            names = wheel.namelist()
        plugins = sorted(f"twisted/plugins/{path.name}" for path in (checkout / "twisted" / "plugins").glob("*.py"))
        assert sorted(name for name in names if name.startswith("twisted/")) == plugins
        assert "dstreams/py.typed" in names
        tops = {name.split("/")[0] for name in names}
        assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"dstreams", "twisted"}
        assert any(name.endswith(".data/data/share/durable-streams/systemd/durable-streams.service") for name in names)

    def test_editable(self, environment: Environment, checkout: Path, other_paths: Path) -> None:
        """An editable install is offered everywhere, not only in the checkout."""
        offline = ("--no-deps", "--no-build-isolation", "--no-index")
        environment.pip("install", *offline, "--ignore-installed", "--editable", str(checkout), cwd=other_paths)
        assert offers_the_server(environment.twistd_help(other_paths))

    def test_checkout_on_the_path(self, environment: Environment, checkout: Path, other_paths: Path) -> None:
        """A checkout that Python is told of is offered, with nothing but the libraries installed."""
        assert offers_the_server(environment.twistd_help(other_paths, path=checkout))

    def test_module_in_checkout(self, environment: Environment, checkout: Path) -> None:
        """``python -m dstreams`` in the checkout finds the plugin by itself."""
        assert "--profile" in environment.run("-m", "dstreams", "--help", cwd=checkout)
