"""Clients that keep a real server busy. ``tests/support/turn_guard.py`` fails a test in which a turn takes too long."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import ChildServer, twistd_server

pytestmark = pytest.mark.slow

HEAD = b"HEAD /v1/stream/s HTTP/1.1\r\nHost: h\r\n\r\n"
CONNECTIONS = 4


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildServer]:
    """A server with one stream, shared by the tests of this module."""
    environ = {"DS_STORAGE__MODE": "memory"}
    with twistd_server(tmp_path_factory.mktemp("fair"), environ=environ, reactor=request.param) as server:
        with dial(server) as client:
            client.sendall(b"PUT /v1/stream/s HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 201 ")
        yield server


def dial(server: ChildServer) -> socket.socket:
    """A connection."""
    client = socket.create_connection(("127.0.0.1", server.port))
    client.settimeout(60)
    return client


def flood(server: ChildServer, requests: bytes, count: int, found: list[int]) -> None:
    """Send requests, and note how many answers there are too many."""
    with dial(server) as client:
        received = bytearray()

        def read() -> None:
            while piece := client.recv(1 << 18):
                received.extend(piece)

        reader = threading.Thread(target=read)
        reader.start()
        client.sendall(requests)
        client.shutdown(socket.SHUT_WR)
        reader.join()
        found.append(len(re.findall(rb"HTTP/1.1 [24]\d\d ", received)) - count)


@pytest.mark.parametrize(
    ("requests", "count"),
    [
        pytest.param(HEAD * 2000, 2000, id="HEAD"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n" * 100, 100, id="healthz"),
        pytest.param(b"GET /v1/stream/none HTTP/1.1\r\nHost: h\r\n\r\n" * 500, 500, id="404"),
        pytest.param((b"\r\n" + HEAD) * 500, 500, id="a blank line before each"),
        pytest.param(
            b"POST /v1/stream/s HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\na\r\n" * 10_000
            + b"0\r\n\r\n",
            1,
            id="small chunks",
        ),
        pytest.param(
            b"POST /v1/stream/none HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n"
            + b"x" * 1_000_000,
            1,
            id="refused bodies",
        ),
    ],
)
def test_busy_connections(server: ChildServer, requests: bytes, count: int) -> None:
    """Several connections that send without a pause get all their answers, and no turn is long."""
    found: list[int] = []
    clients = [threading.Thread(target=flood, args=(server, requests, count, found)) for _ in range(CONNECTIONS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert found == [0] * CONNECTIONS


def test_many_connects(server: ChildServer) -> None:
    """Hundreds of clients that connect at once are all served, and no turn is long."""
    clients = []
    for _ in range(300):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", server.port))
        clients.append(client)
    for client in clients:
        client.settimeout(60)
        client.sendall(HEAD)
    for client in clients:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        client.close()


def test_a_stop_answers_what_has_arrived(tmp_path: Path) -> None:
    """A server that is stopped during a flood answers what it had read, and says which answer is the last."""
    with twistd_server(tmp_path, environ={"DS_STORAGE__MODE": "memory"}) as server:
        with dial(server) as client:
            client.sendall(HEAD * 1000)
            server.process.terminate()
            received = b""
            while piece := client.recv(1 << 18):
                received += piece
        answers = received.split(b"HTTP/1.1 404 ")[1:]
        assert answers
        assert [b"onnection: close" in answer for answer in answers] == [False] * (len(answers) - 1) + [True]
