"""One application, served on many listeners and in several versions of HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory

from dstreams.http.body_room import BodyRoom
from dstreams.http.http1.channel import HttpFactory
from dstreams.http.http1.connections import Connections, HttpStatistics
from dstreams.http.http1.limits import HttpLimits
from dstreams.http.http2.factory import Http2Factory
from dstreams.http.messages import Application, Observer
from dstreams.http.negotiation import HTTP_1_1, HTTP_2, NegotiatingFactory
from dstreams.timers import TimerWheel


class HttpSite:
    """Makes the factories of listeners, and keeps track of all their connections.

    :param application: answers the requests.
    :param wheel: timers, and the time that durations are measured in.
    :param limits: what a client may send, and how slowly, whatever version it speaks.
    :param observer: told of every request.
    """

    def __init__(
        self,
        application: Application,
        wheel: TimerWheel,
        limits: HttpLimits | None = None,
        observer: Observer | None = None,
    ) -> None:
        limits = HttpLimits() if limits is None else limits
        self.connections = Connections(observer, BodyRoom(limits.max_buffered_bytes))
        self.http1 = HttpFactory(application, wheel, limits, connections=self.connections)
        self.http2 = Http2Factory(application, wheel, limits, connections=self.connections)
        self._by_name: dict[bytes, IProtocolFactory] = {HTTP_1_1: self.http1, HTTP_2: self.http2}

    def over_tls(self, protocols: Sequence[bytes]) -> IProtocolFactory:
        """What speaks inside TLS.

        :param protocols: the protocols that a handshake may agree on, by their ALPN names; those that aren't HTTP
            are left out.
        """
        chosen = {name: self._by_name[name] for name in protocols if name in self._by_name}
        return NegotiatingFactory(chosen, self.connections)

    def retire(self) -> None:
        """Give every connection one more answer; new connections are still taken."""
        self.http2.retire()
        self.http1.retire()

    def drain(self) -> Deferred[None]:
        """Close connections after their current answers; take no new ones.

        :return: fires when all are gone. May be called again, and cancelled.
        """
        self.http2.refuse_connections()
        return self.http1.drain()

    def abort(self) -> None:
        """Cut the connections that are left."""
        self.connections.abort()

    def statistics(self) -> HttpStatistics:
        """What the connections are doing, and what was done to them."""
        return self.connections.statistics()
