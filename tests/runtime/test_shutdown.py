"""Waits that end by themselves, or when patience is lost."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dstreams.runtime.shutdown import ShutdownDeadline


class PatienceTests(SynchronousTestCase):
    """How long is waited."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.shutdown = ShutdownDeadline(self.clock)

    def wait_for(self, event: Deferred[None]) -> Deferred[bool]:
        """Wait for five seconds."""
        return Deferred.fromCoroutine(self.shutdown.wait_for(event, 5))

    def test_the_event_comes(self) -> None:
        """The wait ends with the event, and leaves no timer."""
        event: Deferred[None] = Deferred()
        waiting = self.wait_for(event)
        self.assertNoResult(waiting)
        event.callback(None)
        assert self.successResultOf(waiting) is True
        assert self.clock.getDelayedCalls() == []

    def test_it_has_come(self) -> None:
        """What has happened already isn't waited for, not even without patience."""
        event: Deferred[None] = Deferred()
        event.callback(None)
        self.shutdown.lose()
        assert self.successResultOf(self.wait_for(event)) is True

    def test_time_is_over(self) -> None:
        """After the time the event is given up, without an error in the log."""
        cancelled: list[Deferred[None]] = []
        waiting = self.wait_for(Deferred(cancelled.append))
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        assert self.successResultOf(waiting) is False
        assert len(cancelled) == 1

    def test_the_event_fails(self) -> None:
        """A failure is the waiter's."""
        event: Deferred[None] = Deferred()
        waiting = self.wait_for(event)
        event.errback(ValueError("broken"))
        self.failureResultOf(waiting, ValueError)
        assert self.clock.getDelayedCalls() == []

    def test_lost(self) -> None:
        """Lost patience ends every wait, those that are yet to begin too."""
        waits = [self.wait_for(Deferred()) for _ in range(2)]
        self.shutdown.lose()
        waits.append(self.wait_for(Deferred()))
        assert [self.successResultOf(wait) for wait in waits] == [False, False, False]
        self.successResultOf(Deferred.fromCoroutine(self.shutdown.wait(5)))
        assert self.clock.getDelayedCalls() == []
