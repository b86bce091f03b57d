"""How long commits take, and how much goes into one."""

from __future__ import annotations

from attrs import define, field

from dstreams.telemetry.histograms import POWERS_OF_TWO, Histogram


@define(eq=False)
class CommitTimes:
    """Counts commits, one observation for each group: 0.5 us.

    :param seconds: from the moment the storage was given a group until it had kept its promise.
    :param changes: how many changes were in a group.
    :param failures: how many commits failed.
    """

    seconds: Histogram = field(factory=Histogram)
    changes: Histogram = field(factory=lambda: Histogram(POWERS_OF_TWO))
    failures: int = 0

    def committed(self, changes: int, seconds: float) -> None:
        """A group is durable."""
        self.seconds.observe(seconds)
        self.changes.observe(changes)
