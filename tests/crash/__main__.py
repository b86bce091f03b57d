"""Long runs: ``python -m tests.crash --seeds 0-9999``."""

from __future__ import annotations

import argparse
import sys
import time

from twisted.logger import globalLogBeginner

from tests.crash.history import Violation
from tests.crash.simulation import Outcome, run


def main() -> int:
    """Run seeds and say what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument(
        "--seeds", default="0-999", metavar="A-B", help="the first and the last seed (default %(default)s)"
    )
    parser.add_argument("--keep-going", action="store_true", help="don't stop at the first seed that fails")
    arguments = parser.parse_args()
    # What the store logs about its failures would bury the progress line.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    first, _, last = arguments.seeds.partition("-")
    return simulate(range(int(first), int(last or first) + 1), keep_going=arguments.keep_going)


def simulate(seeds: range, *, keep_going: bool) -> int:
    """Run ``seeds`` with a progress line; the exit status."""
    total, failed, begin = Outcome(), 0, time.monotonic()
    for number, seed in enumerate(seeds, 1):
        try:
            total += run(seed)
        except Violation as violation:
            failed += 1
            _say(f"\n{violation}\n")
            if not keep_going:
                return 1
        except Exception:
            _say(f"\nseed {seed} ended in an error\n")
            raise
        if number % 20 == 0 or number == len(seeds):
            _say(f"\r{_progress(number, len(seeds), total, failed, time.monotonic() - begin)}")
    _say("\n")
    return 1 if failed else 0


def _progress(number: int, seeds: int, total: Outcome, failed: int, seconds: float) -> str:
    return (
        f"{number}/{seeds} seeds, {failed} failed, {total.steps} disk steps, {total.batches} batches,"
        f" {total.checkpoints} checkpoints, {total.crashes} crashes, {total.faults} faults,"
        f" {total.recoveries} recoveries checked, {seconds:.0f} s"
    )


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
