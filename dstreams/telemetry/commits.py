"""Durations and sizes of commits."""

from __future__ import annotations

from attrs import define, field

from dstreams.telemetry.histograms import POWERS_OF_TWO, Histogram


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
