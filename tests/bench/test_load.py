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

from bench.client import append_once, create_streams, expect_success, fill_stream
from bench.comparison import CATCH_UP_SMALL, appends
from bench.load import CELL_BYTES, Load, Requests, drive, limit, parse_load, validate_head
from bench.servers import Launch, Mode, RunningServer, Server, Target
from bench.workload import CPU, RATE, LoadFailure

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk isn't installed")

_RESULT = (
    'RESULT {"requests": 12, "seconds": 0.5, "p50_us": 1, "p99_us": 2, "max_us": 3, "bytes": 4,'
    ' "refused": %d, "connect": 0, "read": %d, "write": 0, "timeout": 0}\n'
)


class ParseTests:
    def test_result(self) -> None:
        """The last line of the script is the result; errors that didn't occur aren't mentioned."""
        load = parse_load("Running 1s test\nRequests/sec: 24\n" + _RESULT % (0, 0))
        assert load == Load(12, 0.5, 1, 2, 3, 4, {})
        assert load.rate == 24

    def test_errors(self) -> None:
        """Errors are kept by kind."""
        assert parse_load(_RESULT % (3, 1)).errors == {"refused": 3, "read": 1}

    def test_none(self) -> None:
        """Without a result there is an error that quotes what there was instead."""
        with pytest.raises(LoadFailure, match="unable to connect"):
            parse_load("unable to connect to 127.0.0.1:1\n")


class JudgeTests:
    def test_clean(self) -> None:
        """A run in which all went well has a rate and what each request took of the processor."""
        figures = validate_head(appends(100, 1), Load(1000, 0.5, 100, 200, 300), 0.02)
        assert figures[RATE.key] == 2000
        assert figures[CPU.key] == pytest.approx(20.0)

    def test_errors(self) -> None:
        """One request that was refused makes a run void, however many were answered."""
        with pytest.raises(LoadFailure, match="1 x refused"):
            validate_head(appends(100, 1), Load(10_000, 1.0, 100, 200, 300, 0, {"refused": 1}), 0.5)

    def test_nothing_answered(self) -> None:
        """A run without an answer is void, not a rate of zero."""
        with pytest.raises(LoadFailure, match="nothing was answered"):
            validate_head(appends(100, 1), Load(0, 1.0, 0, 0, 0), 0.5)

    def test_part_of_the_stream(self) -> None:
        """Reads that brought less than the whole stream each are void."""
        validate_head(CATCH_UP_SMALL, Load(10, 1.0, 0, 0, 0, 102_400), 0.5)
        with pytest.raises(LoadFailure, match="not the whole stream"):
            validate_head(CATCH_UP_SMALL, Load(10, 1.0, 0, 0, 0, 102_399), 0.5)


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

    do_PUT = do_POST = do_HEAD = do_GET = _answer  # noqa: N815 (http.server's names)

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
    return RunningServer(target, process, recorder.server_address[1], tmp_path / "log")


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
        with pytest.raises(LoadFailure, match="PUT of /v1/stream/bench-7 was answered with 404"):
            create_streams(running, 20, connections=4)

    def test_progress(self, running: RunningServer) -> None:
        """Progress is told every thousand streams."""
        told: list[int] = []
        create_streams(running, 2001, connections=4, progress=told.append)
        assert told == [0, 1000, 2000]

    def test_rest(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """The streams before the first one asked for aren't created again."""
        create_streams(running, 10, first=7)
        assert recorder.paths == {f"/v1/stream/bench-{number}": 1 for number in (7, 8, 9)}

    def test_fill(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """A stream is filled message by message, over one connection."""
        fill_stream(running, "one", 3, 5)
        assert [(method, body) for method, _, _, body in recorder.requests] == [("PUT", b""), *[("POST", b"xxxxx")] * 3]

    def test_nobody_there(self, running: RunningServer, recorder: _RecordingServer) -> None:
        """A server that has gone is a failure of the run, not a traceback."""
        recorder.shutdown()
        recorder.server_close()
        with pytest.raises(LoadFailure, match="failed"):
            create_streams(running, 1)

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
        load = drive(running, Requests("k", "t", "g", "append", 2, 1, 256), 1, 0, CELL_BYTES)
        assert not load.errors
        assert set(recorder.requests) == {("POST", "/v1/stream/bench-0", "application/octet-stream", b"x" * 256)}
        # Some may be under way at the end.
        assert 0 <= len(recorder.requests) - load.requests <= 2
        assert 0.9 < load.seconds < 5

    def test_several_streams(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """Appends to several streams reach each of them as often, give or take one."""
        drive(running, Requests("k", "t", "g", "append", 2, 5, 10), 1, 0, CELL_BYTES)
        counts = [recorder.paths[f"/v1/stream/bench-{number}"] for number in range(5)]
        assert len(recorder.paths) == 5
        assert max(counts) - min(counts) <= 2

    def test_creates(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """No stream is created twice, also not by several threads."""
        load = drive(running, Requests("k", "t", "g", "create", 4, 1, 0), 1, 1000, CELL_BYTES)
        assert load.requests > 0
        assert not load.errors
        assert set(recorder.paths.values()) == {1}
        assert {request[0] for request in recorder.requests} == {"PUT"}

    def test_reads(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """Reads ask for the stream from its start."""
        load = drive(running, Requests("r", "r", "g", "read", 2, body_bytes=10), 1, 0, CELL_BYTES)
        assert not load.errors
        assert load.bytes > load.requests
        assert set(recorder.paths) == {"/v1/stream/bench-0?offset=-1"}

    def test_refused(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """Answers other than 2xx are counted, among however many good ones."""
        recorder.refused.add("/v1/stream/bench-1")
        load = drive(running, Requests("k", "t", "g", "append", 2, 3, 10), 1, 0, CELL_BYTES)
        assert abs(load.errors["refused"] - recorder.paths["/v1/stream/bench-1"]) <= 2

    def test_limit(self, recorder: _RecordingServer, running: RunningServer) -> None:
        """A run ends at its limit in bytes, and its rate is that of the time until then."""
        load = drive(running, Requests("k", "t", "g", "append", 1, 1, 10_000), 2, 0, 200_000)
        assert 15 <= len(recorder.requests) <= 21
        assert load.seconds < 1
