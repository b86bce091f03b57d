"""Sends requests with wrk: appends, creates and small reads, the same for every server.

wrk (https://github.com/wg/wrk, Debian's package ``wrk``) keeps a number of connections busy: each sends its
next request after the response to the last one. ``requests.lua`` generates the requests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from attrs import field, frozen

from bench.client import STREAM_PREFIX, append_once, create_streams, expect_success, fill_stream
from bench.pages import fetch_pages
from bench.servers import RunningServer, running
from bench.workload import CPU, RATE, Figures, LoadFailure, Measure, Run, Step

CELL_BYTES = 2_000_000_000
"""Maximum bytes that one run may send, including the warm-up."""

FASTEST = 300_000
"""More requests per second than wrk can send. It shows whether a run can reach its limit in bytes at all."""

START_SECONDS = 2.0
"""Approximate seconds for starting and stopping a server, and for waiting for the disk."""

_WARM_FIRST, _FIRST = 1, 50_000_000
"""The first numbers of streams that a run creates while it warms up, and while it is measured."""

_MESSAGE_BYTES = 1024
"""The size of the messages that are read."""

_HEAVY_BYTES = 100_000
"""Size of appends that fill memory faster than a virtual machine gets it from its host."""

_SCRIPT = Path(__file__).with_name("requests.lua")

_ERRORS = ("refused", "connect", "read", "write", "timeout")


@frozen
class Requests:
    """Sends requests over a number of connections (a ``Workload``).

    :param kind: ``append``, ``create`` or ``read``.
    :param connections: the number of busy connections.
    :param streams: the number of streams that are appended to, or read, in turn.
    :param body_bytes: the size of each request's body; for ``read``, of each response's.
    :param least_seconds: minimum seconds of measurement, for loads with only a few dozen responses per second.
    """

    key: str
    title: str
    group: str
    kind: str
    connections: int
    streams: int = 1
    body_bytes: int = 0
    modes: tuple[str, ...] = ("memory", "file-fast", "file-durable", "acid")
    log_levels: bool = False
    measures: tuple[Measure, ...] = (RATE, CPU)
    rounds: int = 99
    least_seconds: int = 0

    def estimate(self, warm: int, seconds: int) -> float:
        """See :class:`~bench.workload.Workload`."""
        return START_SECONDS + warm + max(seconds, self.least_seconds) + self.streams / 5000

    def measure(self, run: Run) -> Figures:
        """Start an empty server, warm it up, measure it, and stop it."""
        with running(run.target, run.directory) as server:
            self.prepare(server, run.step)
            run.step("warming up")
            drive(server, self, run.warm, _WARM_FIRST, CELL_BYTES // 4)
            run.step("measuring")
            cpu_before = server.cpu_seconds()
            load = drive(server, self, max(run.seconds, self.least_seconds), _FIRST, CELL_BYTES * 3 // 4)
            cpu_seconds = server.cpu_seconds() - cpu_before
            server.check_alive()
        return validate_head(self, load, cpu_seconds)

    def prepare(self, server: RunningServer, step: Step) -> None:
        """Create the streams, and check that requests get the right responses.

        :raise LoadFailure: if one does not.
        """
        if self.kind == "read":
            fill_stream(server, f"{STREAM_PREFIX}0", self.body_bytes // _MESSAGE_BYTES, _MESSAGE_BYTES)
            expect_success(server, "HEAD", f"{STREAM_PREFIX}0")
        else:
            count = self.streams
            create_streams(server, count, progress=lambda number: step(f"creating streams, {number:,} of {count:,}"))
            append_once(server)
        # The run must not be slowed down by writes from its preparation or from the previous server.
        step("waiting for the disk")
        os.sync()
        if self.kind == "append" and self.body_bytes >= _HEAVY_BYTES:
            step("fetching memory")
            fetch_pages(2 * CELL_BYTES)


@frozen
class Load:
    """The result of a run of wrk.

    :param requests: the number of responses.
    :param bytes: the number of bytes received, including heads.
    :param p50_us: the median response time in microseconds.
    :param errors: the number of errors, by kind: ``refused`` (a response other than 2xx), ``connect``,
        ``read``, ``write``, ``timeout``.
    """

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    max_us: int
    bytes: int = 0
    errors: dict[str, int] = field(factory=dict)

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.requests / self.seconds


def validate_head(workload: Requests, load: Load, cpu_seconds: float) -> Figures:
    """Return the figures of a run.

    :raise LoadFailure: if there was any error, because rejecting a request is often faster than processing it.
    """
    if load.errors:
        raise LoadFailure(", ".join(f"{count} x {kind}" for kind, count in load.errors.items()))
    if not load.requests:
        raise LoadFailure("nothing was answered")
    if workload.kind == "read" and load.bytes < load.requests * workload.body_bytes:
        raise LoadFailure(f"{load.requests:,} answers had {load.bytes:,} bytes: not the whole stream in each")
    figures = {"requests": load.requests, "seconds": load.seconds, "cpu_seconds": cpu_seconds}
    # Response times of a server under full load; they say little.
    times = {"wrk_p50_us": load.p50_us, "wrk_p99_us": load.p99_us, "wrk_max_us": load.max_us}
    return {RATE.key: load.rate, CPU.key: cpu_seconds * 1e6 / load.requests} | figures | times


def parse_load(output: str) -> Load:
    """Parse the result that ``requests.lua`` printed.

    :raise LoadFailure: when there is none.
    """
    for line in reversed(output.splitlines()):
        word, _, result = line.partition(" ")
        if word == "RESULT":
            given = json.loads(result)
            errors = {kind: given.pop(kind) for kind in _ERRORS}
            return Load(**given, errors={kind: count for kind, count in errors.items() if count})
    raise LoadFailure(f"wrk gave no result: {output.strip()[-200:]}")


def limit(body_bytes: int, seconds: int, most_bytes: int) -> int:
    """Return the maximum number of requests, or 0 for no limit.

    There is a limit only if it can be reached, because counting costs wrk a little for each request.
    """
    if body_bytes * FASTEST * seconds <= most_bytes:
        return 0
    return max(1, most_bytes // body_bytes)


def wrk_threads() -> int:
    """Return the number of threads for wrk, which leaves half of the machine to the server."""
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def drive(
    server: RunningServer,
    workload: Requests,
    seconds: int,
    first: int,
    most_bytes: int,
    *,
    wrapper: Sequence[str] = (),
) -> Load:
    """Send requests for some seconds.

    :param first: the number of the first stream to create.
    :param most_bytes: end earlier when this many bytes have been sent. Reads are not limited, as they store nothing.
    :param wrapper: a command that runs wrk.
    :raise LoadFailure: if wrk cannot be run, fails, or prints no result.
    """
    threads = min(wrk_threads(), workload.connections)
    most = 0 if workload.kind == "read" else limit(workload.body_bytes, seconds, most_bytes)
    command = [
        *wrapper,
        "wrk",
        f"-t{threads}",
        f"-c{workload.connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
    ]
    command += ["-s", str(_SCRIPT), server.origin, "--"]
    command += [workload.kind, server.path(STREAM_PREFIX), str(workload.streams)]
    command += [str(first), str(workload.body_bytes), str(-(-most // threads))]
    if shutil.which("wrk") is None:
        raise LoadFailure("there is no wrk; on Debian: apt-get install wrk")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadFailure(f"wrk ended with status {done.returncode}: {done.stderr.strip()[-200:]}")
    return parse_load(done.stdout)
