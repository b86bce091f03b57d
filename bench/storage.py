"""The workloads of ``make bench-storage``: appends and creates in every storage mode, compared with the peers."""

from __future__ import annotations

import sys

from attrs import evolve

from bench import syncs
from bench.comparison import CREATE, appends
from bench.suite import Suite
from bench.syncs import AppendsPerSync
from bench.workload import Workload

_MODES = ("memory", "file-fast", "file-durable", "acid")


def workloads(*, quick: bool) -> list[Workload]:
    """Return all workloads, or a selection that takes a few minutes."""
    one_stream = [appends(100, connections) for connections in ((32,) if quick else (1, 32, 128))]
    many_streams = [appends(256, 64, streams, _MODES) for streams in ((100,) if quick else (100, 10_000))]
    chosen: list[Workload] = [*one_stream, *many_streams, evolve(CREATE, modes=_MODES, log_levels=False)]
    return chosen + ([AppendsPerSync(each) for each in one_stream] if syncs.available() else [])


STORAGE = Suite(
    "storage",
    "bench.storage",
    "What every storage mode takes in, beside the peers; see bench/README.md.",
    workloads,
    rounds=3,
    warm=1,
    seconds=2,
    peers=True,
)

if __name__ == "__main__":
    sys.exit(STORAGE.main())
