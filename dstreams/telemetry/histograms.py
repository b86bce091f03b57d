"""Histograms for Prometheus: adding a value is cheap, and sums are computed only at a scrape."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from attrs import define, field

SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds for durations, from a commit in memory to the time after which clients give up."""

POWERS_OF_TWO: Final = tuple(float(1 << power) for power in range(13))
"""Upper bounds for counts: 1 to 4096."""


@define(eq=False)
class Histogram:
    """Counts how many values fall between bounds. A value equal to a bound belongs to the bucket below it.

    :param bounds: ascending; values beyond the last bound are counted too.
    """

    bounds: tuple[float, ...] = SECONDS
    counts: list[int] = field(init=False)
    """The number of values in each bucket; the last bucket is for values beyond all bounds."""
    total: float = 0.0
    """The sum of all values."""

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count a value. This takes 0.15 us."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Add the counts of ``other``, which must have the same bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper bound, number of values up to it) for each bound; the last bound is ``+Inf``."""
        reached = 0
        buckets = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            reached += count
            buckets.append((bound, float(reached)))
        return buckets


@define(eq=False)
class CommitTimes:
    """Counts commits, one observation for each group: 0.5 us.

    :param seconds: the time from passing a group to the storage until the group is as durable as promised.
    :param changes: the number of changes in a group.
    :param failures: the number of failed commits.
    """

    seconds: Histogram = field(factory=Histogram)
    changes: Histogram = field(factory=lambda: Histogram(POWERS_OF_TWO))
    failures: int = 0

    def committed(self, changes: int, seconds: float) -> None:
        """Count a group that is durable."""
        self.seconds.observe(seconds)
        self.changes.observe(changes)
