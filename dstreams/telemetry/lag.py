"""How late the reactor is: the time that everything waits while something else takes its turn."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall

from dstreams.telemetry.histograms import Histogram
from dstreams.timers import Scheduler

INTERVAL = 1.0
"""Seconds from one look to the next: often enough for a histogram, and no cost."""


@define(eq=False)
class ReactorLag:
    """Asks to be called, and notes how much later that happens.

    :param scheduler: the reactor, or a Clock in tests.
    :param seconds: where it is noted.
    """

    _scheduler: Scheduler
    seconds: Histogram = field(factory=Histogram)
    _due: float = field(default=0.0, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to look."""
        self._due = self._scheduler.seconds() + INTERVAL
        self._call = self._scheduler.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        self.seconds.observe(max(0.0, self._scheduler.seconds() - self._due))
        self.start()
