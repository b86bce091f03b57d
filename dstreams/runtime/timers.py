"""Shared timers, with thousands of deadlines on one delayed call; long work divided between reactor turns; clocks.

A live reader needs several deadlines (heartbeat, rotation, time-out), most of which are never reached. A reactor timer
for each would cost a heap operation and a DelayedCall. Here a deadline is an entry in a coarse slot, and the reactor
has a timer only for the next slot with entries.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Any, Protocol, cast

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

SLICE_SECONDS = 0.005
"""Maximum seconds of one turn of the reactor for all work of :meth:`TimerWheel.in_slices` together."""

CALLS_PER_TURN = 200
"""Maximum number of callbacks of one kind in one turn of the reactor. What they write to connections is sent at the end
of the turn (uvloop), where :func:`slice_end` does not measure it: 20 to 40 us for each connection."""


def slice_end(seconds: float = SLICE_SECONDS) -> Callable[[], bool]:
    """Return a function that returns whether ``seconds`` have passed since now."""
    clock, end = time.perf_counter, time.perf_counter() + seconds
    return lambda: clock() >= end


class Scheduler(Protocol):
    """The part of IReactorTime that is used here; ``twisted.internet.task.Clock`` has it too."""

    def seconds(self) -> float: ...

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 (Twisted's name)
        *args: object,
    ) -> IDelayedCall: ...


@define(eq=False)
class Timer:
    """One deadline, as returned by :meth:`TimerWheel.call_later`."""

    _callback: Callable[[], object] | None

    @property
    def active(self) -> bool:
        """Whether the callback is still pending."""
        return self._callback is not None

    def cancel(self) -> None:
        """Cancel the deadline. This does nothing if it has passed or was cancelled before."""
        self._callback = None

    def __call__(self) -> None:
        """Call the callback, unless the deadline was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


