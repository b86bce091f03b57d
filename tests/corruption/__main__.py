"""Long runs: ``python -m tests.corruption --trials 1000``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.logger import globalLogBeginner

from tests.corruption.trial import MODES, Failed, make, run


def main() -> int:
    """Damage stores and say what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.corruption", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="for each mode (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default %(default)s)")
    parser.add_argument("--mode", choices=MODES, action="append", help="one mode only; may be repeated")
    arguments = parser.parse_args()
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    failed = 0
    for mode in arguments.mode or MODES:
        outcomes: Counter[str] = Counter()
        with TemporaryDirectory() as scratch:
            template = make(mode, Path(scratch))
            for seed in range(arguments.first, arguments.first + arguments.trials):
                try:
                    outcomes[run(template, seed, Path(scratch))] += 1
                except Failed as failure:
                    failed += 1
                    sys.stdout.write(f"{failure}\n")
        sys.stdout.write(f"{mode}: {dict(outcomes)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
