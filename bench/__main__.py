"""Our server beside its peers: ``python -m bench``, or ``make bench``.

Every server that is installed gets the same load, in turns, in several rounds. ``bench/README.md`` says what is
measured, how, and what isn't.
"""

import sys

from bench.comparison import workloads
from bench.suite import Suite

COMPARISON = Suite(
    "comparison",
    "bench",
    "Our server beside its peers, in every mode; see bench/README.md.",
    workloads,
    rounds=3,
    warm=1,
    seconds=2,
    peers=True,
)

if __name__ == "__main__":
    sys.exit(COMPARISON.main())
