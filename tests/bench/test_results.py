"""What is made of the figures: medians, ratios, and the file that keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.results import Results
from bench.workload import CPU, RATE, Measured, Void
from tests.bench.samples import FakeWorkload, target

OURS, THEIRS = target("dstreams", ours=True), target("rust")
WORKLOAD = FakeWorkload()


def _results(ours: list[float], theirs: list[float]) -> Results:
    results = Results({"cores": "2"}, {"rounds": 3, "warm": 1, "seconds": 2})
    for each, rounds in ((OURS, ours), (THEIRS, theirs)):
        results.know(WORKLOAD, each)
        for number, rate in enumerate(rounds, 1):
            results.add("append", each.key, number, Measured({RATE.key: rate}))
    return results


class ResultsTests:
    def test_median(self) -> None:
        """The median of the rounds counts, not their mean."""
        assert _results([10, 1000, 20], []).median("append", OURS.key, RATE) == 20

    def test_ratio_of_rounds(self) -> None:
        """A ratio is the median of those within the rounds, which that of the medians may not be."""
        results = _results([100, 10, 300], [100, 5, 100])
        assert results.median("append", OURS.key, RATE) == results.median("append", THEIRS.key, RATE) == 100
        assert results.ratio("append", OURS.key, THEIRS.key, RATE) == 2.0

    def test_rounds_of_one(self) -> None:
        """A round that only one of both has is in no ratio."""
        results = _results([100], [50])
        results.add("append", OURS.key, 2, Measured({RATE.key: 5000}))
        assert results.ratio("append", OURS.key, THEIRS.key, RATE) == 2.0

    def test_void_round(self) -> None:
        """One void round takes the whole figure, and the ratio, away."""
        results = _results([100, 100], [50, 50])
        results.add("append", THEIRS.key, 3, Void("1 x refused"))
        assert results.median("append", THEIRS.key, RATE) is None
        assert results.ratio("append", OURS.key, THEIRS.key, RATE) is None
        assert results.is_void("append", THEIRS.key)
        assert not results.is_void("append", OURS.key)
        assert results.voids() == ["append: 256 B, rust:memory, round 3: 1 x refused"]

    def test_repeated_round(self) -> None:
        """A void round that is run again, and well, counts as if nothing had happened."""
        results = _results([100], [50])
        results.add("append", THEIRS.key, 2, Void("1 x refused"))
        assert not results.has("append", THEIRS.key, 2)
        results.add("append", THEIRS.key, 2, Measured({RATE.key: 70}))
        assert results.has("append", THEIRS.key, 2)
        assert results.median("append", THEIRS.key, RATE) == 60

    def test_nothing(self) -> None:
        """What wasn't run has no figure, and isn't void."""
        results = Results()
        assert results.median("append", OURS.key, RATE) is None
        assert results.ratio("append", OURS.key, THEIRS.key, RATE) is None
        assert not results.is_void("append", OURS.key)
        assert not results.ran("append", OURS.key)

    def test_nothing_used(self) -> None:
        """A peer that took no measurable processor time gives no ratio rather than a division by zero."""
        results = _results([], [])
        results.add("append", OURS.key, 1, Measured({CPU.key: 10.0}))
        results.add("append", THEIRS.key, 1, Measured({CPU.key: 0.0}))
        assert results.ratio("append", OURS.key, THEIRS.key, CPU) is None


class FileTests:
    def test_round_trip(self, tmp_path: Path) -> None:
        """What is saved is read again as it was."""
        results = _results([100, 10], [50])
        results.add("append", THEIRS.key, 2, Void("1 x refused"))
        results.absent["node:memory"] = "there is no node"
        path = tmp_path / "deep" / "results.json"
        results.save(path)
        assert Results.load(path).as_json() == results.as_json()
        assert [each.name for each in path.parent.iterdir()] == ["results.json"]

    def test_another_format(self, tmp_path: Path) -> None:
        """A file of another format is refused in a sentence."""
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"format": 99}))
        with pytest.raises(ValueError, match="format 99"):
            Results.load(path)
