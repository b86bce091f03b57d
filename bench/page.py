"""Writes results into the documentation: tables, charts, and the result files.

Run ``python -m bench.page`` from the checkout (``make bench-report``). It takes the newest results of
``make bench``, ``make bench-scale`` and ``make bench-fairness``, or the given ones, copies them next to
``docs/explanation/performance.md``, draws the charts there, and writes the tables into the page, between its marks::

    <!-- results: NAME -->
    ...
    <!-- end -->
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from bench import charts, facts, goals, report, waits
from bench.results import Results
from bench.servers import ROOT
from bench.suite import newest
from bench.workload import (
    BYTES_EACH,
    CPU,
    CPU_EVENT,
    CPU_MEGABYTE,
    FILLED,
    KILLED,
    MEGABYTES,
    P50,
    P99,
    RATE,
    SHARED,
    STOPPED,
    Measure,
)

PAGE = ROOT / "docs" / "explanation" / "performance.md"

FILES = PAGE.with_suffix("")
"""The folder of the results and charts."""

_BLOCK = re.compile(r"(<!-- results: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

_NOTHING = "*Not measured yet.*"


@frozen
class Measured:
    """The results that the page shows; each is ``None`` if there are no such results."""

    comparison: Results | None
    scale: Results | None
    fairness: Results | None = None


def _tables(*measures: Measure) -> Callable[[Results], str]:
    def write(results: Results) -> str:
        return "\n\n".join(part for measure in measures for part in report.section(results, measure, "###"))

    return write


def _machine(results: Results) -> str:
    return f"{report.introduction(results)}\n\n{facts.described(results.facts)}"


def _with_chart(name: str, write: Callable[[Results], str]) -> Callable[[Results], str]:
    """Put a chart before the tables, if it has any figures."""
    chart = next(each for each in charts.CHARTS if each.name == name)

    def both(results: Results) -> str:
        image = f"![{chart.title}](performance/{chart.name}.svg)\n\n" if charts.has_figures(results, chart) else ""
        return image + write(results)

    return both


def _appends(results: Results) -> str:
    lines = (_with_chart(name, lambda _: "")(results) for name in ("append", "connections"))
    return "".join(lines) + _tables(RATE, CPU)(results)


BLOCKS: dict[str, Callable[[Results], str]] = {
    "machine": _machine,
    "aims": goals.table,
    "requests": _appends,
    "reads": _with_chart("read", _tables(MEGABYTES, CPU_MEGABYTE)),
    "fan-out": _with_chart("fan-out", _tables(CPU_EVENT, P50, P99)),
    "idle": _with_chart("idle", _tables(BYTES_EACH)),
    "restart": _tables(KILLED, STOPPED, FILLED),
    "syncs": _tables(SHARED),
    "logs": lambda results: "\n\n".join(report.logs_section(results, "###")[1:]),
    "notes": lambda results: report.notes_of(results) or "Nothing: every run counted.",
}
"""The parts of the page about the comparison, by the names of their marks."""

SCALE_BLOCKS: dict[str, Callable[[Results], str]] = {
    "scale-machine": _machine,
    "scale": _tables(BYTES_EACH, CPU_EVENT, RATE, FILLED, KILLED, STOPPED),
}


FAIRNESS_BLOCKS: dict[str, Callable[[Results], str]] = {
    "fairness-machine": lambda results: facts.described(results.facts),
    "fairness": lambda results: waits.tables(results, "###"),
    "fairness-notes": lambda results: report.notes_of(results) or "Nothing: every run counted.",
}


def fill(page: str, measured: Measured) -> str:
    """Return the page with the current results.

    :raise ValueError: if a mark has an unknown name, or if a part has no mark.
    """
    sources = [(BLOCKS, measured.comparison), (SCALE_BLOCKS, measured.scale), (FAIRNESS_BLOCKS, measured.fairness)]
    blocks = {name: (write, results) for group, results in sources for name, write in group.items()}
    names = [name for _, name, _ in _BLOCK.findall(page)]
    if sorted(names) != sorted(blocks):
        raise ValueError(f"the page has the marks {sorted(names)} instead of {sorted(blocks)}")

    def replace(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        write, results = blocks[name]
        text = write(results) if results is not None else ""
        return f"{begin}\n{text.strip() or _NOTHING}\n\n{end}"

    return _BLOCK.sub(replace, page)


def main() -> int:
    """Write the page, the charts, and the copies of the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--comparison", type=Path, metavar="FILE", help="results of make bench (the newest)")
    parser.add_argument("--scale", type=Path, metavar="FILE", help="results of make bench-scale (the newest)")
    parser.add_argument("--fairness", type=Path, metavar="FILE", help="results of make bench-fairness (the newest)")
    options = parser.parse_args()
    try:
        measured = Measured(
            _found(options.comparison, "comparison", FILES / "results.json"),
            _found(options.scale, "scale", FILES / "scale.json"),
            _found(options.fairness, "fairness", FILES / "fairness.json"),
        )
        text = fill(PAGE.read_text(), measured)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    PAGE.write_text(text)
    if measured.comparison is not None:
        for chart in charts.CHARTS:
            if charts.has_figures(measured.comparison, chart):
                charts.draw(measured.comparison, chart, FILES / f"{chart.name}.svg")
    sys.stdout.write(f"written: {PAGE.relative_to(ROOT)} and {FILES.relative_to(ROOT)}/\n")
    return 0


def _found(given: Path | None, suite: str, kept: Path) -> Results | None:
    """Return the new results and copy them next to the page, or return those that are already there."""
    if given is None:
        try:
            given = newest(suite)
        except FileNotFoundError:
            return Results.load(kept) if kept.exists() else None
    results = Results.load(given)
    results.save(kept)
    return results


def committed() -> Measured:
    """Return the results next to the page."""
    names = ("results.json", "scale.json", "fairness.json")
    return Measured(*(Results.load(FILES / name) if (FILES / name).exists() else None for name in names))


if __name__ == "__main__":
    sys.exit(main())
