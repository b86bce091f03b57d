"""One application, served on several listeners and in several versions of HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory

from dstreams.http.http1.channel import HttpFactory
from dstreams.http.http2.connection import Http2Factory
from dstreams.http.messages import Application, Observer
from dstreams.http.transport.connections import Connections, HttpStatistics
from dstreams.http.transport.limits import HttpLimits
from dstreams.http.transport.negotiation import HTTP_1_1, HTTP_2, NegotiatingFactory
from dstreams.http.transport.upload_budget import UploadBudget
from dstreams.runtime.timers import TimerWheel


class HttpSite:
    """Makes the factories of listeners, and keeps track of all their connections.

    :param application: answers the requests.
    :param wheel: timers, and the clock for durations.
    :param limits: limits on the size and the slowness of requests, in any HTTP version.
    :param observer: called for every request.
    """

    def __init__(
        self,
        application: Application,
        wheel: TimerWheel,
        limits: HttpLimits | None = None,
        observer: Observer | None = None,
    ) -> None:
        limits = HttpLimits() if limits is None else limits
        self.connections = Connections(observer, UploadBudget(limits.max_buffered_bytes))
        self.http1 = HttpFactory(application, wheel, limits, connections=self.connections)
        self.http2 = Http2Factory(application, wheel, limits, connections=self.connections)
        self._by_name: dict[bytes, IProtocolFactory] = {HTTP_1_1: self.http1, HTTP_2: self.http2}

    def over_tls(self, protocols: Sequence[bytes]) -> IProtocolFactory:
        """Return the factory for connections inside TLS.

        :param protocols: the protocols that a handshake may select, by their ALPN names; those other than HTTP are
            ignored.
        """
        chosen = {name: self._by_name[name] for name in protocols if name in self._by_name}
        return NegotiatingFactory(chosen, self.connections)

    def retire(self) -> None:
        """Make every connection's next response its last; new connections are still accepted."""
        self.http2.retire()
        self.http1.retire()

    def drain(self) -> Deferred[None]:
        """Close connections after their current response, and accept no new ones.

        :return: fires when all are closed. It may be called again, and cancelled.
        """
        self.http2.refuse_connections()
        return self.http1.drain()

    def abort(self) -> None:
        """Abort the remaining connections."""
        self.http1.abort()

    def statistics(self) -> HttpStatistics:
        """Return figures about the connections."""
        return self.connections.statistics()
