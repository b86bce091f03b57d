"""The command line as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dstreams import __version__
from dstreams.cli import main
from tests.support.servers import child_environment


class MainTests:
    """What holds for every command."""

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The version is a command and an option."""
        assert main(["version"]) == 0
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"durable-streams {__version__}\n" * 2

    @pytest.mark.parametrize("line", ["", "nonsense", "config", "config nonsense", "check", "--port 80"])
    def test_wrong(self, line: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A wrong command line has status 2, and says how it is used."""
        with pytest.raises(SystemExit) as caught:
            main(line.split())
        assert caught.value.code == 2
        assert "usage: durable-streams" in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["check", "config check", "config show", "version"])
    def test_help(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Every command explains itself."""
        with pytest.raises(SystemExit) as caught:
            main([*command.split(), "--help"])
        assert caught.value.code == 0
        assert f"usage: durable-streams {command}" in capsys.readouterr().out

    @pytest.mark.slow
    def test_reader_goes_away(self, tmp_path: Path) -> None:
        """A command whose output nobody reads any more ends without complaint."""
        reading, writing = os.pipe()
        os.close(reading)
        ended = subprocess.run(
            [sys.executable, "-m", "dstreams.cli", "config", "default"],
            cwd=tmp_path, env=child_environment(), stdout=writing, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (1, b"")

    @pytest.mark.slow
    def test_installs_no_reactor(self, tmp_path: Path) -> None:
        """Commands run without a reactor, and with them the server can still choose one."""
        program = (
            "import sys; from dstreams.cli import main; main(['config', 'check'])\n"
            "sys.exit(str([name for name in ('klein', 'twisted.internet.reactor') if name in sys.modules]))"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=child_environment(), capture_output=True, check=False
        )
        assert ended.stderr.endswith(b"\n[]\n")
