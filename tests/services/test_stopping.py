"""Real servers that are told to stop: by one signal or by several, early or late, with clients of all kinds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from shutil import which

import pytest

from tests.services.waiting import receive_all, wait_until
from tests.support.servers import ChildServer, child_environment, twistd_server

pytestmark = pytest.mark.slow

HEAD = b"Host: a\r\nContent-Type: text/plain\r\n"


def connect(server: ChildServer) -> socket.socket:
    """A connection of one's own."""
    return socket.create_connection(("127.0.0.1", server.port), 30)


def get(server: ChildServer, path: str) -> tuple[int, str | None]:
    """The status of a path, and what the answer says about the connection."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Connection"]


def create(server: ChildServer, name: str, body: bytes = b"") -> None:
    """Create a stream."""
    request = urllib.request.Request(f"{server.url}/v1/stream/{name}", body, method="PUT")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request, timeout=30).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_status(tmp_path: Path, number: signal.Signals) -> None:
    """A stop in good order ends with status 0."""
    with twistd_server(tmp_path) as server:
        server.process.send_signal(number)
        assert server.process.wait(60) == 0
        assert f"{number.name}: stopping" in server.log.read_text()


def test_drain_delay(tmp_path: Path) -> None:
    """After the signal the server isn't ready but serves on, with answers that end their connections."""
    with twistd_server(tmp_path, environ={"DS_SERVER__DRAIN_DELAY_SECS": "2"}) as server:
        create(server, "s", b"data")
        assert get(server, "/readyz") == (200, None)
        with connect(server) as idle:
            idle.sendall(b"GET /v1/stream/s HTTP/1.1\r\n%b\r\n" % HEAD)
            assert b"Connection: close" not in idle.recv(65_536)
            began = time.monotonic()
            server.process.terminate()
            wait_until(lambda: get(server, "/readyz")[0] == 503)
            assert get(server, "/healthz") == (200, "close")
            assert get(server, "/v1/stream/s") == (200, "close")
            idle.sendall(b"GET /v1/stream/s HTTP/1.1\r\n%b\r\n" % HEAD)
            answer = receive_all(idle)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert server.process.wait(60) == 0
        assert time.monotonic() - began >= 2


def test_second_signal(tmp_path: Path) -> None:
    """A second signal ends the delay and the grace time: what is left is cut, and the storage is closed."""
    environ = {"DS_SERVER__DRAIN_DELAY_SECS": "600", "DS_SERVER__SHUTDOWN_GRACE_SECS": "600"}
    environ |= {"DS_STORAGE__MODE": "file-durable", "DS_STORAGE__DATA_DIR": str(tmp_path / "data")}
    with twistd_server(tmp_path, environ=environ) as server:
        create(server, "s", b"kept")
        with connect(server) as upload:
            upload.sendall(b"POST /v1/stream/s HTTP/1.1\r\n%bContent-Length: 8\r\n\r\nhalf" % HEAD)
            assert get(server, "/healthz")[0] == 200
            server.process.terminate()
            wait_until(lambda: get(server, "/readyz")[0] == 503)
            server.process.terminate()
            with pytest.raises(ConnectionResetError):
                receive_all(upload)
            assert server.process.wait(60) == 0
        assert "SIGTERM again: stopping now" in server.log.read_text()
    with twistd_server(tmp_path, environ=environ | {"DS_SERVER__DRAIN_DELAY_SECS": "0"}) as server:
        assert urllib.request.urlopen(f"{server.url}/v1/stream/s", timeout=30).read() == b"kept"


def test_stalled_reader(tmp_path: Path) -> None:
    """A reader that takes nothing holds up the end for the grace time and no longer."""
    environ = {"DS_SERVER__SHUTDOWN_GRACE_SECS": "1", "DS_LIMITS__MAX_STREAM_BYTES": str(64 << 20)}
    with twistd_server(tmp_path, environ=environ) as server:
        create(server, "s", b"x" * (10 << 20))
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", server.port))
            stalled.sendall(b"GET /v1/stream/s HTTP/1.1\r\n%b\r\n" % HEAD)
            assert stalled.recv(15) == b"HTTP/1.1 200 OK"
            server.process.terminate()
            assert server.process.wait(60) == 0
        assert "aborting the remaining connections" in server.log.read_text()


_OPEN_SLOWLY = """
import os, signal, time
from dstreams.__main__ import main
from dstreams.storage.memory import MemoryStorage

def slowly(self, catalog, progress):
    os.write(1, b"opening\\n")
    time.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)
MemoryStorage.open = slowly
main()
"""
"""A server that takes its time to read its data; time.sleep stands for it."""


@contextmanager
def program(directory: Path, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Any program, and the file that it prints to; killed at the end."""
    log = directory / "program.log"
    environ = child_environment(DS_SERVER__BIND_ADDRESS="127.0.0.1:0")
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_storage_opens(tmp_path: Path, number: signal.Signals) -> None:
    """A server that is still reading its data stops at once, with status 0."""
    with program(tmp_path, sys.executable, "-c", _OPEN_SLOWLY) as (process, log):
        wait_until(lambda: "opening" in log.read_text())
        process.send_signal(number)
        assert process.wait(30) == 0


_CLOSE_NEVER = """
from twisted.internet.defer import Deferred
from dstreams.__main__ import main
from dstreams.storage.memory import MemoryStorage

MemoryStorage.close = lambda self: Deferred()
main()
"""
"""A server whose storage doesn't close, as on a disk that answers no more."""


def test_third_signal(tmp_path: Path) -> None:
    """A third signal ends a process that even a second one can't bring to its end; the status says by which."""
    with program(tmp_path, sys.executable, "-c", _CLOSE_NEVER) as (process, log):
        wait_until(lambda: "listening on" in log.read_text())
        process.terminate()
        wait_until(lambda: "SIGTERM: stopping" in log.read_text())
        process.terminate()
        wait_until(lambda: "SIGTERM again" in log.read_text())
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM


def _unshare() -> list[str]:
    """A command that makes its child process 1 of a process namespace."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*command, "true"], capture_output=True, check=False) if which("unshare") else None
    if tried is None or tried.returncode:
        pytest.skip("making a process namespace needs unshare(1) and the permission to use it")
    return command


@pytest.mark.parametrize("early", [False, True])
def test_process_1(tmp_path: Path, early: bool) -> None:
    """As process 1 of a container, for which signals have no default, it stops all the same, at any time."""
    said = "opening" if early else "listening on"
    report = "import os, sys; print('pid', os.getpid(), flush=True); os.execv(sys.executable, sys.argv[1:])"
    server = ["-c", _OPEN_SLOWLY] if early else ["-m", "dstreams"]
    command = [*_unshare(), sys.executable, "-c", report, sys.executable, *server]
    with program(tmp_path, *command) as (process, log):
        wait_until(lambda: said in log.read_text())
        assert log.read_text().startswith("pid 1\n")
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(30) == 0
