"""The report, and what was aimed at."""

from __future__ import annotations

from bench import goals, report
from bench.comparison import workloads
from bench.results import Results
from bench.workload import CPU, RATE, Measured, Void
from tests.bench.samples import FakeWorkload, target

OURS, THEIRS = target("dstreams", ours=True), target("rust")
LOGGING = target("dstreams-logs", ours=True, apart="default log level")


def _results(ours: float, theirs: float | None, key: str = "append") -> Results:
    results = Results({"cores": "2"}, {"rounds": 1, "warm": 1, "seconds": 2})
    workload = FakeWorkload(key, log_levels=True)
    for each, rate in ((OURS, ours), (THEIRS, theirs), (LOGGING, ours / 2)):
        results.know(workload, each)
        outcome = Void("1 x refused") if rate is None else Measured({RATE.key: rate, CPU.key: 1e6 / rate})
        results.add(key, each.key, 1, outcome)
    return results


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


class TableTests:
    def test_comparison(self) -> None:
        """A comparison has our figure, theirs, and ours by theirs, bold where ours wins."""
        head, _, row = report.mode_table(_results(300, 200), RATE, "memory").splitlines()
        assert _cells(head) == ["", "dstreams 1.0", "rust 1.0, memory", "ratio"]
        assert _cells(row) == ["append: 256 B", "300", "200", "**1.50**"]

    def test_less_is_better(self) -> None:
        """Of processor time, less wins."""
        row = report.mode_table(_results(300, 200), CPU, "memory").splitlines()[2]
        assert _cells(row)[-1] == "**0.67**"
        assert _cells(report.mode_table(_results(200, 300), CPU, "memory").splitlines()[2])[-1] == "1.50"

    def test_void(self) -> None:
        """A void figure says so, has no ratio, and is explained at the end."""
        results = _results(300, None)
        row = report.mode_table(results, RATE, "memory").splitlines()[2]
        assert _cells(row)[1:] == ["300", "void", ""]
        assert "rust:memory, round 1: 1 x refused" in report.render(results)

    def test_other_mode(self) -> None:
        """A mode in which nothing was run has no table."""
        assert report.mode_table(_results(300, 200), RATE, "acid") == ""

    def test_logs(self) -> None:
        """Ours at its default log level stands apart, beside ours with warnings only."""
        text = report.render(_results(300, 200))
        assert "dstreams-logs" not in text
        row = next(line for line in report.logs_section(_results(300, 200), "##")[1].splitlines() if "256" in line)
        assert _cells(row)[1:4] == ["300", "150", "0.50"]


class GoalsTests:
    def test_reached(self) -> None:
        """A ratio stands beside what was aimed at, and says when that was missed."""
        reached, missed = (_results(rate, 100, "append-100-c32-s1") for rate in (250, 150))
        assert "2.50 (aim ≥ 2)" in goals.table(reached)
        assert "1.50 (aim ≥ 2: missed)" in goals.table(missed)

    def test_not_measured(self) -> None:
        """What wasn't measured is told as that."""
        assert "- (aim ≤ 0.6)" in goals.table(_results(300, 200))

    def test_known(self) -> None:
        """Each goal is one of a workload that is run, in a mode that it is run in."""
        known = {workload.key: workload for workload in workloads(quick=False)}
        for goal in goals.GOALS:
            workload = known[goal.workload]
            assert goal.measure in workload.measures, goal.title
            assert goal.ours.partition(":")[2] in workload.modes, goal.title
