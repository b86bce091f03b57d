"""The example application, run as its documentation says."""

from __future__ import annotations

import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.servers import ROOT, ChildServer, child_server

pytestmark = pytest.mark.slow


def ask(server: ChildServer, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    request = urllib.request.Request(server.url + path, body, method=method, headers={"Content-Type": "text/plain"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, dict(answer.headers), answer.read()


def test_klein_app(tmp_path: Path) -> None:
    """The application's page and the streams are one site; at the end a live reader is told, not cut."""
    command = [sys.executable, str(ROOT / "examples/klein_app.py"), "0"]
    with child_server(tmp_path, command, {}) as server:
        assert b"EventSource" in ask(server, "GET", "/")[2]
        status, headers, _ = ask(server, "PUT", "/durable/v1/stream/lobby")
        assert (status, headers["Location"]) == (201, f"{server.url}/durable/v1/stream/lobby")
        assert ask(server, "POST", "/durable/v1/stream/lobby", b"hello ")[0] == 204
        assert ask(server, "GET", "/durable/v1/stream/lobby")[2] == b"hello "
        assert ask(server, "GET", "/durable/readyz")[2] == b"ready\n"
        with socket.create_connection(("127.0.0.1", server.port), 30) as reader:
            reader.sendall(
                b"GET /durable/v1/stream/lobby?offset=-1&live=sse HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            )
            events = b""
            while b"event: control" not in events:
                events += reader.recv(65_536)
            server.process.terminate()
            events += b"".join(iter(lambda: reader.recv(65_536), b""))
        assert b"data:hello" in events.replace(b": ", b":")
        assert events.endswith(b"0\r\n\r\n")
        server.process.wait(60)
        assert "Traceback" not in server.log.read_text()
