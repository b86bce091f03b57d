"""What a restart costs: the time until a store with many streams answers again, and the memory of an idle one.

A store is filled over HTTP, the server is killed (SIGKILL), started again, stopped in order, and started once
more. The pages of its files stay in the system's cache, so what is timed is the server's work, not the disk's.
"""

from __future__ import annotations

import time

from attrs import frozen

from bench.client import STREAM_PREFIX, create_streams, expect_success
from bench.load import START_SECONDS
from bench.servers import kill, running, stop
from bench.workload import BYTES_EACH, FILLED, KILLED, STOPPED, Figures, Measure, Run

_CREATES_PER_SECOND = 4000
"""About how many streams are created in a second, for estimates."""


@frozen
class Start:
    """One start of the server.

    :param seconds: from the start of the process until a stream's HEAD was answered.
    :param resident_bytes: its memory then.
    :param stop_seconds: how long the stop afterwards took.
    """

    seconds: float
    resident_bytes: int
    stop_seconds: float


@frozen
class Restart:
    """A server with many streams is started again (a ``Workload``).

    Memory is that of a stream which nobody has used since the start: the memory after the orderly stop and the
    start, less that with an empty store, by stream.

    :param stored_bytes: what all streams hold together.
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

    def estimate(self, warm: int, seconds: int) -> float:  # noqa: ARG002 (it takes as long as it takes)
        """See :class:`~bench.workload.Workload`."""
        return 4 * START_SECONDS + self.streams / _CREATES_PER_SECOND + self.stored_bytes / 50e6

    def measure(self, run: Run) -> Figures:
        """Fill a store, and start a server on it again and again."""
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
        """Create the streams; how long that took, and the server's memory then."""
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
    """Start a server on what is there, ask for the last stream, and stop it in order."""
    began = time.perf_counter()

    def waiting(seconds: float) -> None:
        run.step(f"starting{when}, {seconds:.0f} s")

    with running(run.target, run.directory / folder, waiting) as server:
        expect_success(server, "HEAD", f"{STREAM_PREFIX}{streams - 1}")
        seconds, resident = time.perf_counter() - began, server.resident_bytes()
        began = time.perf_counter()
        stop(server)
        return Start(seconds, resident, time.perf_counter() - began)
