"""The workloads of ``make bench``, and the modes of this server in which each is run.

Not every combination is measured: that would take a day and show little more. The number of connections is varied in
every mode with bodies of 100 B; the size of bodies with 32 connections, in ``memory`` and ``file-durable``, as are
several streams, creates and reads. Fan-out uses the same code in every mode, and is measured in ``memory``. The time
until delivery includes the commit, because an event can be read only when it is durable.
"""

from __future__ import annotations

from bench import syncs
from bench.idle import IdleStreams
from bench.live import FanOut, IdleReaders
from bench.load import Requests
from bench.reading import Reads
from bench.restart import Restart
from bench.syncs import AppendsPerSync
from bench.workload import Workload

_BOTH = ("memory", "file-durable")

_LARGE = 1 << 20
"""Bodies of this size or more need a longer run, because disks store so few of them per second."""

_SIZES = {100: "100 B", 256: "256 B", 10_240: "10 KB", 1_048_576: "1 MB"}


def appends(
    body_bytes: int,
    connections: int,
    streams: int = 1,
    modes: tuple[str, ...] = ("memory", "file-fast", "file-durable", "acid"),
    *,
    log_levels: bool = False,
) -> Requests:
    """Return the workload of appends of one size over some connections."""
    many = "1 connection" if connections == 1 else f"{connections} connections"
    where = "" if streams == 1 else f", {streams:,} streams"
    return Requests(
        key=f"append-{body_bytes}-c{connections}-s{streams}",
        title=f"{_SIZES[body_bytes]}, {many}{where}",
        group="append" if streams == 1 else "multi-stream",
        kind="append",
        connections=connections,
        streams=streams,
        body_bytes=body_bytes,
        modes=modes,
        log_levels=log_levels,
        least_seconds=5 if body_bytes >= _LARGE else 0,
        rounds=1 if body_bytes >= _LARGE else 99,
    )


CREATE = Requests("create-c64", "64 connections", "create", "create", 64, 1, 0, modes=_BOTH, log_levels=True)

CATCH_UP_SMALL = Requests(
    "catch-up-10240-c32",
    "10 KB, 32 connections",
    "catch-up",
    "read",
    32,
    body_bytes=10_240,
    modes=("memory", "file-fast", "file-durable"),
    log_levels=True,
)
CATCH_UP_LARGE = Reads("catch-up-8388608-c8", "8 MB, 8 connections", 8, 32, 262_144, group="catch-up")
REPLAY = Reads("replay-1000", "1,000 clients, each 200 x 1 KiB", 1000, 200, 1024, group="replay")

FAN_OUTS = (
    FanOut(1, 50, modes=("memory", "file-durable", "acid")),
    FanOut(100, 50),
    FanOut(1000, 50),
    # As many deliveries per second as with 1,000 readers, because two cores cannot send ten times as many.
    FanOut(10_000, 5, rounds=1),
)

_REQUESTS: tuple[Workload, ...] = (
    appends(100, 1),
    appends(100, 32, log_levels=True),
    appends(100, 128, log_levels=True),
    appends(100, 512, modes=_BOTH),
    *(appends(size, 32, modes=_BOTH) for size in (256, 10_240, 1_048_576)),
    appends(256, 64, 100, modes=_BOTH),
    appends(256, 64, 10_000, modes=_BOTH),
    CREATE,
)


def workloads(*, quick: bool) -> list[Workload]:
    """Return all workloads, or a selection that takes a few minutes."""
    if quick:
        chosen: list[Workload] = [appends(100, 32, log_levels=True), appends(100, 128), appends(256, 64, 100, _BOTH)]
        chosen += [CREATE, CATCH_UP_SMALL, CATCH_UP_LARGE, REPLAY, FAN_OUTS[0], FAN_OUTS[2]]
        return [*chosen, IdleReaders(1000), IdleStreams(2000), Restart(2000, 20_000_000)]
    chosen = [*_REQUESTS, CATCH_UP_SMALL, CATCH_UP_LARGE, REPLAY, *FAN_OUTS]
    chosen += [IdleReaders(10_000), IdleStreams(10_000), Restart(10_000, 100_000_000)]
    if syncs.available():
        chosen += [AppendsPerSync(appends(100, connections)) for connections in (1, 32, 128)]
    return chosen
