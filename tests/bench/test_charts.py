"""The charts of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import charts
from bench.comparison import workloads
from bench.results import Results
from bench.workload import RATE, Measured, Void
from tests.bench.samples import FakeWorkload, target

OURS, THEIRS = target("dstreams", ours=True), target("electric", "memory", ("memory", "file-fast"))
LOGGING = target("dstreams-logs", ours=True, apart="default log level")


def _results() -> Results:
    results = Results({}, {"rounds": 1, "warm": 1, "seconds": 2})
    for each, rate in ((OURS, 100.0), (THEIRS, 50.0), (LOGGING, 10.0)):
        results.know(FakeWorkload("append-100-c32-s1"), each)
        results.add("append-100-c32-s1", each.key, 1, Measured({RATE.key: rate}))
    return results


class ChartsTests:
    def test_known(self) -> None:
        """Every bar is one of a workload that is run, in a mode that it is run in."""
        known = {workload.key: workload for workload in workloads(quick=False)}
        for chart in charts.CHARTS:
            for panel in chart.panels:
                for group in panel.groups:
                    assert panel.measure in known[group.workload].measures, group
                    assert group.mode in known[group.workload].modes, group

    def test_values(self) -> None:
        """A bar is the median of a server in the mode that promises what ours does; a void run has none."""
        results, panel = _results(), charts.CHARTS[0].panels[0]
        assert charts.values(results, panel, "dstreams") == [100.0, None, None, None]
        assert charts.values(results, panel, "electric") == [50.0, 50.0, None, None]
        results.add("append-100-c32-s1", THEIRS.key, 2, Void("1 x refused"))
        assert charts.values(results, panel, "electric") == [None] * 4

    def test_nothing_to_draw(self) -> None:
        """A chart without a bar isn't drawn."""
        drawn = [chart.name for chart in charts.CHARTS if charts.has_figures(_results(), chart)]
        assert drawn == ["append", "connections"]

    def test_same_bytes(self, tmp_path: Path) -> None:
        """The same results give the same file, with the servers' names and figures as text."""
        pytest.importorskip("matplotlib", reason="matplotlib isn't installed")
        for name in ("one.svg", "two.svg"):
            charts.draw(_results(), charts.CHARTS[0], tmp_path / name)
        one = (tmp_path / "one.svg").read_text()
        assert one == (tmp_path / "two.svg").read_text()
        assert "dstreams 1.0" in one
        assert "100" in one
        assert "10.0" not in one
