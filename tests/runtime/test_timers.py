"""Long work in slices; the wheel's deadlines are tested through everything that uses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from dstreams.runtime.timers import CALLS_PER_TURN, SLICE_SECONDS, TimerWheel


@define(eq=False)
class Call:
    """A call that a turn makes, unless it is cancelled."""

    function: Callable[[], object] | None

    def active(self) -> bool:
        return self.function is not None

    def cancel(self) -> None:
        self.function = None


@define(eq=False)
class Turns:
    """A scheduler whose turns are made one by one; Clock.advance makes as many as there are to make."""

    seconds: Callable[[], float] = Clock().seconds
    callLater: object = None
    calls: list[Call] = field(factory=list)

    def soon(self, function: Callable[[], object]) -> Call:
        self.calls.append(call := Call(function))
        return call

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            if call.function is not None:
                call.function()


class TurnTests:
    """How long work that can wait may go on in a turn."""

    def test_all_share_a_slice(self) -> None:
        """The turn is over a slice after the first one has asked; the next turn has a slice of its own."""
        turns, now = Turns(), [100.0]
        wheel = TimerWheel(turns, stopwatch=lambda: now[0])  # type: ignore[arg-type]
        for _ in range(3):
            assert not wheel.turn_is_over()
            now[0] += 0.9 * SLICE_SECONDS
            assert not wheel.turn_is_over()
            now[0] += 0.2 * SLICE_SECONDS
            assert wheel.turn_is_over()
            assert len(turns.calls) == 1
            turns.turn()
            now[0] += 10.0

    def test_work_that_begins_late(self) -> None:
        """What others do before the first one asks doesn't count."""
        turns, now = Turns(), [100.0]
        wheel = TimerWheel(turns, stopwatch=lambda: now[0])  # type: ignore[arg-type]
        now[0] += 10.0
        assert not wheel.turn_is_over()


class SlicesTests:
    @pytest.fixture(autouse=True)
    def _wheel(self) -> None:
        self.turns = Turns()
        self.wheel = TimerWheel(self.turns)  # type: ignore[arg-type]
        self.log: list[str] = []

    def _work(self, name: str, steps: int, seconds: float = 0.0) -> Iterator[None]:
        for _ in range(steps):
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                pass
            self.log.append(name)
            yield

    def test_long_work_is_divided_between_turns(self) -> None:
        """No turn does more than a slice, and the Deferred fires after the last one."""
        done = self.wheel.in_slices(self._work("a", 10, 0.8 * SLICE_SECONDS))
        assert self.log == []
        while not done.called:
            before = len(self.log)
            self.turns.turn()
            assert len(self.log) - before <= 2
        assert self.log == ["a"] * 10

    def test_concurrent_work_takes_turns(self) -> None:
        """Two pieces of work advance alternately."""
        done = [self.wheel.in_slices(self._work(name, 4)) for name in "ab"]
        while not all(each.called for each in done):
            self.turns.turn()
        assert self.log == ["a", "b"] * 4

    def test_an_error_reaches_the_caller(self) -> None:
        """What the work raises is the Deferred's failure, and other work goes on."""

        def broken() -> Iterator[None]:
            yield
            raise KeyError("planted")

        failed: list[object] = []
        self.wheel.in_slices(broken()).addErrback(lambda failure: failed.append(failure.check(KeyError)))
        self.wheel.in_slices(self._work("a", 3))
        for _ in range(3):
            self.turns.turn()
        assert failed == [KeyError]
        assert self.log == ["a"] * 3

    def test_cancelled_work_stops(self) -> None:
        """After a cancellation nothing more is done, and nothing is left in the reactor."""
        done: Deferred[object] = self.wheel.in_slices(self._work("a", 1000, SLICE_SECONDS))  # type: ignore[assignment]
        done.addErrback(lambda failure: self.log.append(failure.trap(CancelledError).__name__))
        self.turns.turn()
        done.cancel()
        self.turns.turn()
        assert self.log == ["a", "CancelledError"]
        assert self.turns.calls == []


class CrowdTests:
    """Many timers that are due together, and many functions that wait for a turn."""

    @pytest.mark.parametrize("kind", ["timers", "functions"])
    def test_a_turn_calls_a_bounded_number(self, kind: str) -> None:
        """10,000 calls are divided between turns, each is made once, in their order."""
        turns, made = Turns(), list[int]()
        wheel = TimerWheel(turns)  # type: ignore[arg-type]
        calls = [partial(made.append, number) for number in range(10_000)]
        if kind == "timers":
            clock = Clock()
            turns.seconds = clock.seconds
            turns.callLater = lambda delay, function: Call(function)
            wheel = TimerWheel(turns)  # type: ignore[arg-type]
            for call in calls:
                wheel.call_later(1.0, call)
            clock.advance(2.0)
            wheel._tick()
        else:
            for call in calls:
                wheel.take_turn(call)
        before = 0
        while len(made) < len(calls):
            turns.turn()
            assert 0 < len(made) - before <= 2 * CALLS_PER_TURN
            before = len(made)
        assert made == list(range(10_000))
