"""Measures the memory that an idle stream takes, in comparison with the peers."""

from __future__ import annotations

import time

from attrs import frozen

from bench.client import create_streams
from bench.load import START_SECONDS
from bench.servers import running
from bench.workload import BYTES_EACH, Figures, Measure, Run

_CREATES_PER_SECOND = 4000
"""Approximate number of streams created per second, for estimates; servers that sync each of them are slower."""

_SETTLE_SECONDS = 1.0
"""Seconds that a server gets to come to rest before its memory is measured."""


@frozen
class IdleStreams:
    """Creates empty streams that are not used (a ``Workload``).

    The memory is the server's growth while all streams but the first are created.
    """

    streams: int
    modes: tuple[str, ...] = ("memory", "file-durable")
    rounds: int = 1
    group: str = "idle"
    log_levels: bool = False
    measures: tuple[Measure, ...] = (BYTES_EACH,)

    @property
    def key(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        return f"idle-streams-{self.streams}"

    @property
    def title(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        return f"idle stream, of {self.streams:,}"

    def estimate(self, warm: int, seconds: int) -> float:  # noqa: ARG002 (the duration does not depend on it)
        """See :class:`~bench.workload.Workload`."""
        return START_SECONDS + self.streams / _CREATES_PER_SECOND

    def measure(self, run: Run) -> Figures:
        """Create the streams, and measure the server's memory."""
        with running(run.target, run.directory) as server:
            create_streams(server, 1)
            time.sleep(_SETTLE_SECONDS)
            before = server.resident_bytes()
            create_streams(
                server,
                self.streams,
                progress=lambda number: run.step(f"{number:,} of {self.streams:,} streams"),
                first=1,
            )
            time.sleep(_SETTLE_SECONDS)
            resident = server.resident_bytes()
        return {BYTES_EACH.key: (resident - before) / (self.streams - 1), "resident_bytes": resident}
