"""What is made of the figures: medians, ratios, tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load import Load, Workload
from bench.results import (
    Measured,
    Results,
    Void,
    comparison,
    cpu_us,
    figure_text,
    judge,
    markdown_table,
    rate,
)
from bench.servers import Launch, Mode, Server, Target

WORKLOAD = Workload("append", "append 256 B", 32, 1, 256)


def _target(key: str) -> Target:
    def launch(mode: str, directory: Path) -> Launch:
        raise NotImplementedError

    return Target(Server(key, f"{key} 1.0", "/", (), launch), Mode("durable", ("file-durable",)))


OURS, THEIRS = _target("ours"), _target("theirs")


def _measured(requests: int, seconds: float = 1.0, cpu_seconds: float = 0.5) -> Measured:
    return Measured(Load(requests, seconds, 100, 200, 300), cpu_seconds)


def _results(ours: list[int], theirs: list[int]) -> Results:
    results = Results()
    for target, rounds in ((OURS, ours), (THEIRS, theirs)):
        for requests in rounds:
            results.add(WORKLOAD, target, _measured(requests))
    return results


class JudgeTests:
    def test_clean(self) -> None:
        """A run in which all went well counts."""
        load = Load(10, 1.0, 100, 200, 300)
        assert judge(load, 0.5) == Measured(load, 0.5)

    def test_errors(self) -> None:
        """One request that was refused makes a run void, however many were answered."""
        outcome = judge(Load(10_000, 1.0, 100, 200, 300, {"refused": 1}), 0.5)
        assert outcome == Void("1 x refused")

    def test_nothing_answered(self) -> None:
        """A run without an answer is void, not a rate of zero."""
        assert judge(Load(0, 1.0, 0, 0, 0), 0.5) == Void("nothing was answered")


class FigureTests:
    def test_rate(self) -> None:
        """A rate is answers by the seconds that the run really took."""
        assert rate(_measured(1000, seconds=0.5)) == 2000

    def test_cpu(self) -> None:
        """Processor time is told in microseconds for each request."""
        assert cpu_us(_measured(1000, cpu_seconds=0.02)) == pytest.approx(20.0)

    @pytest.mark.parametrize(
        ("value", "text"),
        [(1234567.8, "1,234,568"), (100.4, "100"), (99.96, "100.0"), (12.34, "12.3"), (1.005, "1.00")],
    )
    def test_digits(self, value: float, text: str) -> None:
        """Figures have about three digits, and all before the point."""
        assert figure_text(value) == text


class ResultsTests:
    def test_median(self) -> None:
        """The median of the rounds counts, not their mean."""
        assert _results([10, 1000, 20], []).median(WORKLOAD, OURS, rate) == 20

    def test_ratio_of_rounds(self) -> None:
        """A ratio is the median of those within the rounds, which that of the medians may not be."""
        results = _results([100, 10, 300], [100, 5, 100])
        assert results.median(WORKLOAD, OURS, rate) == results.median(WORKLOAD, THEIRS, rate) == 100
        assert results.ratio(WORKLOAD, OURS, THEIRS, rate) == 2.0

    def test_void_round(self) -> None:
        """One void round takes the whole figure, and the ratio, away."""
        results = _results([100, 100], [50, 50])
        results.add(WORKLOAD, THEIRS, Void("1 x refused"))
        assert results.median(WORKLOAD, THEIRS, rate) is None
        assert results.ratio(WORKLOAD, OURS, THEIRS, rate) is None
        assert results.is_void(WORKLOAD, THEIRS)
        assert not results.is_void(WORKLOAD, OURS)
        assert results.voids() == ["append, theirs:durable, round 3: 1 x refused"]

    def test_nothing(self) -> None:
        """What wasn't run has no figure, and isn't void."""
        results = Results()
        assert results.median(WORKLOAD, OURS, rate) is None
        assert results.ratio(WORKLOAD, OURS, THEIRS, rate) is None
        assert not results.is_void(WORKLOAD, OURS)

    def test_no_processor_time(self) -> None:
        """A peer that took no measurable processor time gives no ratio rather than a division by zero."""
        results = Results()
        results.add(WORKLOAD, OURS, _measured(10))
        results.add(WORKLOAD, THEIRS, _measured(10, cpu_seconds=0.0))
        assert results.ratio(WORKLOAD, OURS, THEIRS, cpu_us) is None


class TableTests:
    def test_alignment(self) -> None:
        """A table is Markdown, and its columns stand below each other."""
        table = markdown_table(["", "rate"], [["append", "1,000"], ["create", "9"]])
        assert table.splitlines() == [
            "|        |  rate |",
            "| ------ | ----: |",
            "| append | 1,000 |",
            "| create |     9 |",
        ]

    def test_comparison(self) -> None:
        """A comparison has our figure, theirs, and ours by theirs."""
        table = comparison(_results([300], [200]), [WORKLOAD], OURS, [THEIRS], rate)
        head, _, row = table.splitlines()
        assert [cell.strip() for cell in head.split("|")] == [
            "",
            "",
            "ours 1.0",
            "theirs 1.0, durable",
            "ratio",
            "",
        ]
        assert [cell.strip() for cell in row.split("|")] == ["", "append 256 B", "300", "200", "1.50x", ""]

    def test_void_cell(self) -> None:
        """A void figure is called so, and has no ratio."""
        results = _results([300], [])
        results.add(WORKLOAD, THEIRS, Void("1 x refused"))
        row = comparison(results, [WORKLOAD], OURS, [THEIRS], rate).splitlines()[2]
        assert [cell.strip() for cell in row.split("|")] == ["", "append 256 B", "300", "void", "", ""]

    def test_missing_cell(self) -> None:
        """What wasn't measured is a dash."""
        row = comparison(Results(), [WORKLOAD], OURS, [THEIRS], rate).splitlines()[2]
        assert [cell.strip() for cell in row.split("|")] == ["", "append 256 B", "-", "-", "", ""]
