"""A real server whose system calls fail under concurrent producers: what it answers, and what a restart finds."""

from __future__ import annotations

import http.client
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from attrs import frozen

from tests.kill.strace import failing, obstacle
from tests.kill.workload import Line, Worker, create, verify
from tests.support.servers import ChildServer, twistd_server

WITHOUT_IO_URING = Path(__file__).with_name("without_io_uring.py")

STREAMS, PRODUCERS, WORKERS = 6, 2, 4

PATIENCE = 60.0
"""Seconds until what must happen has happened."""


@frozen
class Fault:
    """What fails.

    :param mode: the storage mode.
    :param calls: system calls; in the file modes ``pwrite64`` writes to the journal, in ``acid`` to a WAL.
    :param passes: whether the store goes on when they work again.
    :param checkpoint_bytes: a small number, where it is a checkpoint that is to fail.
    :param shards: one, where no group may be half committed: strace counts the calls of each thread by itself.
    """

    mode: str
    calls: str
    error: str
    passes: bool = False
    checkpoint_bytes: int = 50_000_000
    shards: int = 4

    def __str__(self) -> str:
        return f"{self.mode} {self.calls} {self.error}"


FAULTS = (
    # file-durable asks the kernel to sync, by one call or the other.
    Fault("file-durable", "io_submit,fdatasync", "EIO"),
    Fault("file-durable", "pwrite64", "EIO"),
    Fault("file-durable", "pwrite64", "ENOSPC", passes=True),
    Fault("file-durable", "syncfs", "EIO", checkpoint_bytes=20_000),
    Fault("file-fast", "pwrite64", "EIO"),
    Fault("file-fast", "pwrite64", "ENOSPC", passes=True),
    Fault("file-fast", "syncfs", "EIO", checkpoint_bytes=20_000),
    Fault("acid", "fdatasync,fsync", "EIO"),
    Fault("acid", "pwrite64", "EIO"),
    Fault("acid", "pwrite64", "ENOSPC", passes=True, shards=1),
)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_injected_fault(fault: Fault, tmp_path: Path) -> None:
    """Writes are refused while the disk fails, reads go on, and a restart finds all that was acknowledged, once."""
    why = obstacle()
    if why is not None:
        pytest.skip(why)
    lines = [Line(f"/v1/stream/s{s}", f"p{s}-{p}") for s in range(STREAMS) for p in range(PRODUCERS)]
    with _life(fault, tmp_path, 1) as server:
        create(server.port, lines)
        with _producers(server, lines):
            _until(lambda: sum(line.acknowledged for line in lines) > 100, "producers don't get ahead")
            with failing(server.process.pid, fault.calls, fault.error, when="20+"):
                _until(lambda: any(line.refused for line in lines), "nothing fails")
                _expect_trouble(fault, server)
                verify(server.port, lines)
            _expect_after(fault, server, lines)
        verify(server.port, lines)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with _life(fault, tmp_path, 2) as server:
        verify(server.port, lines)
        before = [line.acknowledged for line in lines]
        with _producers(server, lines):
            _until(
                lambda: all(line.acknowledged > had for line, had in zip(lines, before, strict=True)),
                "a producer can't go on after the restart",
            )
        verify(server.port, lines)


def _expect_trouble(fault: Fault, server: ChildServer) -> None:
    """A full disk is said with 507, everything else with 503, and that it isn't ready; reads are answered."""
    full = fault.error == "ENOSPC"
    status, headers = _ask(server, "POST", "/v1/stream/s0", b"[0]")
    assert status == (507 if full else 503)
    assert ("Retry-After" in headers) != full
    # The answer of a request comes a moment before the store has noted what its failure means.
    _until(lambda: _ask(server, "GET", "/readyz")[0] == (200 if full else 503), "readiness says something else")


def _expect_after(fault: Fault, server: ChildServer, lines: list[Line]) -> None:
    """The calls work again."""
    before = sum(line.acknowledged for line in lines)
    if fault.passes:
        _until(lambda: sum(line.acknowledged for line in lines) > before + 20, "the store doesn't go on")
        assert _ask(server, "GET", "/readyz")[0] == 200
    else:
        assert _ask(server, "POST", "/v1/stream/s0", b"[0]")[0] == 503
        assert _ask(server, "GET", "/readyz")[0] == 503
        assert sum(line.acknowledged for line in lines) == before


@contextmanager
def _life(fault: Fault, directory: Path, number: int) -> Iterator[ChildServer]:
    """A server on the same data directory."""
    home = directory / f"life{number}"
    home.mkdir()
    settings = {
        "DS_STORAGE__MODE": fault.mode,
        "DS_STORAGE__DATA_DIR": str(directory / "data"),
        "DS_STORAGE__CHECKPOINT_BYTES": str(fault.checkpoint_bytes),
        "DS_STORAGE__ACID_SHARD_COUNT": str(fault.shards),
    }
    # libuv uses io_uring too, and ends the process when its calls fail.
    below = [sys.executable, str(WITHOUT_IO_URING)] if "io_submit" in fault.calls else []
    with twistd_server(home, environ=settings, below=below) as server:
        yield server


@contextmanager
def _producers(server: ChildServer, lines: list[Line]) -> Iterator[None]:
    """Producers that append as fast as they can, and are done at the end."""
    enough = threading.Event()
    workers = [Worker(lines[n::WORKERS], lambda: server.port, enough) for n in range(WORKERS)]
    for worker in workers:
        worker.start()
    with ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.join)
        stack.callback(enough.set)
        yield


def _ask(server: ChildServer, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, dict(answer.headers)


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait: another process takes its own time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
