"""The tables of fairness and their verdict."""

from __future__ import annotations

import pytest

from bench.fairness import is_for, rows
from bench.loads import LOADS
from bench.pinger import INTERVAL, summary, waits_of
from bench.results import Results
from bench.waits import MODES, mode_table, render, tables, verdict
from bench.workload import PEAK_MB, PING_MAX, PING_P50, PING_P99, TURN, Measured, Void
from tests.bench.samples import target


def _results(wait_ms: float, turn_ms: float = 1.0) -> Results:
    results = Results({"cores": "2"}, {"rounds": 1})
    (row,) = [each for each in rows(quick=False) if each.key == "json-ones"]
    ours, theirs = target("dstreams", ours=True), target("rust")
    figures = {PING_MAX.key: wait_ms, PING_P99.key: 2.0, PING_P50.key: 1.0, PEAK_MB.key: 70.0}
    for each in (ours, theirs):
        results.know(row, each)
        more = {TURN.key: turn_ms} if each is ours else {}
        results.add(row.key, each.key, 1, Measured(figures | more))
    return results


class VerdictTests:
    def test_above(self) -> None:
        """A row of ours in which the pinger waited too long is named, with the time and the longest turn."""
        (line,) = verdict(_results(80.5, 33))
        assert "json-ones (dstreams:memory)" in line
        assert "80.5 ms" in line
        assert "33.0 ms" in line

    def test_below(self) -> None:
        """No other is, and no peer."""
        assert verdict(_results(49)) == []


class TableTests:
    def test_row(self) -> None:
        """A row has ours and the peers' waits; one of ours that is too long is bold."""
        table = mode_table(_results(80), "memory")
        assert "**80.0**" in table
        assert "rust 1.0, memory: worst wait" in table
        assert "**" not in mode_table(_results(8), "memory")

    def test_void(self) -> None:
        """A void run is called so, and why is told."""
        results = _results(8)
        results.add("json-ones", "rust:memory", 1, Void("POST was answered with 413"))
        assert "void" in mode_table(results, "memory")
        assert "413" in render(results)

    def test_other_modes(self) -> None:
        """A mode that wasn't measured has no table."""
        assert mode_table(_results(8), "acid") == ""
        assert tables(_results(8), "##").count("## ") == 1


class RowTests:
    def test_loads(self) -> None:
        """Every row has a load, every load a row, and no two have the same title."""
        found = rows(quick=False)
        assert {each.key for each in found} == set(LOADS)
        assert len({each.title for each in found}) == len(found)

    def test_modes(self) -> None:
        """Every mode of a row has a table."""
        assert {mode for each in rows(quick=False) for mode in each.modes} == set(MODES)

    def test_quick(self) -> None:
        """Quick runs are smaller."""
        assert all(each.share < 1 for each in rows(quick=True))

    def test_peers(self) -> None:
        """Peers don't get rows for which they have nothing."""
        (listing,) = [each for each in rows(quick=False) if each.key == "listing"]
        assert is_for(listing, target("dstreams", ours=True))
        assert not is_for(listing, target("rust"))


class PingTests:
    def test_late_answer(self) -> None:
        """An answer that is late makes those late that should have been asked for meanwhile."""
        waits = waits_of(10.0, 10.0 + 2.5 * INTERVAL)
        assert waits == pytest.approx([62.5, 37.5, 12.5])

    def test_answer_in_time(self) -> None:
        """One in time is one wait."""
        assert waits_of(10.0, 10.001) == pytest.approx([1.0])

    def test_summary(self) -> None:
        """Median, 99th percentile and maximum of many waits."""
        found = summary([float(number) for number in range(1001)], closed=False)
        assert (found.count, found.p50_ms, found.p99_ms, found.max_ms) == (1001, 500, 990, 1000)

    def test_nothing(self) -> None:
        """Without any answer there is nothing to sum up."""
        with pytest.raises(ValueError, match="no ping"):
            summary([], closed=True)
