"""The one deadline of a connection."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from attrs import define, field

from dstreams.runtime.timers import Timer, TimerWheel


@define(eq=False)
class Deadline:
    """A point in time that moves with every request, on a timer that doesn't.

    Moving it later is an assignment: the timer that is set fires early, looks, and is set again. That is
    0.15 us a request, where cancelling and setting a reactor timer takes 1.2.

    :param wheel: the timers.
    :param passed: called when the time has come; the deadline is off then.
    """

    _wheel: TimerWheel
    _passed: Callable[[], None]
    _at: float = field(default=inf, init=False)
    _timer_at: float = field(default=inf, init=False)
    _timer: Timer | None = field(default=None, init=False)

    def move(self, at: float) -> None:
        """Move the deadline to ``at``, in the wheel's seconds; infinity turns it off."""
        self._at = at
        if at < self._timer_at:
            self._set()

    def cancel(self) -> None:
        """Turn the deadline off, and the timer with it."""
        self._at = self._timer_at = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Turn the deadline off for good, and drop the callback: it usually refers to what owns the deadline."""
        self.cancel()
        self._passed = _nothing

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._at
        self._timer = self._wheel.call_later(self._at - self._wheel.seconds(), self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, inf
        at = self._at
        if at > self._wheel.seconds():
            if at != inf:
                self._set()
            return
        self._at = inf
        self._passed()


def _nothing() -> None:
    """The callback of a closed deadline."""
