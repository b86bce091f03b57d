"""The public interface: what can be imported from ``dstreams``, and nothing else."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import dstreams
from tests.support.servers import ROOT, child_environment

PUBLIC = {
    "AcidStorage": "class",
    "Config": "class",
    "ConfigError": "class",
    "ConfigLoadOptions": "class",
    "DeploymentProfile": "class",
    "FileStorage": "class",
    "MemoryStorage": "class",
    "MountedStreams": "class",
    "Storage": "class",
    "StorageError": "class",
    "StreamsSite": "class",
    "__version__": "value",
    "build_resource": "function",
    "build_site": "function",
    "build_storage": "function",
    "load_config": "function",
    "render_effective_json": "function",
    "validate_config": "function",
}
"""What programs build on. A line that goes or changes breaks them: it belongs into the changelog."""


class ExportTests:
    """Names, kinds, and what an import costs."""

    def test_names(self) -> None:
        """Exactly these names are public."""
        assert sorted(dstreams.__all__) == sorted(PUBLIC)
        assert set(PUBLIC) <= set(dir(dstreams))

    @pytest.mark.parametrize("name", sorted(PUBLIC))
    def test_kind(self, name: str) -> None:
        """Each is there, is what it says, and has a docstring."""
        value = getattr(dstreams, name)
        kind = "class" if inspect.isclass(value) else "function" if inspect.isfunction(value) else "value"
        assert kind == PUBLIC[name]
        assert kind == "value" or inspect.getdoc(value)

    @pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"__version__"}))
    def test_documented(self, name: str) -> None:
        """Each is described in the reference."""
        assert f"`{name}" in (ROOT / "docs/reference/embedding.md").read_text()

    def test_star(self) -> None:
        """A star import gives the same names."""
        found: dict[str, object] = {}
        exec("from dstreams import *", found)
        assert set(PUBLIC) <= set(found)

    def test_unknown(self) -> None:
        """What isn't there is an AttributeError that names it."""
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            dstreams.nothing  # noqa: B018

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("names", "loaded"),
        [
            ("", "[]"),
            ("load_config, Config, MemoryStorage, FileStorage, AcidStorage, Storage", "[]"),
        ],
    )
    def test_import_installs_no_reactor(self, names: str, loaded: str) -> None:
        """Importing the package, its configuration or its storages leaves the choice of the reactor open."""
        program = "import dstreams, sys\n" + (f"from dstreams import {names}\n" if names else "")
        program += "print([name for name in ('klein', 'twisted.internet.reactor') if name in sys.modules])"
        printed = subprocess.run(
            [sys.executable, "-c", program], env=child_environment(), capture_output=True, text=True, check=True
        )
        assert printed.stdout.strip() == loaded
