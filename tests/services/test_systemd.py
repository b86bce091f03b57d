"""The units, and the server under a service manager: systemd's own tools where the machine has them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

import pytest

from tests.services import confined
from tests.services.waiting import receive_all, wait_until
from tests.support.certificates import Authority
from tests.support.servers import ROOT, TWISTD, ChildServer, child_environment, child_server, twistd_server

SYSTEMD = ROOT / "systemd"
SERVICE = SYSTEMD / "durable-streams.service"
SOCKET = SYSTEMD / "durable-streams.socket"

OPT = "/opt/durable-streams/bin/"
"""Where the unit has its programs."""


def tool(name: str) -> str:
    """The path of one of systemd's tools."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} isn't installed: it comes with systemd")
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end."""
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=60)


@contextmanager
def notify_socket(address: str) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.settimeout(30)
        yield listener


def start_command() -> list[str]:
    """The unit's ExecStart line, with the programs of this environment."""
    (line,) = confined.settings(SERVICE, "ExecStart")
    return [str(TWISTD) if word == f"{OPT}twistd" else word for word in shlex.split(line)]


class UnitTests:
    """The files that an operator installs."""

    @pytest.mark.parametrize("unit", [SERVICE, SOCKET])
    def test_verify(self, tmp_path: Path, unit: Path) -> None:
        """systemd-analyze has nothing to say about them."""
        analyze = tool("systemd-analyze")
        for each in (SERVICE, SOCKET):
            text = each.read_text()
            for program in ("twistd", "durable-streams"):
                # Both must be there, and in a test needn't be themselves.
                text = text.replace(f"{OPT}{program} ", f"{sys.executable} ")
            (tmp_path / each.name).write_text(text)
        verified = run(analyze, "verify", "--man=no", tmp_path / unit.name)
        assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")

    def test_security(self) -> None:
        """systemd-analyze rates what the service could do at 1.5 of 10 at most."""
        rated = run(tool("systemd-analyze"), "security", "--no-pager", "--offline=true", "--threshold=15", SERVICE)
        assert rated.returncode == 0, rated.stdout + rated.stderr

    def test_account(self, tmp_path: Path) -> None:
        """systemd-sysusers makes the account that the service runs as."""
        (tmp_path / "etc").mkdir()
        made = run(
            tool("systemd-sysusers"), "--dry-run", f"--root={tmp_path}", SYSTEMD / "sysusers.d/durable-streams.conf"
        )
        assert made.returncode == 0, made.stderr
        assert confined.settings(SERVICE, "User") == ["durable-streams"]
        assert "durable-streams" in made.stdout + made.stderr

    def test_directories(self, tmp_path: Path) -> None:
        """systemd-tmpfiles makes the directories: the configuration is root's, the data the server's."""
        tmpfiles, sysusers = tool("systemd-tmpfiles"), tool("systemd-sysusers")
        if os.geteuid():
            pytest.skip("only root can make directories for another account")
        (tmp_path / "etc").mkdir()
        assert run(sysusers, f"--root={tmp_path}", SYSTEMD / "sysusers.d/durable-streams.conf").returncode == 0
        made = run(tmpfiles, "--create", f"--root={tmp_path}", SYSTEMD / "tmpfiles.d/durable-streams.conf")
        assert made.returncode == 0, made.stderr
        config, data = tmp_path / "etc/durable-streams", tmp_path / "var/lib/durable-streams"
        assert (config.stat().st_mode & 0o777, config.stat().st_uid) == (0o750, 0)
        assert (data.stat().st_mode & 0o777, data.stat().st_uid) == (0o700, config.stat().st_gid)


