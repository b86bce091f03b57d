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
    """What a listener's connections are doing.

    :param connections: open now. Each is counted below once at most, as the last of what it does.
    :param reading: of these, in the middle of a request.
    :param responding: of these, waiting for the application's answer.
    :param streaming: of these, sending a streamed body.
    :param stalled: of these, with a client that takes less than it is sent.
    :param unsent_bytes: what the operating system hasn't taken yet of what was written.
    :param cut_stalled: connections cut since the start, because the client took nothing.
    :param timed_out: requests answered with 408 since the start.
    :param refused: requests refused since the start because HTTP doesn't allow them, the timed-out included.
    :param body_bytes: what has come of large bodies that aren't complete.
    :param refused_bodies: bodies refused since the start because there was no room for them.
    :param postponed: how often a connection had more to do than its share of a reactor turn, since the start.
    :param calmed: HTTP/2 connections ended since the start with ENHANCE_YOUR_CALM.
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
    """What the listener knows of a channel."""

    @property
    def is_reading(self) -> bool:
        """Whether a request has begun to arrive and isn't complete."""

    @property
    def is_responding(self) -> bool:
        """Whether the application owes an answer."""

    @property
    def is_streaming(self) -> bool:
        """Whether a streamed body is being sent."""

    @property
    def is_stalled(self) -> bool:
        """Whether the client takes less than it is sent."""

    @property
    def unsent_bytes(self) -> int:
        """What was written and waits in this process."""

    def retire(self) -> None:
        """Make the answer under way the last one, or the next one when none is."""

    def finish(self) -> None:
        """Close after the answer under way; when there is none, after a request that is still on its way."""

    def abort(self) -> None:
        """Close now."""


@define(eq=False)
class Connections:
    """The live connections, and counters of what doesn't show in them.

    What is done to all connections is done to some hundreds in each turn of the reactor; the argument ``wheel`` is that
    reactor's.

    :param observer: told of every request; ``None`` when nobody wants to know, which costs nothing.
    :param bodies: how much of their bodies may be arriving.
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
        """Forget a connection that has closed."""
        self.live.discard(connection)
        if self.when_lost is not None:
            self.when_lost()
        if not self.live and self._waiting:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def retire(self, wheel: TimerWheel) -> None:
        """Make the current or next answer of every connection its last one."""
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
        """Cut all connections."""
        self._for_each(list(self.live), lambda connection: connection.abort(), wheel)

    def _for_each(self, left: list[Connection], do: Callable[[Connection], object], wheel: TimerWheel) -> None:
        """Do something with each connection that is still open: as many as a turn allows now, the others later."""
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
        """A snapshot: 2 us for each connection."""
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
