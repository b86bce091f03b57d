"""TLS connections whose protocol isn't agreed yet.

The client offers protocols in the handshake (ALPN, RFC 7301), so what speaks on a connection is known only when
that is complete. Until then this waits in its place; afterwards it has no part in the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from twisted.internet import protocol
from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocolFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.http.http1.connections import Connections

HTTP_1_1 = b"http/1.1"
HTTP_2 = b"h2"
"""The names of protocols in the handshake."""


@implementer(IHandshakeListener)
class Negotiation(protocol.Protocol):
    """One connection, until its handshake is complete.

    :param factories: what speaks after it, by the protocol's name.
    :param address: the client's.
    :param connections: the connections that this one belongs to: it must be gone, too, before the server is.
    """

    def __init__(
        self, factories: Mapping[bytes, IProtocolFactory], address: IAddress, connections: Connections
    ) -> None:
        self._factories = factories
        self._address = address
        self._connections = connections

    is_reading = is_responding = is_streaming = is_stalled = False
    unsent_bytes = 0
    """Nothing has been asked yet."""

    def connectionMade(self) -> None:
        """The client has connected; TLS does the rest."""
        self._connections.live.add(self)

    def handshakeCompleted(self) -> None:  # noqa: N802 (Twisted's name)
        """Hand the connection to what the client and the server have agreed on."""
        transport: Any = self.transport
        # A client that offers nothing is older than HTTP/2, or doesn't care.
        factory = self._factories.get(transport.negotiatedProtocol or HTTP_1_1)
        chosen: Any = None if factory is None else factory.buildProtocol(self._address)
        if chosen is None:
            transport.loseConnection()
            return
        # First entered, then left: between the two, nobody must think that all are gone.
        transport.wrappedProtocol = chosen
        chosen.makeConnection(transport)
        self._connections.lost(self)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:  # noqa: ARG002 (Twisted's)
        """The client has gone, or TLS didn't come about."""
        self._connections.lost(self)

    def retire(self) -> None:
        """What speaks after the handshake knows."""

    def finish(self) -> None:
        """Close: the server ends, and no request has begun."""
        self.abort()

    def abort(self) -> None:
        """Close now."""
        transport: Any = self.transport
        transport.abortConnection()


class NegotiatingFactory(protocol.Factory):
    """Waits for the handshake of each connection.

    :param factories: what speaks after it, by the protocol's name.
    :param connections: where the connections are entered meanwhile.
    """

    noisy = False

    def __init__(self, factories: Mapping[bytes, IProtocolFactory], connections: Connections) -> None:
        self._factories = factories
        self._connections = connections

    def buildProtocol(self, addr: IAddress | None) -> Negotiation:
        """What waits."""
        return Negotiation(self._factories, cast("IAddress", addr), self._connections)
