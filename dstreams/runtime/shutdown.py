"""The end of a server: waits with a deadline, which a second signal ends at once, and connections that finish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.runtime.timers import Scheduler

_log = Logger()


class Connections(Protocol):
    """The open connections of a listener, or the requests that another server's connections carry."""

    def drain(self) -> Deferred[None]:
        """Close each connection after its response, and idle ones within a second; fire when none is left.

        It may be called again, and the returned Deferred may be cancelled.
        """

    def abort(self) -> None:
        """Abort all remaining connections."""


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


async def finish(
    connections: Connections, grace: float, deadline: ShutdownDeadline, end_live: Callable[[], object] | None = None
) -> None:
    """Let connections finish their responses, then abort those that have not.

    :param grace: maximum seconds that they may take.
    :param end_live: ends the live readers. It is called after the drain has begun, so that their last responses
        already announce that the connection closes.
    """
    drained = connections.drain()
    if end_live is not None:
        end_live()
    if not await deadline.wait_for(drained, grace):
        _log.warn("aborting the remaining connections{when}", when="" if deadline.lost else f" after {grace} s")
        connections.abort()
        # Wait until they are gone, because they hold what they were reading or writing until then.
        await connections.drain()
