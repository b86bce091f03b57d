"""TLS connections during the handshake, before their protocol is known.

The client offers protocols in the handshake (ALPN, RFC 7301), so the protocol of a connection is known only when the
handshake is complete. Until then a :class:`Negotiation` takes its place; afterwards it has no part in the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from twisted.internet import protocol
from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocolFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.http.transport.connections import Connections

HTTP_1_1 = b"http/1.1"
HTTP_2 = b"h2"
"""The names of the protocols in a handshake."""


@implementer(IHandshakeListener)
class Negotiation(protocol.Protocol):
    """One connection, until its handshake is complete.

    :param factories: the factories of the protocols, by name.
    :param address: the client's address.
    :param connections: the set that this connection belongs to, so that a shutdown also waits for it.
    """

    def __init__(
        self, factories: Mapping[bytes, IProtocolFactory], address: IAddress, connections: Connections
    ) -> None:
        self._factories = factories
        self._address = address
        self._connections = connections

    is_reading = is_responding = is_streaming = is_stalled = False
    unsent_bytes = 0
    """Always 0: no request has begun."""

    def connectionMade(self) -> None:
        """Register the connection; TLS does the handshake."""
        self._connections.live.add(self)

    def handshakeCompleted(self) -> None:  # noqa: N802 (Twisted's name)
        """Pass the connection to the protocol that client and server have agreed on."""
        transport: Any = self.transport
        # A client that offers nothing is older than HTTP/2, or has no preference.
        factory = self._factories.get(transport.negotiatedProtocol or HTTP_1_1)
        chosen: Any = None if factory is None else factory.buildProtocol(self._address)
        if chosen is None:
            transport.loseConnection()
            return
        # Register the new protocol before removing this one, so that the set is never empty in between.
        transport.wrappedProtocol = chosen
        chosen.makeConnection(transport)
        self._connections.lost(self)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:  # noqa: ARG002 (Twisted's)
        """Unregister the connection, because the client has disconnected or the handshake has failed."""
        self._connections.lost(self)

    def retire(self) -> None:
        """Do nothing: the protocol after the handshake handles it."""

    def finish(self) -> None:
        """Close the connection at shutdown; no request has begun."""
        self.abort()

    def abort(self) -> None:
        """Close the connection immediately."""
        transport: Any = self.transport
        transport.abortConnection()


class NegotiatingFactory(protocol.Factory):
    """Makes the connections that wait for their handshake.

    :param factories: the factories of the protocols, by name.
    :param connections: the set that the connections join meanwhile.
    """

    noisy = False

    def __init__(self, factories: Mapping[bytes, IProtocolFactory], connections: Connections) -> None:
        self._factories = factories
        self._connections = connections

    def buildProtocol(self, addr: IAddress | None) -> Negotiation:
        """Return the placeholder for a new connection."""
        return Negotiation(self._factories, cast("IAddress", addr), self._connections)