@pytest.mark.slow
class NotifyTests:
    """A real server, and a socket that stands for systemd's."""

    @pytest.mark.parametrize("kind", ["path", "abstract"])
    def test_ready_alive_stopping(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, kind: str) -> None:
        """It says what it opens, that it is ready when it can be reached, that it lives, and that it stops."""
        if kind == "abstract" and sys.platform != "linux":
            pytest.skip("only Linux has abstract names")
        address = str(tmp_path_factory.mktemp("n") / "s") if kind == "path" else f"@dstreams-{os.getpid()}"
        with notify_socket(address) as manager:
            environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
            with twistd_server(tmp_path, environ=environ) as server:
                assert manager.recv(4096) == b"STATUS=opening memory storage"
                assert manager.recv(4096) == b"READY=1\nSTATUS=serving"
                with urllib.request.urlopen(f"{server.url}/readyz", timeout=30) as answer:
                    assert answer.status == 200
                began = time.monotonic()
                assert [manager.recv(4096) for _ in range(4)] == [b"WATCHDOG=1"] * 4
                assert time.monotonic() - began < 10
                server.process.terminate()
                said = manager.recv(4096)
                while said == b"WATCHDOG=1":
                    said = manager.recv(4096)
                assert said == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000\nSTATUS=stopping"
                assert manager.recv(4096) == b"STATUS=closing the storage"
                assert server.process.wait(60) == 0

    def test_failed_start(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
        """Why it can't start is the last thing that it says; it never says that it is ready."""
        address = str(tmp_path_factory.mktemp("n") / "s")
        with notify_socket(address) as manager, socket.create_server(("127.0.0.1", 0)) as taken:
            bind = f"127.0.0.1:{taken.getsockname()[1]}"
            ended = subprocess.run(
                [TWISTD, "--pidfile=", "-n", "durable-streams"],
                cwd=tmp_path,
                env=child_environment(NOTIFY_SOCKET=address, DS_SERVER__BIND_ADDRESS=bind),
                capture_output=True,
                check=False,
                timeout=60,
            )
            assert ended.returncode == 1
            assert manager.recv(4096) == b"STATUS=opening memory storage"
            assert manager.recv(4096) == b"STATUS=closing the storage"
            assert (
                manager.recv(4096) == f"STATUS=[bind_listener] failed to bind {bind}: Address already in use".encode()
            )


@pytest.mark.slow
class ConfinementTests:
    """The server under what the unit forbids."""

    @pytest.fixture(autouse=True)
    def _confined(self) -> None:
        tool("systemd-analyze")
        if sys.platform != "linux" or find_library("seccomp") is None:
            pytest.skip("libseccomp isn't installed: it compiles the filter")
        self.confine = [sys.executable, str(ROOT / "tests/services/confined.py"), str(SERVICE)]

    def test_it_confines(self, tmp_path: Path) -> None:
        """What isn't allowed fails, so that the other test shows something."""
        program = "import os\ntry: os.chroot('/')\nexcept PermissionError: print('forbidden')"
        assert run(*self.confine, sys.executable, "-c", program).stdout == "forbidden\n"

    def test_serves(self, tmp_path: Path) -> None:
        """Started by the unit's own line it stores durably, as quickly as without it, and stops in order."""
        (tmp_path / "config").mkdir()
        (tmp_path / "config/default.toml").write_text(
            f'[storage]\nmode = "file-durable"\ndata_dir = "{tmp_path}/data"\n'
        )
        command = [str(tmp_path / "config") if word == "/etc/durable-streams" else word for word in start_command()]
        environ = {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}
        with child_server(tmp_path, [*self.confine, *command], environ) as server:
            store(server, b"kept")
            server.process.terminate()
            assert server.process.wait(60) == 0
            confined_log = server.log.read_text()
        with child_server(tmp_path, command, environ) as server:
            with urllib.request.urlopen(f"{server.url}/v1/stream/s", timeout=30) as answer:
                assert answer.read() == b"kept"
            free_log = server.log.read_text()
        for way in ("io_uring", "kernel AIO"):
            assert (f"journal syncs: {way}" in confined_log) == (f"journal syncs: {way}" in free_log)
        assert "Traceback" not in confined_log

    @pytest.mark.parametrize("reactor", ["epoll", "uvloop"])
    def test_mutual_tls(self, tmp_path: Path, reactor: str) -> None:
        """TLS with client certificates and ALPN, for which OpenSSL calls back into Python, needs nothing forbidden."""
        if reactor == "uvloop":
            pytest.importorskip("uvloop")
        authority = Authority(tmp_path)
        ours, clients = authority.issue("server"), authority.issue("client", client=True)
        environ = {
            "DS_SERVER__BIND_ADDRESS": "127.0.0.1:0",
            "DS_TRANSPORT__MODE": "mtls",
            "DS_TRANSPORT__HTTP__VERSIONS": "http1,http2",
            "DS_TRANSPORT__TLS__CERT_PATH": str(ours.certificate),
            "DS_TRANSPORT__TLS__KEY_PATH": str(ours.key),
            "DS_TRANSPORT__TLS__CLIENT_CA_PATH": str(authority.path),
        }
        context = ssl.create_default_context(cafile=str(authority.path))
        context.load_cert_chain(clients.certificate, clients.key)
        context.set_alpn_protocols(["http/1.1"])
        command = [*self.confine, str(TWISTD), f"--reactor={reactor}", "--pidfile=", "-n", "durable-streams"]
        with child_server(tmp_path, command, environ) as server:
            connection = socket.create_connection(("127.0.0.1", server.port), 30)
            with connection, context.wrap_socket(connection, server_hostname="localhost") as client:
                assert client.selected_alpn_protocol() == "http/1.1"
                client.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.1 200 OK"
            server.process.terminate()
            assert server.process.wait(60) == 0
            assert "Traceback" not in server.log.read_text()


def store(server: ChildServer, body: bytes) -> None:
    """Create the stream ``s``."""
    request = urllib.request.Request(f"{server.url}/v1/stream/s", body, method="PUT")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request, timeout=30).close()


