"""The connections of one listener: who is there, what they do, what was done to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dstreams.http.messages import Observer
from dstreams.http.transport.upload_budget import UploadBudget
from dstreams.runtime.timers import CALLS_PER_TURN, TimerWheel

_log = Logger()


@frozen
class HttpStatistics:
    """Figures about a listener's connections.

    :param connections: the number of open connections. Each is counted in at most one of the next three figures.
    :param reading: the number of them in the middle of a request.
    :param responding: the number of them that wait for the application's response.
    :param streaming: the number of them that send a streamed body.
    :param stalled: the number of them whose client is slower than the server.
    :param unsent_bytes: the number of bytes written that the operating system has not accepted yet.
    :param cut_stalled: the number of connections aborted since the start because the client received nothing.
    :param timed_out: the number of requests answered with 408 since the start.
    :param refused: the number of requests since the start that violated HTTP or a limit, including those timed out.
    :param body_bytes: the number of bytes received of large incomplete bodies.
    :param refused_bodies: the number of bodies rejected since the start because of the upload budget.
    :param postponed: how often a connection exceeded its share of a reactor turn, since the start.
    :param calmed: the number of HTTP/2 connections ended since the start with ENHANCE_YOUR_CALM.
    """

    connections: int
    reading: int
    responding: int
    streaming: int
    stalled: int
    unsent_bytes: int
    cut_stalled: int
    timed_out: int
    refused: int
    body_bytes: int
    refused_bodies: int
    postponed: int
    calmed: int


class Connection(Protocol):
    """A connection, as the listener sees it."""

    @property
    def is_reading(self) -> bool:
        """Whether a request is incomplete."""

    @property
    def is_responding(self) -> bool:
        """Whether the application's response is pending."""

    @property
    def is_streaming(self) -> bool:
        """Whether a streamed body is being sent."""

    @property
    def is_stalled(self) -> bool:
        """Whether the client is slower than the server."""

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes written that are still in this process."""

    def retire(self) -> None:
        """Make the current response the last one, or the next one if there is none."""

    def finish(self) -> None:
        """Close after the current response; if there is none, after a request that is already on its way."""

    def abort(self) -> None:
        """Close immediately."""


@define(eq=False)
class Connections:
    """The open connections, and counters of past events.

    An operation on all connections handles some hundreds in each turn of the reactor, whose timers are ``wheel``.

    :param observer: called for every request, or ``None``.
    :param bodies: the upload budget that they share.
    """

    observer: Observer | None = field(default=None, repr=False)
    bodies: UploadBudget = field(factory=UploadBudget, repr=False)
    live: set[Connection] = field(factory=set, init=False)
    cut_stalled: int = field(default=0, init=False)
    timed_out: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    postponed: int = field(default=0, init=False)
    calmed: int = field(default=0, init=False)
    when_lost: Callable[[], object] | None = field(default=None, init=False, repr=False)
    """Called after a connection has closed."""
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def lost(self, connection: Connection) -> None:
        """Remove a connection that has closed."""
        self.live.discard(connection)
        if self.when_lost is not None:
            self.when_lost()
        if not self.live and self._waiting:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def retire(self, wheel: TimerWheel) -> None:
        """Make the current or next response of every connection its last one."""
        self._for_each(list(self.live), lambda connection: connection.retire(), wheel)

    def drain(self, wheel: TimerWheel) -> Deferred[None]:
        """Ask all connections to finish.

        :return: fires when none is left; may be cancelled.
        """
        done: Deferred[None] = Deferred(self._waiting_no_more)
        self._for_each(list(self.live), lambda connection: connection.finish(), wheel)
        if self.live:
            self._waiting.append(done)
        else:
            done.callback(None)
        return done

    def abort(self, wheel: TimerWheel) -> None:
        """Abort all connections."""
        self._for_each(list(self.live), lambda connection: connection.abort(), wheel)

    def _for_each(self, left: list[Connection], do: Callable[[Connection], object], wheel: TimerWheel) -> None:
        """Call ``do`` with each connection that is still open: as many as a turn allows now, the others later."""
        for _ in range(min(len(left), CALLS_PER_TURN)):
            connection = left.pop()
            if connection in self.live:
                try:
                    do(connection)
                except Exception:
                    _log.failure("ending a connection failed")
            if wheel.turn_is_over():
                break
        if left:
            wheel.soon(partial(self._for_each, left, do, wheel))

    def statistics(self) -> HttpStatistics:
        """Return the current figures; this takes 2 us for each connection."""
        reading = responding = streaming = stalled = unsent = 0
        for connection in self.live:
            if connection.is_streaming:
                streaming += 1
            elif connection.is_responding:
                responding += 1
            elif connection.is_reading:
                reading += 1
            stalled += connection.is_stalled
            unsent += connection.unsent_bytes
        return HttpStatistics(
            connections=len(self.live),
            reading=reading,
            responding=responding,
            streaming=streaming,
            stalled=stalled,
            unsent_bytes=unsent,
            cut_stalled=self.cut_stalled,
            timed_out=self.timed_out,
            refused=self.refused,
            body_bytes=self.bodies.used,
            refused_bodies=self.bodies.refused,
            postponed=self.postponed,
            calmed=self.calmed,
        )

    def _waiting_no_more(self, done: Deferred[None]) -> None:
        if done in self._waiting:
            self._waiting.remove(done)
