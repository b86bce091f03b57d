"""Waiting at the end, as long as somebody has the patience."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from dstreams.timers import Scheduler


@define(eq=False)
class Patience:
    """Waits that end by themselves, or all at once when patience is lost.

    :param clock: measures the waits.
    """

    _clock: Scheduler
    lost: bool = field(default=False, init=False)
    _waits: list[Deferred[bool]] = field(factory=list, init=False)

    def lose(self) -> None:
        """End every wait, now and later."""
        self.lost = True
        for wait in self._waits[:]:
            self._end(wait, False)

    async def wait(self, seconds: float) -> None:
        """Wait for ``seconds``, or until patience is lost."""
        await self.wait_for(Deferred(), seconds)

    async def wait_for(self, event: Deferred[None], seconds: float) -> bool:
        """Wait for ``event``, for ``seconds`` at most.

        :param event: cancelled when it isn't waited for any longer.
        :return: whether it came.
        :raise Exception: what the event failed with.
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
