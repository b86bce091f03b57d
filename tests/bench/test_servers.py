"""Starting the servers that are compared."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import pytest

from bench import peers
from bench.peers import ELECTRIC, NODE, RUST_SERVER, installed_version
from bench.servers import (
    EndedFailure,
    Launch,
    Mode,
    Server,
    StartFailure,
    Target,
    dstreams_server,
    dstreams_with_logs,
    free_port,
    installed_peers,
    running,
    start,
)
from dstreams.config.schema import STORAGE_MODES

_LISTENER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"storage": "%s"}' % os.environ["MODE"].encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
server.serve_forever()
"""


def _target(script: str, *, tells_mode: bool = False, mode: str = "memory", runs: str = "memory") -> Target:
    def launch(mode: str, directory: Path) -> Launch:
        port = free_port()
        return Launch([sys.executable, "-c", script], {"MODE": runs, "PORT": str(port)}, port)

    server = Server("fake", "fake 1.0", "/", (), launch, tells_mode=tells_mode)
    return Target(server, Mode(mode, (mode,)))


@pytest.mark.slow
class StartTests:
    def test_runs(self, tmp_path: Path) -> None:
        """A server runs on the port that it names until the end of the block."""
        with running(_target(_LISTENER), tmp_path) as server:
            assert server.process.poll() is None
            assert server.log.exists()
            server.check_alive()
            assert server.cpu_seconds() >= 0
            assert server.resident_bytes() > 1_000_000
            assert (tmp_path / "data").is_dir()
        assert server.process.returncode is not None
        with pytest.raises(EndedFailure, match="ended by itself"):
            server.check_alive()

    def test_processor_time(self, tmp_path: Path) -> None:
        """Processor time is that of the server's process, finer than the system's ticks, and never less."""
        with running(_target(_LISTENER), tmp_path) as server:
            before = server.cpu_seconds()
            assert 0 < before < 60
            urllib.request.urlopen(server.origin).close()
            assert server.cpu_seconds() > before

    def test_ends_at_once(self, tmp_path: Path) -> None:
        """A server that gives up is reported with its last words."""
        with pytest.raises(StartFailure, match="status 3: no such mode"):
            start(_target("print('no such mode'); raise SystemExit(3)"), tmp_path)

    def test_no_program(self, tmp_path: Path) -> None:
        """A program that isn't there is a reason, not a traceback."""

        def launch(mode: str, directory: Path) -> Launch:
            return Launch(["no-such-program-anywhere"], {}, 1)

        target = Target(Server("fake", "fake 1.0", "/", (), launch), Mode("memory", ("memory",)))
        with pytest.raises(StartFailure, match="there is no no-such-program-anywhere"):
            start(target, tmp_path)

    def test_another_mode(self, tmp_path: Path) -> None:
        """A server that runs in another mode than it should isn't measured, and doesn't stay behind."""
        target = _target(_LISTENER, tells_mode=True, mode="acid", runs="file-fast")
        with pytest.raises(StartFailure, match="mode file-fast instead of acid"):
            start(target, tmp_path)
        with running(_target(_LISTENER, tells_mode=True), tmp_path) as server:
            assert server.port

    def test_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What configures a server outside doesn't configure the one that is measured."""
        monkeypatch.setenv("DS_STORAGE__MODE", "acid")
        script = "import os; raise SystemExit(str('DS_STORAGE__MODE' in os.environ))"
        with pytest.raises(StartFailure, match="False"):
            start(_target(script), tmp_path)


class OursTests:
    def test_modes(self) -> None:
        """Every storage mode of ours is measured, each with its promise."""
        assert tuple(mode.name for mode in dstreams_server().modes) == STORAGE_MODES
        assert {mode.name for mode in dstreams_server().modes if mode.syncs} == {"file-durable", "acid"}

    def test_logs(self, tmp_path: Path) -> None:
        """Ours logs warnings only, as the others do, and once as it does unless told otherwise, apart."""
        variable = "DS_OBSERVABILITY__RUST_LOG"
        assert dstreams_server().launch("memory", tmp_path).environ[variable] == "warn"
        assert variable not in dstreams_with_logs().launch("memory", tmp_path).environ
        assert dstreams_with_logs().apart


class PeersTests:
    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder of peers with nothing in it."""
        monkeypatch.setenv(peers.HOME_VARIABLE, str(tmp_path))
        monkeypatch.setattr(peers, "HOME", tmp_path / "nowhere")
        return tmp_path

    def test_none(self, home: Path) -> None:
        """Without peers there is nothing to compare with, and no error."""
        assert installed_peers() == []

    def test_found(self, home: Path) -> None:
        """An installed peer is found where the environment says, with the version that was installed."""
        program = home / "electric" / "bin" / "durable-streams-server"
        program.parent.mkdir(parents=True)
        program.touch()
        note = home / "electric" / ".crates.toml"
        note.write_text('[v1]\n"durable-streams 0.1.4 (registry+x)" = ["durable-streams-server"]\n')
        assert ELECTRIC.path() == program
        assert installed_version(ELECTRIC, program) == "0.1.4"
        [server] = installed_peers()
        assert server.title == "durable-streams 0.1.4"
        launch = server.launch("wal", home)
        assert launch.command[0] == str(program)
        assert launch.command[-2:] == ["--durability", "wal"]

    def test_npm_version(self, home: Path) -> None:
        """An npm package says its version itself."""
        package = home / "node_modules" / "@durable-streams" / "server"
        package.mkdir(parents=True)
        (package / "package.json").write_text('{"version": "0.3.9"}')
        assert NODE.path() == package
        assert installed_version(NODE, package) == "0.3.9"

    def test_separate_folders(self, home: Path) -> None:
        """The two Rust servers, whose programs have the same name, don't overwrite each other."""
        assert RUST_SERVER.install_command(home)[-1] != ELECTRIC.install_command(home)[-1]
