"""What was measured, and what is made of it: medians, ratios, tables.

Servers take turns within a round, so what one of them reaches is compared with what the others reach in the
same round, minutes apart at most. A ratio is the median of these, not a ratio of medians: a machine that is
slower in one round than in the next moves the one less than the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from attrs import asdict, define, field, frozen

from bench.load import Load, Workload
from bench.servers import Target


@frozen
class Measured:
    """A run in which every request was answered as it should be.

    :param cpu_seconds: the processor time that the server took for it.
    """

    load: Load
    cpu_seconds: float


@frozen
class Void:
    """A run that says nothing, and why."""

    reason: str


Outcome = Measured | Void
Measure = Callable[[Measured], float]


def judge(load: Load, cpu_seconds: float) -> Outcome:
    """A run counts only if nothing went wrong in it: refusing is often quicker than doing."""
    if load.errors:
        return Void(", ".join(f"{count} x {kind}" for kind, count in load.errors.items()))
    if not load.requests:
        return Void("nothing was answered")
    return Measured(load, cpu_seconds)


def rate(measured: Measured) -> float:
    """Answers per second."""
    return measured.load.rate


def cpu_us(measured: Measured) -> float:
    """Microseconds of the server's processor time for each request."""
    return measured.cpu_seconds * 1e6 / measured.load.requests


@define(eq=False)
class Results:
    """The outcomes of all runs, by workload and target, in the order of the rounds.

    :param absent: the targets that don't run here, and why.
    """

    _outcomes: dict[tuple[str, str], list[Outcome]] = field(factory=dict, init=False)
    absent: dict[str, str] = field(factory=dict, init=False)

    def add(self, workload: Workload, target: Target, outcome: Outcome) -> None:
        """Note what came of the next round."""
        self._outcomes.setdefault((workload.key, target.key), []).append(outcome)

    def outcomes(self, workload: Workload, target: Target) -> Sequence[Outcome]:
        """One for each round so far."""
        return self._outcomes.get((workload.key, target.key), ())

    def values(self, workload: Workload, target: Target, measure: Measure) -> list[float]:
        """A figure of each round; empty when one of them is void, for then the others mean little."""
        measured = [each for each in self.outcomes(workload, target) if isinstance(each, Measured)]
        if len(measured) < len(self.outcomes(workload, target)):
            return []
        return [measure(each) for each in measured]

    def median(self, workload: Workload, target: Target, measure: Measure) -> float | None:
        """The median of all rounds; ``None`` when a round is void, or there is none."""
        values = self.values(workload, target, measure)
        return median(values) if values else None

    def ratio(self, workload: Workload, ours: Target, theirs: Target, measure: Measure) -> float | None:
        """The median, over the rounds, of our figure by theirs; ``None`` as in :meth:`median`."""
        mine, others = self.values(workload, ours, measure), self.values(workload, theirs, measure)
        ratios = [one / other for one, other in zip(mine, others, strict=False) if other]
        return median(ratios) if ratios else None

    def is_void(self, workload: Workload, target: Target) -> bool:
        """Whether a round is void."""
        return any(isinstance(each, Void) for each in self.outcomes(workload, target))

    def voids(self) -> list[str]:
        """What went wrong where, for people."""
        return [
            f"{workload}, {target}, round {number}: {outcome.reason}"
            for (workload, target), outcomes in self._outcomes.items()
            for number, outcome in enumerate(outcomes, 1)
            if isinstance(outcome, Void)
        ]

    def as_json(self) -> list[dict[str, object]]:
        """All of it."""
        return [
            {"workload": workload, "target": target, "rounds": [asdict(each) for each in outcomes]}
            for (workload, target), outcomes in self._outcomes.items()
        ]


def comparison(
    results: Results,
    workloads: Sequence[Workload],
    ours: Target,
    theirs: Sequence[Target],
    measure: Measure,
) -> str:
    """A table of one of our modes beside its peers: a row for each workload, ratios as ours by theirs."""
    head = ["", ours.server.title]
    for target in theirs:
        head += [f"{target.server.title}, {target.mode.name}", "ratio"]
    rows = []
    for workload in workloads:
        row = [workload.title, _figure(results, workload, ours, measure)]
        for target in theirs:
            ratio = results.ratio(workload, ours, target, measure)
            row += [_figure(results, workload, target, measure), "" if ratio is None else ratio_text(ratio)]
        rows.append(row)
    return markdown_table(head, rows)


def _figure(results: Results, workload: Workload, target: Target, measure: Measure) -> str:
    if results.is_void(workload, target):
        return "void"
    value = results.median(workload, target, measure)
    return "-" if value is None else figure_text(value)


def figure_text(value: float) -> str:
    """A number with as many digits as it deserves: ``12,345``, ``123``, ``12.3``, ``1.23``."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_text(ratio: float) -> str:
    """A ratio: ``12.3x``."""
    return f"{figure_text(ratio)}x"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can also be read as it is: the first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = ["-" * max(3, widths[0]), *(f"{'-' * max(2, width - 1)}:" for width in widths[1:])]
    widths = [len(mark) for mark in rule]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]
        return f"| {' | '.join(aligned)} |"

    return "\n".join([line(head), f"| {' | '.join(rule)} |", *map(line, rows)])
