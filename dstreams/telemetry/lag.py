"""Measures the reactor's lag: how long everything waits while one turn of the reactor lasts."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall

from dstreams.runtime.timers import Scheduler
from dstreams.telemetry.histograms import Histogram

INTERVAL = 1.0
"""Seconds between two measurements: frequent enough for a histogram, at no noticeable cost."""


@define(eq=False)
class ReactorLag:
    """Schedules a call again and again, and measures how late each one is.

    :param scheduler: the reactor, or a Clock in tests.
    :param seconds: the histogram of the delays.
    """

    _scheduler: Scheduler
    seconds: Histogram = field(factory=Histogram)
    _due: float = field(default=0.0, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Start to measure."""
        self._due = self._scheduler.seconds() + INTERVAL
        self._call = self._scheduler.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """Stop measuring."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        self.seconds.observe(max(0.0, self._scheduler.seconds() - self._due))
        self.start()
