"""The interfaces of what the services start and stop, and of the reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory

from dstreams.runtime import shutdown
from dstreams.runtime.progress import Progress
from dstreams.runtime.timers import Scheduler
from dstreams.services.admission import Admission
from dstreams.telemetry.lag import ReactorLag
from dstreams.telemetry.traces import Traces


class Reactor(Scheduler, Protocol):
    """The reactor methods that the server calls; endpoints use others."""

    def callWhenRunning(self, callable: Callable[[], object]) -> object: ...  # noqa: A002 (Twisted's name)

    def callFromThread(self, callable: Callable[[], object]) -> object: ...  # noqa: A002

    def stop(self) -> None: ...


class Engine(Protocol):
    """The streams, as seen by the services that start and stop them."""

    @property
    def failure(self) -> str | None:
        """Why the storage accepts no more changes, or ``None``."""

    def open(self, progress: Progress) -> Deferred[None] | None:
        """Load the streams. It raises, or its Deferred fails with, a ``StorageError``."""

    def end_live(self) -> None:
        """Answer all waiting long-polls and end all SSE streams; later ones do not wait either."""

    def close(self) -> Deferred[None] | None:
        """Finish pending commits and close the storage."""


class Connections(shutdown.Connections, Protocol):
    """The open connections of a factory."""

    def retire(self) -> None:
        """Announce in every response from now on that its connection closes. New connections are still accepted."""


@frozen
class AdminParts:
    """What the admin service starts and stops.

    :param factory: makes the HTTP connections of its port.
    :param connections: the connections of that factory.
    :param admission: limits their number, if given.
    :param bound: called with the address once the port is bound.
    """

    factory: IProtocolFactory
    connections: Connections
    admission: Admission | None = None
    bound: Callable[[IAddress], object] | None = None


@frozen
class SiteParts:
    """What the other services start and stop.

    :param engine: opened before the port is bound and closed after it.
    :param factory: makes the HTTP connections of the port.
    :param connections: the connections of all factories.
    :param over_tls: returns the factory for HTTP inside TLS, given the application protocols (ALPN names) that a
        handshake may select; ``None`` if ``factory`` also serves TLS connections.
    :param lag: measures the reactor's lag, if wanted.
    :param traces: exports the spans of requests, if wanted.
    :param admin: the parts of the admin listener, if there is one.
    :param admission: limits the number of connections, if given.
    """

    engine: Engine
    factory: IProtocolFactory
    connections: Connections
    over_tls: Callable[[Sequence[bytes]], IProtocolFactory] | None = None
    lag: ReactorLag | None = None
    traces: Traces | None = None
    admin: AdminParts | None = None
    admission: Admission | None = None


@define
class Readiness:
    """Whether the server has started and does not stop yet."""

    ready: bool = False

    def __call__(self) -> bool:
        return self.ready
