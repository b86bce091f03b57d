"""The base class of the factories of all HTTP versions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from twisted.internet import protocol
from twisted.internet.interfaces import IAddress

from dstreams.http.messages import Application
from dstreams.http.transport.connections import Connections
from dstreams.http.transport.exchange import Exchange
from dstreams.http.transport.limits import HttpLimits
from dstreams.http.transport.replies import DateLine
from dstreams.http.transport.upload_budget import UploadBudget
from dstreams.runtime.timers import TimerWheel


class _Made(Protocol):
    """A connection that a factory makes."""

    factory: protocol.Factory | None

    def retire(self) -> None:
        """Make the current response the last one, or the next one if there is none."""


C = TypeVar("C", bound=_Made)


class ConnectionFactory(protocol.Factory, Generic[C]):
    """Makes the connections of listeners; a subclass defines their type (:meth:`make`).

    :param application: answers the requests.
    :param wheel: timers, and the clock for durations.
    :param limits: limits on the size and the slowness of requests.
    :param now: the wall clock in seconds since 1970, for ``Date`` headers.
    :param connections: the set that new connections join; default: a new set.
    """

    noisy = False

    def __init__(
        self,
        application: Application,
        wheel: TimerWheel,
        limits: HttpLimits | None = None,
        now: Callable[[], float] = time.time,
        connections: Connections | None = None,
    ) -> None:
        self._exchange = Exchange(application)
        self._wheel = wheel
        self._limits = HttpLimits() if limits is None else limits
        self._date = DateLine(now)
        self._connections = connections or Connections(bodies=UploadBudget(self._limits.max_buffered_bytes))
        self._retiring = self._refuses = False

    def make(self) -> C:
        """Return a new connection."""
        raise NotImplementedError

    def buildProtocol(self, addr: IAddress | None) -> C | None:  # type: ignore[override]  # noqa: ARG002 (Twisted's)
        """Return a new connection, or ``None`` after :meth:`refuse_connections`."""
        if self._refuses:
            return None
        connection = self.make()
        connection.factory = self
        if self._retiring:
            connection.retire()
        return connection

    def retire(self) -> None:
        """Let each new connection send only one response, which announces that the connection closes."""
        self._retiring = True

    def refuse_connections(self) -> None:
        """Accept no more connections."""
        self._refuses = True
