"""Counts of values by size, as Prometheus wants them: cheap to add to, summed up when they are asked for."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from attrs import define, field

SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds for durations: from what a commit in memory takes to what a client gives up after."""

POWERS_OF_TWO: Final = tuple(float(1 << power) for power in range(13))
"""Upper bounds for numbers of things: 1 to 4096."""


@define(eq=False)
class Histogram:
    """How many values fell between which bounds. A value that equals a bound belongs below it.

    :param bounds: ascending; values beyond the last are counted too.
    """

    bounds: tuple[float, ...] = SECONDS
    counts: list[int] = field(init=False)
    """How many values each bucket holds, the last one those beyond all bounds."""
    total: float = 0.0
    """The sum of all values."""

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count a value: 0.15 us."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Count all that ``other``, of the same bounds, has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, how many values up to it), the last bound being ``+Inf``."""
        reached = 0
        buckets = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            reached += count
            buckets.append((bound, float(reached)))
        return buckets
