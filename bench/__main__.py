"""Compares this server with its peers: ``python -m bench``, or ``make bench``.

All installed servers get the same load in turn, in several rounds. ``bench/README.md`` says what is measured, how, and
what is not measured.
"""

import sys

from bench.comparison import workloads
from bench.suite import Suite

COMPARISON = Suite(
    "comparison",
    "bench",
    "Compare this server with its peers, in every mode; see bench/README.md.",
    workloads,
    rounds=3,
    warm=1,
    seconds=2,
    peers=True,
)

if __name__ == "__main__":
    sys.exit(COMPARISON.main())
