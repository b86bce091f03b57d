"""Counts what requests cost, beside the budgets: ``python -m tests.cost``; ``--write`` makes it the new budgets."""

from __future__ import annotations

import argparse
import sys

from tests.cost.budgets import TABLE, complaints, load, measurements, save


def main() -> int:
    """Print a line for each measurement; the exit status says whether all keep to their budgets."""
    parser = argparse.ArgumentParser(prog="python -m tests.cost", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} anew")
    options = parser.parse_args()
    budgets = load() if TABLE.exists() else {}
    found, wrong = {}, []
    for name, count in measurements().items():
        cost = found[name] = count()
        budget = budgets.get(name, {})
        figures = (f"{key} {value:,.0f} ({budget.get(key, 0):,.0f})" for key, value in cost.items())
        sys.stdout.write(f"{name:56} {'  '.join(figures)}\n")
        wrong += complaints(name, cost, budget)
    if options.write:
        save(found)
        return 0
    sys.stdout.writelines(f"{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
