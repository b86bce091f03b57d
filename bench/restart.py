"""Measures restarts: the time until a server with many streams answers again, and the memory of an idle stream.

A store is filled over HTTP; the server is killed (SIGKILL), started again, shut down cleanly, and started once more.
Its files stay in the system's page cache, so the times are those of the server's work, not of the disk.
"""

from __future__ import annotations

import time

from attrs import frozen

from bench.client import STREAM_PREFIX, create_streams, expect_success
from bench.load import START_SECONDS
from bench.servers import kill, running, stop
from bench.workload import BYTES_EACH, FILLED, KILLED, STOPPED, Figures, Measure, Run

_CREATES_PER_SECOND = 4000
"""Approximate number of streams created per second, for estimates."""


@frozen
class Start:
    """One start of the server.

    :param seconds: the time from the start of the process until a stream's HEAD was answered.
    :param resident_bytes: the server's memory at that time.
    :param stop_seconds: the duration of the shutdown afterwards.
    """

    seconds: float
    resident_bytes: int
    stop_seconds: float


@frozen
class Restart:
    """Restarts a server with many streams (a ``Workload``).

    The memory is that of a stream that has not been used since the start: the memory after a clean shutdown and a
    start, minus that with an empty store, divided by the number of streams.

    :param stored_bytes: the bytes of all streams together.
    """

    streams: int
    stored_bytes: int
    modes: tuple[str, ...] = ("file-durable",)
    rounds: int = 1
    group: str = "restart"
    log_levels: bool = False
    measures: tuple[Measure, ...] = (KILLED, STOPPED, FILLED, BYTES_EACH)

    @property
    def key(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        return f"restart-{self.streams}-{self.stored_bytes}"

    @property
    def title(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        held = f"with {self.stored_bytes / 1e6:,.0f} MB" if self.stored_bytes else "with nothing in them"
        return f"{self.streams:,} streams {held}"

    def estimate(self, warm: int, seconds: int) -> float:  # noqa: ARG002 (the duration does not depend on it)
        """See :class:`~bench.workload.Workload`."""
        return 4 * START_SECONDS + self.streams / _CREATES_PER_SECOND + self.stored_bytes / 50e6

    def measure(self, run: Run) -> Figures:
        """Fill a store, and start a server on it several times."""
        run.step("starting with an empty store")
        with running(run.target, run.directory / "empty") as server:
            create_streams(server, 1)
        empty = _start(run, "empty", 1)
        fill_seconds, filled_bytes = self._fill(run)
        killed = _start(run, "store", self.streams, " after a kill")
        stopped = _start(run, "store", self.streams, " after an orderly stop")
        return {
            KILLED.key: killed.seconds,
            STOPPED.key: stopped.seconds,
            FILLED.key: self.streams / fill_seconds,
            BYTES_EACH.key: (stopped.resident_bytes - empty.resident_bytes) / self.streams,
            "empty_seconds": empty.seconds,
            "empty_bytes": empty.resident_bytes,
            "fill_seconds": fill_seconds,
            "filled_bytes": filled_bytes,
            "killed_bytes": killed.resident_bytes,
            "stop_seconds": killed.stop_seconds,
            "stopped_bytes": stopped.resident_bytes,
        }

    def _fill(self, run: Run) -> tuple[float, int]:
        """Create the streams. Return the duration, and the server's memory afterwards."""
        body = b"x" * (self.stored_bytes // self.streams)
        with running(run.target, run.directory / "store") as server:
            began = time.perf_counter()
            create_streams(
                server, self.streams, body, progress=lambda number: run.step(f"{number:,} of {self.streams:,} streams")
            )
            found = time.perf_counter() - began, server.resident_bytes()
            kill(server)
        return found


def _start(run: Run, folder: str, streams: int, when: str = "") -> Start:
    """Start a server on an existing store, request the last stream, and shut the server down cleanly."""
    began = time.perf_counter()

    def waiting(seconds: float) -> None:
        run.step(f"starting{when}, {seconds:.0f} s")

    with running(run.target, run.directory / folder, waiting) as server:
        expect_success(server, "HEAD", f"{STREAM_PREFIX}{streams - 1}")
        seconds, resident = time.perf_counter() - began, server.resident_bytes()
        began = time.perf_counter()
        stop(server)
        return Start(seconds, resident, time.perf_counter() - began)
