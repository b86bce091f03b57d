"""Waits with a deadline at shutdown, which a second signal ends immediately."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from dstreams.runtime.timers import Scheduler


@define(eq=False)
class ShutdownDeadline:
    """Waits that end at their deadline, or all at once when :meth:`lose` is called.

    :param clock: measures the waits.
    """

    _clock: Scheduler
    lost: bool = field(default=False, init=False)
    _waits: list[Deferred[bool]] = field(factory=list, init=False)

    def lose(self) -> None:
        """End all waits now, and all later ones as soon as they begin."""
        self.lost = True
        for wait in self._waits[:]:
            self._end(wait, False)

    async def wait(self, seconds: float) -> None:
        """Wait for ``seconds``, or until :meth:`lose` is called."""
        await self.wait_for(Deferred(), seconds)

    async def wait_for(self, event: Deferred[None], seconds: float) -> bool:
        """Wait for ``event``, for at most ``seconds``.

        :param event: cancelled if the wait ends without it.
        :return: whether the event happened.
        :raise Exception: the error of the event, if it failed.
        """
        wait: Deferred[bool] = Deferred()
        self._waits.append(wait)
        timer = self._clock.callLater(seconds, self._end, wait, False)
        event.addCallbacks(lambda _: self._end(wait, True), lambda failure: self._fail(wait, failure))
        if self.lost:
            self._end(wait, False)
        try:
            came = await wait
        finally:
            if timer.active():
                timer.cancel()
        if not came:
            event.cancel()
        return came

    def _end(self, wait: Deferred[bool], came: bool) -> None:
        if wait in self._waits:
            self._waits.remove(wait)
            wait.callback(came)

    def _fail(self, wait: Deferred[bool], failure: Failure) -> Failure | None:
        if wait in self._waits:
            self._waits.remove(wait)
            wait.errback(failure)
            return None
        return None if failure.check(CancelledError) else failure
