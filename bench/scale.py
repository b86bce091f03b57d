"""The workloads of ``make bench-scale``: the costs of this server with very many readers and streams.

A million idle streams are created over HTTP, once in every mode that a production system would use, and the server is
killed and restarted with them. Appends to 100,000 streams in turn are compared with appends to 100.
"""

from __future__ import annotations

import sys

from bench.comparison import appends
from bench.idle import IdleStreams
from bench.live import FanOut, IdleReaders
from bench.restart import Restart
from bench.suite import Suite
from bench.workload import Workload

_MODES = ("memory", "file-durable", "acid")


def workloads(*, quick: bool) -> list[Workload]:
    """Return all workloads, or the same at a hundredth of the size."""
    few = 100 if quick else 1
    return [
        IdleReaders(10_000 // few),
        FanOut(10_000 // few, 5, rounds=1),
        appends(256, 64, 100, _MODES),
        appends(256, 64, 100_000 // few, _MODES),
        IdleStreams(1_000_000 // few, modes=("memory",)),
        Restart(100_000 // few, 1_000_000_000 // few, modes=("file-durable", "acid")),
        Restart(1_000_000 // few, 0, modes=("file-durable", "acid")),
    ]


SCALE = Suite(
    "scale",
    "bench.scale",
    "What our server costs when there is very much of everything; see bench/README.md.",
    workloads,
    rounds=1,
    warm=2,
    seconds=5,
    peers=False,
)

if __name__ == "__main__":
    sys.exit(SCALE.main())
