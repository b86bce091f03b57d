"""What the services start and stop, and what they need of the reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory

from dstreams.progress import Progress
from dstreams.services.admission import Admission
from dstreams.telemetry.lag import ReactorLag
from dstreams.telemetry.traces import Traces
from dstreams.timers import Scheduler


class Reactor(Scheduler, Protocol):
    """What a server needs of the reactor; endpoints find the rest by themselves."""

    def callWhenRunning(self, callable: Callable[[], object]) -> object: ...  # noqa: A002 (Twisted's name)

    def callFromThread(self, callable: Callable[[], object]) -> object: ...  # noqa: A002

    def stop(self) -> None: ...


class Engine(Protocol):
    """The streams, as far as starting and stopping goes."""

    def open(self, progress: Progress) -> Deferred[None] | None:
        """Make the streams ready; raises, or fails with, a ``StorageError``."""

    def end_live(self) -> None:
        """Answer every waiting long-poll and end every SSE stream, and let nobody wait from now on."""

    def close(self) -> Deferred[None] | None:
        """Finish what is being stored, and close the storage."""


class Connections(Protocol):
    """A factory's open connections."""

    def retire(self) -> None:
        """Say in every answer from now on that its connection closes; new connections are still taken."""

    def drain(self) -> Deferred[None]:
        """Close connections after their answer, idle ones within a second; fires when there are none left.

        It may be called again, and what it returned may be cancelled.
        """

    def abort(self) -> None:
        """Cut all that are left."""


@frozen
class AdminParts:
    """What the admin service starts and stops.

    :param factory: speaks HTTP on its port.
    :param connections: that factory's connections.
    :param admission: how many of them there may be; as many as come where it is ``None``.
    :param bound: told where it listens, once it does.
    """

    factory: IProtocolFactory
    connections: Connections
    admission: Admission | None = None
    bound: Callable[[IAddress], object] | None = None


@frozen
class SiteParts:
    """What the services start and stop.

    :param engine: opened before the port and closed after it.
    :param factory: speaks HTTP on the port.
    :param connections: the connections of all factories.
    :param over_tls: makes the factory that speaks HTTP inside TLS, from the application protocols (ALPN names) that a
        handshake may agree on; ``None`` when ``factory`` does that too.
    :param lag: measures the reactor, ``None`` when nobody wants to know.
    :param traces: takes the spans of requests, ``None`` when nobody wants them.
    :param admin: speaks HTTP on the admin listener, ``None`` where there is none.
    :param admission: how many connections there may be; as many as come where it is ``None``.
    """

    engine: Engine
    factory: IProtocolFactory
    connections: Connections
    over_tls: Callable[[Sequence[bytes]], IProtocolFactory] | None = None
    lag: ReactorLag | None = None
    traces: Traces | None = None
    admin: AdminParts | None = None
    admission: Admission | None = None
