"""The load generator: what it sends, how often, and what it makes of the answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.load import (
    CELL_BYTES,
    Load,
    LoadFailure,
    Workload,
    append_once,
    create_streams,
    drive,
    expect_success,
    limit,
    parse_load,
)
from bench.servers import Launch, Mode, RunningServer, Server, Target

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk isn't installed")

_RESULT = (
    'RESULT {"requests": 12, "seconds": 0.5, "p50_us": 1, "p99_us": 2, "max_us": 3,'
    ' "refused": %d, "connect": 0, "read": %d, "write": 0, "timeout": 0}\n'
)


class ParseTests:
    def test_result(self) -> None:
        """The last line of the script is the result; errors that didn't occur aren't mentioned."""
        load = parse_load("Running 1s test\nRequests/sec: 24\n" + _RESULT % (0, 0))
        assert load == Load(12, 0.5, 1, 2, 3, {})
        assert load.rate == 24

    def test_errors(self) -> None:
        """Errors are kept by kind."""
        assert parse_load(_RESULT % (3, 1)).errors == {"refused": 3, "read": 1}

    def test_none(self) -> None:
        """Without a result there is an error that quotes what there was instead."""
        with pytest.raises(LoadFailure, match="unable to connect"):
            parse_load("unable to connect to 127.0.0.1:1\n")


class LimitTests:
    def test_unreachable(self) -> None:
        """A run that can't reach its limit in bytes isn't slowed down by counting."""
        assert limit(256, 5, CELL_BYTES) == 0
        assert limit(0, 60, CELL_BYTES) == 0

    def test_reachable(self) -> None:
        """A run that can ends after as many requests as fit."""
        assert limit(1_000_000, 5, 2_000_000_000) == 2000

    def test_larger_than_all(self) -> None:
        """One request is sent even if it alone is too large."""
        assert limit(3_000, 5, 1_000) == 1


class _Recorder(BaseHTTPRequestHandler):
    """Notes every request, and answers as a server of streams would."""

    protocol_version = "HTTP/1.1"
    server: _RecordingServer

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        with self.server.lock:
            self.server.requests.append((self.command, self.path, self.headers.get("Content-Type"), body))
        refused = self.path in self.server.refused
        self.send_response(404 if refused else 201 if self.command == "PUT" else 204)
        if refused or self.command == "PUT":
            self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_POST = do_HEAD = _answer  # noqa: N815 (http.server's names)

    def log_message(self, *args: Any) -> None:
        """Be silent."""


class _RecordingServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Recorder)
        self.lock = threading.Lock()
        self.requests: list[tuple[str, str, str | None, bytes]] = []
        self.refused: set[str] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A load generator closes its connections in the middle of a request."""

    @property
    def paths(self) -> Counter[str]:
        """How often each path was asked for."""
        with self.lock:
            return Counter(path for _, path, _, _ in self.requests)


@pytest.fixture
def recorder() -> Iterator[_RecordingServer]:
    server = _RecordingServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def running(recorder: _RecordingServer, tmp_path: Path) -> Iterator[RunningServer]:
    """The recorder as if it were a server's process."""

    def launch(mode: str, directory: Path) -> Launch:
        raise NotImplementedError

    target = Target(Server("fake", "fake 1.0", "/v1/stream/", (), launch), Mode("memory", ("memory",)))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return RunningServer(target, process, recorder.server_address[1], tmp_path / "log", 0.0)


class CreateStreamsTests:
    def test_each_once(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """Every stream is created exactly once, over however many connections."""
        create_streams(running, 100, b"abc", connections=8)
        assert recorder.paths == {f"/v1/stream/bench-{number}": 1 for number in range(100)}
        assert {request[::2] for request in recorder.requests} == {("PUT", "application/octet-stream")}
        assert {request[3] for request in recorder.requests} == {b"abc"}

    def test_refused(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """A stream that isn't created is an error that names it."""
        recorder.refused.add("/v1/stream/bench-7")
        with pytest.raises(LoadFailure, match="creating stream 7 was answered with 404"):
            create_streams(running, 20, connections=4)

    def test_progress(self, running: RunningServer) -> None:
        """Progress is told every thousand streams."""
        told: list[int] = []
        create_streams(running, 2001, connections=4, progress=told.append)
        assert told == [0, 1000, 2000]

    def test_single_requests(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """An answer other than 2xx to a single request is an error."""
        append_once(running)
        expect_success(running, "HEAD", "bench-0")
        recorder.refused.add("/v1/stream/bench-0")
        with pytest.raises(LoadFailure, match="POST was answered with 404"):
            append_once(running)


@needs_wrk
@pytest.mark.slow
class DriveTests:
    def test_one_stream(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """Appends to one stream have a body of the length asked for, and all answers are counted."""
        load = drive(running, Workload("a", "a", 2, 1, 256), 1, 0, CELL_BYTES)
        assert not load.errors
        assert set(recorder.requests) == {("POST", "/v1/stream/bench-0", "application/octet-stream", b"x" * 256)}
        # Some may be under way at the end.
        assert 0 <= len(recorder.requests) - load.requests <= 2
        assert 0.9 < load.seconds < 5

    def test_several_streams(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """Appends to several streams reach each of them as often, give or take one."""
        drive(running, Workload("a", "a", 2, 5, 10), 1, 0, CELL_BYTES)
        counts = [recorder.paths[f"/v1/stream/bench-{number}"] for number in range(5)]
        assert len(recorder.paths) == 5
        assert max(counts) - min(counts) <= 2

    def test_creates(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """No stream is created twice, also not by several threads."""
        load = drive(running, Workload("c", "c", 4, 0, 0), 1, 1000, CELL_BYTES)
        assert load.requests > 0
        assert not load.errors
        assert set(recorder.paths.values()) == {1}
        assert {request[0] for request in recorder.requests} == {"PUT"}

    def test_refused(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """Answers other than 2xx are counted, among however many good ones."""
        recorder.refused.add("/v1/stream/bench-1")
        load = drive(running, Workload("a", "a", 2, 3, 10), 1, 0, CELL_BYTES)
        assert abs(load.errors["refused"] - recorder.paths["/v1/stream/bench-1"]) <= 2

    def test_limit(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """A run ends at its limit in bytes, and its rate is that of the time until then."""
        load = drive(running, Workload("a", "a", 1, 1, 10_000), 2, 0, 200_000)
        assert 15 <= len(recorder.requests) <= 21
        assert load.seconds < 1