@define(eq=False)
class TimerWheel:
    """Deadlines rounded up to a common resolution.

    :param scheduler: the reactor, or a Clock in tests.
    :param resolution: the width of a slot in seconds; a callback is late by at most this much, and never
        early.
    :param stopwatch: measures how long work takes within a turn of the reactor, in seconds.
    """

    _scheduler: Scheduler
    _resolution: float = 0.1
    _stopwatch: Callable[[], float] = time.perf_counter
    _slots: dict[int, list[Timer]] = field(factory=dict, init=False)
    _due: list[int] = field(factory=list, init=False)
    _armed_for: int | None = field(default=None, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)
    seconds: Callable[[], float] = field(init=False)
    """The scheduler's time, in seconds; only differences mean anything."""

    soon: Callable[[Callable[[], object]], object] = field(init=False)
    """Calls a function in the reactor's next turn."""

    _cooperator: Cooperator = field(init=False)
    _turn_end: float = field(default=0.0, init=False)
    """When ``turn_is_over`` becomes true in this turn; 0 until it is asked for."""
    _firing: deque[Timer] = field(factory=deque, init=False)
    """Timers that are due and have not been called yet."""
    _queue: deque[Callable[[], object]] = field(factory=deque, init=False)
    _queue_is_due: bool = field(default=False, init=False)

    @seconds.default
    def _bind_seconds(self) -> Callable[[], float]:
        return self._scheduler.seconds

    @soon.default
    def _bind_soon(self) -> Callable[[Callable[[], object]], object]:
        # Our own reactor's way, where it runs: a delayed call takes 5 us more there.
        found: Callable[[Callable[[], object]], object] | None = getattr(self._scheduler, "soon", None)
        return found or partial(self._scheduler.callLater, 0)

    @_cooperator.default
    def _make_cooperator(self) -> Cooperator:
        return Cooperator(slice_end, lambda tick: cast("IDelayedCall", self.soon(tick)))

    def in_slices(self, steps: Iterator[object]) -> Deferred[None]:
        """Do long work a slice in each turn of the reactor; concurrent calls share the slice fairly.

        :param steps: does a short part of the work, at most 1 ms, each time the next item is asked for.
        :return: fires when ``steps`` is exhausted, and fails with what it raises. Cancelling it stops the work.
        """
        task = self._cooperator.cooperate(steps)  # begins in the next turn

        def cancel(done: Deferred[None]) -> None:
            done.errback(CancelledError())
            task.stop()

        done: Deferred[None] = Deferred(cancel)

        def end(result: object) -> None:
            if not done.called:  # it was cancelled
                done.callback(result if isinstance(result, Failure) else None)

        task.whenDone().addBoth(end)
        return done

    def turn_is_over(self) -> bool:
        """Return whether work that can wait should wait for the next turn of the reactor.

        All callers share :data:`SLICE_SECONDS` a turn, measured from the first call in it.
        """
        now = self._stopwatch()
        if not self._turn_end:
            self._turn_end = now + SLICE_SECONDS
            self.soon(self._begin_turn)
        return now >= self._turn_end

    def _begin_turn(self) -> None:
        self._turn_end = 0.0

    def take_turn(self, function: Callable[[], object]) -> None:
        """Call ``function`` in the next turn of the reactor, or in a later one while many wait.

        All callers share one slice of each turn, in the order of asking. A function that has more to do asks again, so
        that the others come first.
        """
        self._queue.append(function)
        if not self._queue_is_due:
            self._queue_is_due = True
            self.soon(self._run_queue)

    def _run_queue(self) -> None:
        # What is queued meanwhile waits for the next turn.
        self._run(self._queue, "continuing a response failed")
        self._queue_is_due = bool(self._queue)
        if self._queue_is_due:
            self.soon(self._run_queue)

    def _run(self, functions: deque[Any], what_failed: str) -> None:
        """Call the first functions of a queue, as many as a turn allows."""
        over = slice_end()
        for _ in range(min(len(functions), CALLS_PER_TURN)):
            try:
                functions.popleft()()
            except Exception:
                _log.failure(what_failed)
            if over():
                return

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` once, ``delay`` seconds from now or up to one slot later."""
        slot = int((self._scheduler.seconds() + delay) / self._resolution) + 1
        timer = Timer(callback)
        timers = self._slots.get(slot)
        if timers is None:
            self._slots[slot] = [timer]
            heapq.heappush(self._due, slot)
            if self._armed_for is None or slot < self._armed_for:
                self._arm()
        else:
            timers.append(timer)
        return timer

    def stop(self) -> None:
        """Cancel every deadline, and leave nothing in the reactor."""
        self._slots.clear()
        self._due.clear()
        self._firing.clear()
        self._arm()

    def _arm(self) -> None:
        """Set the scheduler's timer for the next slot with a deadline."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call, self._armed_for = None, None
        if self._due:
            self._armed_for = self._due[0]
            delay = self._armed_for * self._resolution - self._scheduler.seconds()
            self._call = self._scheduler.callLater(max(0.0, delay), self._tick)

    def _tick(self) -> None:
        self._armed_for = None
        now = self._scheduler.seconds() / self._resolution
        was_idle = not self._firing
        # A sliver of tolerance: a reactor that wakes a hair early must not spin on the same slot.
        while self._due and self._due[0] <= now + 0.001:
            self._firing.extend(self._slots.pop(heapq.heappop(self._due)))
        self._arm()
        if was_idle:
            self._fire()

    def _fire(self) -> None:
        """Call the callbacks of the timers that are due: as many as a turn allows now, the others in the next turns."""
        self._run(self._firing, "a timer's callback failed")
        if self._firing:
            self.soon(self._fire)


@frozen
class Clocks:
    """Both clocks, passed as arguments so that tests can replace them.

    :param monotonic: seconds that never go backwards, for durations.
    :param wall: Unix seconds, which an operator or NTP may adjust, for times that clients see.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


@define(eq=False)
class Deadline:
    """A deadline that moves with every request, on a timer that does not.

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
        """Turn the deadline off permanently, and drop the callback, which usually refers to the deadline's owner."""
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
    """Do nothing: the callback of a closed deadline."""
