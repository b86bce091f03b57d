"""Which reactor a server runs on, seen in real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.servers import TWISTD, child_environment, child_server, twistd_server

pytest.importorskip("uvloop")
pytestmark = pytest.mark.slow


def reactor_of(directory: Path, reactor: str | None = None, **environ: str) -> str:
    """The class of the reactor that a server logs when it was told to use ``reactor``."""
    with twistd_server(directory, environ=environ, reactor=reactor) as server:
        with urllib.request.urlopen(f"{server.url}/healthz") as answer:
            assert answer.status == 200
        found = re.search(r"on Twisted \S+ \((\w+)\)", server.log.read_text())
    assert found is not None
    return found[1]


class ChoiceTests:
    """What runs where nothing, or something, was said."""

    def test_by_itself(self, tmp_path: Path) -> None:
        """Where uvloop is installed, the server runs on it without being told."""
        assert reactor_of(tmp_path) == "UvloopReactor"

    @pytest.mark.parametrize(
        ("name", "reactor"),
        [("uvloop", "UvloopReactor"), ("asyncio", "AsyncioSelectorReactor"), ("select", "SelectReactor")],
    )
    def test_as_told(self, tmp_path: Path, name: str, reactor: str) -> None:
        """``twistd --reactor`` wins."""
        assert reactor_of(tmp_path, name) == reactor

    def test_without_uvloop(self, tmp_path: Path) -> None:
        """Where uvloop can't be imported it is Twisted's default, and nobody complains."""
        missing = tmp_path / "path"
        missing.mkdir()
        (missing / "uvloop.py").write_text("raise ImportError('no such module')")
        reactor = reactor_of(tmp_path, PYTHONPATH=f"{missing}{os.pathsep}{child_environment()['PYTHONPATH']}")
        assert reactor != "UvloopReactor"

    def test_module(self, tmp_path: Path) -> None:
        """``python -m dstreams`` chooses in the same way."""
        command = [sys.executable, "-m", "dstreams"]
        with child_server(tmp_path, command, {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}) as server:
            assert "(UvloopReactor)" in server.log.read_text()


class DaemonTests:
    """twistd forks after the reactor was made."""

    def test_serves(self, tmp_path: Path) -> None:
        """A daemon accepts, stores with synced appends, answers and stops."""
        log, pid_file = tmp_path / "log", tmp_path / "pid"
        variables = {
            "DS_SERVER__BIND_ADDRESS": "127.0.0.1:0",
            "DS_STORAGE__MODE": "file-durable",
            "DS_STORAGE__DATA_DIR": str(tmp_path / "data"),
        }
        command = [str(TWISTD), f"--pidfile={pid_file}", f"--logfile={log}", "durable-streams"]
        subprocess.run(command, cwd=tmp_path, env=child_environment(**variables), check=True, timeout=60)
        process = int(pid_file.read_text())
        try:
            found = re.search(r"listening on (\S+)$", log.read_text(), re.MULTILINE)
            assert found is not None
            assert "(UvloopReactor)" in log.read_text()
            url = f"http://{found[1]}/v1/stream/a"
            headers = {"Content-Type": "text/plain"}
            for method in ("PUT", "POST", "POST"):
                request = urllib.request.Request(url, data=b"x" * 1000, headers=headers, method=method)
                urllib.request.urlopen(request).close()
            with urllib.request.urlopen(url) as answer:
                assert answer.read() == b"x" * 3000
        finally:
            os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "Server Shut Down" in log.read_text()
