"""Limits the number of open connections. Further clients wait in the system's queue until one closes.

A server that takes every connection runs out of descriptors, and then nothing works any more: neither its files nor
the listener by which an operator would see why. So accepting stops before that. Who is connected goes on; who isn't
waits in the listeners' backlogs, and beyond those the system makes clients try again.

Nor are thousands let in at once, however many wait: others' requests would wait for as long as that takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port
from twisted.logger import Logger

from dstreams.runtime.timers import Scheduler, slice_end

_log = Logger()

ACCEPTS_AT_ONCE = 8
"""Number of connections that are accepted between two checks of the time."""

ACCEPT_SECONDS = 0.002
"""Maximum seconds of one turn of the reactor for accepting connections. Passing them to uvloop and their
first requests take as long again, and more."""

QUIET_SECONDS = 60.0
"""Seconds after the warning about reaching the limit during which it is not repeated."""


class ConnectionSet(Protocol):
    """The connections of a listener, or of several."""

    @property
    def live(self) -> Collection[object]:
        """The open connections."""

    when_lost: Callable[[], object] | None
    """Called after a connection has closed."""


@define(eq=False)
class Admission:
    """Stops accepting on some ports while they have the maximum number of connections, together.

    :param count: how many connections there are.
    :param seconds: the monotonic clock.
    :param what: what says how many there may be, for the log.
    :param most: how many there may be.
    """

    _count: Callable[[], int]
    _seconds: Callable[[], float]
    _what: str
    most: int = sys.maxsize
    begin_slice: Callable[[], Callable[[], bool]] = field(default=partial(slice_end, ACCEPT_SECONDS), init=False)
    """Starts the time for accepting connections in this turn of the reactor."""
    full: int = field(default=0, init=False)
    """How often the limit was reached."""
    _ports: list[Any] = field(factory=list, init=False)
    _is_paused: bool = field(default=False, init=False)
    _told_at: float | None = field(default=None, init=False)

    def watch(self, port: IListeningPort) -> bool:
        """Apply the limit to a port.

        :return: whether that can be done: not with ports that aren't the reactor's own.
        """
        if not isinstance(port, Port):
            return False
        guarded: Any = port
        # Every reactor looks this up when the port has something to accept. Twisted accepts many connections in one go,
        # so asking its factory would come too late: what it refuses is closed, and can't wait.
        guarded.doRead = partial(self._accept, guarded, guarded.doRead)
        self._ports.append(guarded)
        return True

    def release(self) -> None:
        """Release the ports, because they are about to be closed."""
        self._ports.clear()

    def left(self) -> None:
        """Accept again, because a connection has closed."""
        if self._is_paused and self._count() < self.most:
            self._is_paused = False
            for port in self._ports:
                port.startReading()

    def _accept(self, port: Any, accept: Callable[[], object]) -> None:
        over = self.begin_slice()
        goes_on = True
        while goes_on:
            wanted = port.numberAccepts = min(ACCEPTS_AT_ONCE, self.most - self._count())
            if wanted <= 0:
                break
            before = port.sessionno
            accept()
            # The reactor comes again when more are waiting.
            goes_on = port.sessionno - before == wanted and not over()
        if not self._is_paused and self._count() >= self.most:
            self._pause()

    def _pause(self) -> None:
        self._is_paused = True
        for port in self._ports:
            port.stopReading()
        self.full += 1
        now = self._seconds()
        if self._told_at is None or now - self._told_at >= QUIET_SECONDS:
            self._told_at = now
            _log.warn(
                "{count} connections are open, as many as there may be ({what}): others wait until one of them ends",
                count=self._count(),
                what=self._what,
            )


def admit(connections: ConnectionSet, scheduler: Scheduler, what: str, most: int = sys.maxsize) -> Admission:
    """Return the admission for a set of connections, connected to it."""
    admission = Admission(lambda: len(connections.live), scheduler.seconds, what, most)
    connections.when_lost = admission.left
    return admission
