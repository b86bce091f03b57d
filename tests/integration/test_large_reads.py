"""Large reads from a store's files, over real sockets."""

from __future__ import annotations

import os
import socket
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.support.servers import ChildServer, twistd_server

FILES = {"DS_STORAGE__MODE": "file-durable"}
DATA = os.urandom(3 << 20)
JSON = b"[%b]" % b",".join(b'"%08d"' % number for number in range(300_000))


@contextmanager
def with_files(directory: Path, reactor: str | None = None) -> Iterator[ChildServer]:
    """A server whose streams lie in files: one wrote them and has stopped."""
    environ = FILES | {"DS_STORAGE__DATA_DIR": str(directory / "data")}
    with twistd_server(directory, environ=environ) as server:
        for name, kind, body in (("b", "application/octet-stream", DATA), ("j", "application/json", JSON)):
            send(server, "PUT", name, b"", {"Content-Type": kind})
            send(server, "POST", name, body, {"Content-Type": kind})
    with twistd_server(directory, environ=environ, reactor=reactor) as server:
        yield server


def send(server: ChildServer, method: str, name: str, body: bytes, headers: Mapping[str, str]) -> None:
    url = f"{server.url}/v1/stream/{name}"
    with urllib.request.urlopen(urllib.request.Request(url, body, dict(headers), method=method)) as answer:
        answer.read()


def get(name: str) -> bytes:
    return b"GET /v1/stream/%b?offset=-1 HTTP/1.1\r\nHost: h\r\n\r\n" % name.encode()


def read_answer(stream: BinaryIO) -> bytes:
    """The next answer's body, or what there is of it."""
    assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
    length = 0
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return stream.read(length)


@pytest.mark.slow
@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
def test_answers(tmp_path: Path, reactor: str) -> None:
    """Answers are complete, one after the other, whether the client reads at once or lets the server wait."""
    with with_files(tmp_path, reactor) as server:
        for pause in (0.0, 0.3):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(get("b") + get("j") + get("b"))
                stream = client.makefile("rb")
                for body in (DATA, JSON, DATA):
                    time.sleep(pause)
                    assert read_answer(stream) == body


@pytest.mark.slow
def test_client_leaves(tmp_path: Path) -> None:
    """A client that leaves in the middle harms nobody."""
    with with_files(tmp_path) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(get("b"))
                assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(get("b"))
            assert read_answer(client.makefile("rb")) == DATA


@pytest.mark.slow
def test_file_that_ends_too_soon(tmp_path: Path) -> None:
    """The connection is cut: the client must not take for the whole what is a part."""
    with with_files(tmp_path) as server:
        (path,) = (each for each in (tmp_path / "data" / "data").rglob("*.data") if each.stat().st_size == len(DATA))
        os.truncate(path, 2 << 20)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(get("b"))
            with pytest.raises(ConnectionResetError):
                read_answer(client.makefile("rb"))
