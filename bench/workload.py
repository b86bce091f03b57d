"""The parts of a benchmark: measures, workloads, and the outcome of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from attrs import frozen

from bench.servers import Target


class LoadFailure(Exception):
    """The load could not be generated, or the responses were wrong; the text says why."""


@frozen
class Measure:
    """A kind of figure.

    :param key: its name in files.
    :param title: its heading.
    :param unit: the unit to print after a figure.
    :param less_is_better: whether smaller figures are better.
    """

    key: str
    title: str
    unit: str
    less_is_better: bool = False

    def wins(self, ratio: float) -> bool:
        """Whether this server wins, given the ratio of its figure to the peer's."""
        return ratio < 1 if self.less_is_better else ratio > 1


def _cost(key: str, title: str, unit: str) -> Measure:
    return Measure(key, title, unit, less_is_better=True)


RATE = Measure("rate", "Answers per second", "answers/s")
CPU = _cost("cpu_us", "Processor time of the server per request, in µs", "µs of CPU/request")
MEGABYTES = Measure("megabytes", "Megabytes per second", "MB/s")
CPU_MEGABYTE = _cost("cpu_us_megabyte", "Processor time of the server per megabyte, in µs", "µs of CPU/MB")
CPU_EVENT = _cost("cpu_us_event", "Processor time of the server per delivered event, in µs", "µs of CPU/event")
P50 = _cost("p50_us", "Time until delivery in µs, median", "µs until delivery (median)")
P99 = _cost("p99_us", "Time until delivery in µs, 99th percentile", "µs (99th percentile)")
BYTES_EACH = _cost("bytes_each", "Memory of each, in bytes", "bytes each")
KILLED = _cost("killed_seconds", "Time until it answers after SIGKILL, in seconds", "s after SIGKILL")
STOPPED = _cost("stopped_seconds", "Time until it answers after an orderly stop, in seconds", "s after a stop")
FILLED = Measure("created_per_second", "Streams created per second", "streams created/s")
PING_MAX = _cost("ping_max_ms", "Longest wait of the pinger, in ms", "ms at worst")
PING_P99 = _cost("ping_p99_ms", "Wait of the pinger, 99th percentile, in ms", "ms (99th percentile)")
PING_P50 = _cost("ping_p50_ms", "Wait of the pinger, median, in ms", "ms (median)")
TURN = _cost("turn_ms", "Longest turn of the reactor in processor time, in ms", "ms in the longest turn")
PEAK_MB = _cost("peak_mb", "Peak memory of the server, in MB", "MB at most")
SHARED = Measure("appends_per_sync", "Appends per sync", "appends/sync")

MEASURES = {
    each.key: each
    for each in (
        *(RATE, CPU, MEGABYTES, CPU_MEGABYTE, CPU_EVENT, P50, P99, BYTES_EACH),
        *(FILLED, KILLED, STOPPED, SHARED),
        *(PING_MAX, PING_P99, PING_P50, TURN, PEAK_MB),
    )
}

Figures = Mapping[str, float]
"""The result of a run: the figures of its measures and other values worth keeping, by key."""


@frozen
class Measured:
    """A run in which every request got the right response."""

    figures: Figures


@frozen
class Void:
    """A run without a valid result, with the reason."""

    reason: str


Outcome = Measured | Void

Step = Callable[[str], object]
"""Called with the current step of a run."""


@frozen
class Run:
    """One run of a workload on a target.

    :param directory: an empty directory on the disk that is measured.
    :param warm: seconds under load before the measured ones.
    :param seconds: the measured seconds.
    """

    target: Target
    directory: Path
    warm: int
    seconds: int
    step: Step


class Workload(Protocol):
    """A load for servers.

    ``key`` is for files and the command line, ``title`` for people, ``group`` its heading in a report; ``modes`` are
    the modes of this server in which it is run; ``measures`` are its results, the most important first;
    ``rounds`` is the useful maximum of rounds; ``log_levels`` says whether this server also runs at its default
    log level, too.
    """

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def modes(self) -> tuple[str, ...]: ...
    @property
    def measures(self) -> tuple[Measure, ...]: ...
    @property
    def rounds(self) -> int: ...
    @property
    def log_levels(self) -> bool: ...

    def estimate(self, warm: int, seconds: int) -> float:
        """Return the estimated seconds of a run."""
        ...

    def measure(self, run: Run) -> Figures:
        """Run it.

        :raise StartFailure: if the server does not start.
        :raise LoadFailure: if the run is void.
        """
        ...