_INHERIT = """
import os, socket, sys
port = socket.create_server(("127.0.0.1", 0), backlog=64)
os.dup2(os.dup(port.fileno()), 3)  # inheritable, even when it was 3 before
os.environ |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Starts a program the way that systemd does for a socket unit: with a bound port as descriptor 3."""


@pytest.mark.slow
class SocketActivationTests:
    """A port that somebody else has bound."""

    @pytest.mark.parametrize("which", ["index=0", "name=http"])
    def test_inherited_port(self, tmp_path: Path, which: str) -> None:
        """The server serves on the port that it was given, closes only its own copy, and says where it listens."""
        command = [sys.executable, "-c", _INHERIT, str(TWISTD), "--pidfile=", "-n", "durable-streams"]
        environ = {"DS_SERVER__ENDPOINTS": f"systemd:domain=INET:{which}"}
        with child_server(tmp_path, command, environ) as server:
            store(server, b"kept")
            server.process.terminate()
            assert server.process.wait(60) == 0

    def test_socket_activate(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
        """The first connection to systemd's socket starts the server, which answers it."""
        activate = tool("systemd-socket-activate")
        path = str(tmp_path_factory.mktemp("n") / "http")
        variables = child_environment(DS_SERVER__ENDPOINTS="systemd:domain=UNIX:name=http")
        passed = [f"-E{name}={variables[name]}" for name in ("DS_SERVER__ENDPOINTS", "PYTHONPATH")]
        command = [activate, "-l", path, "--fdname=http", *passed, TWISTD, "--pidfile=", "-n", "durable-streams"]
        log = tmp_path / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: "Listening on" in log.read_text())
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(path)
                client.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert receive_all(client).startswith(b"HTTP/1.1 200 OK\r\n")
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()

    @pytest.mark.parametrize("which", ["index=0", "name=http"])
    def test_nothing_inherited(self, tmp_path: Path, which: str) -> None:
        """Started without its socket, the server says so in one line."""
        ended = subprocess.run(
            [TWISTD, "--pidfile=", "-n", "durable-streams"],
            cwd=tmp_path,
            env=child_environment(DS_SERVER__ENDPOINTS=f"systemd:domain=INET:{which}"),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (ended.returncode, ended.stdout) == (1, "")
        (line,) = ended.stderr.splitlines()
        assert line.startswith("[resolve_transport] 'systemd:domain=INET:")
        assert line.endswith("no such socket was inherited; start the server with its socket unit")


@pytest.mark.slow
def test_reload(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """SIGHUP, which ExecReload sends, is a reload with a beginning and an end, and does no harm."""
    address = str(tmp_path_factory.mktemp("n") / "s")
    with notify_socket(address) as manager, twistd_server(tmp_path, environ={"NOTIFY_SOCKET": address}) as server:
        assert [manager.recv(4096) for _ in range(2)][1] == b"READY=1\nSTATUS=serving"
        # Answered by a reactor that runs, so the signal is its.
        with urllib.request.urlopen(f"{server.url}/readyz", timeout=30) as answer:
            assert answer.status == 200
        server.process.send_signal(signal.SIGHUP)
        assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(4096) == b"READY=1"
        store(server, b"still served")
