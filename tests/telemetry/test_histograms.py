"""Counting values by size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.telemetry.histograms import POWERS_OF_TWO, SECONDS, Histogram


class HistogramTests:
    """Values between bounds."""

    def test_bounds_are_inclusive(self) -> None:
        """A value that equals a bound is counted below it, as Prometheus's ``le`` says."""
        histogram = Histogram((1.0, 2.0))
        for value in (0.5, 1.0, 1.5, 2.0, 2.5):
            histogram.observe(value)
        assert histogram.cumulative() == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]
        assert histogram.total == 7.5
        assert histogram.count == 5

    @given(st.lists(st.floats(0, 20)))
    def test_counts_everything(self, values: list[float]) -> None:
        """Every bucket holds the values up to its bound, the last one all of them."""
        histogram = Histogram()
        for value in values:
            histogram.observe(value)
        assert histogram.cumulative() == [
            (bound, sum(value <= float(bound) for value in values)) for bound in [*map(str, SECONDS), "+Inf"]
        ]
        assert histogram.total == pytest.approx(sum(values))

    def test_add(self) -> None:
        """The sum of two histograms has counted what both have; different bounds can't be added."""
        one, two = Histogram(), Histogram()
        one.observe(0.3)
        two.observe(3)
        one.add(two)
        assert (one.count, one.total) == (2, 3.3)
        with pytest.raises(ValueError, match="zip"):
            one.add(Histogram(POWERS_OF_TWO))

    @pytest.mark.parametrize("bounds", [SECONDS, POWERS_OF_TWO])
    def test_bounds_ascend(self, bounds: tuple[float, ...]) -> None:
        """The bounds that are used ascend."""
        assert list(bounds) == sorted(set(bounds))
