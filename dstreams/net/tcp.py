"""TCP: Twisted's ports and connectors, with this package's connections."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocolFactory

from dstreams.net.ends import ClientConnection, ServerConnection, hand_over

if TYPE_CHECKING:
    from dstreams.net.reactor import UvloopReactor


class TcpServerConnection(ServerConnection):
    """A connection accepted over IPv4 or IPv6."""

    __slots__ = ()

    def getHost(self) -> Any:
        return internet_address(self.socket.getsockname())

    def getPeer(self) -> Any:
        kind = IPv4Address if len(self.client) == 2 else IPv6Address
        return kind("TCP", *self.client)

    def _place(self) -> object:
        return self.socket.getsockname()[1]


class TcpClientConnection(ClientConnection):
    """A connection dialled over IPv4 or IPv6."""

    __slots__ = ()

    def getHost(self) -> Any:
        return internet_address(self.socket.getsockname())


class TcpPort(tcp.Port):
    """Twisted's port, with this package's connections."""

    transport = cast("Any", TcpServerConnection)


class TcpConnector(tcp.Connector):
    """Twisted's connector, with this package's connections."""

    def _makeTransport(self) -> tcp.Client:
        return _Dialler(self.host, self.port, self.bindAddress, self, self.reactor)


class _Dialler(tcp.Client):
    """Twisted's client until it is connected."""

    def _connectDone(self) -> None:
        hand_over(self, TcpClientConnection, self.connector.buildProtocol(self.getPeer()))


def adopt_tcp(
    descriptor: int, family: int, factory: IProtocolFactory, reactor: UvloopReactor
) -> TcpServerConnection | None:
    """Return a connection over a copy of a connected socket, or ``None`` if the factory returns no protocol."""
    sock = socket.fromfd(descriptor, family, socket.SOCK_STREAM)
    peer = internet_address(sock.getpeername())
    protocol = factory.buildProtocol(peer)
    if protocol is None:
        sock.close()
        return None
    client = (peer.host, *sock.getpeername()[1:])
    connection = TcpServerConnection(sock, protocol, client, None, peer.port, reactor)
    protocol.makeConnection(connection)
    return connection


def internet_address(address: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """Convert a socket's address to Twisted's. The host of an IPv6 address includes its scope, if there is one."""
    if len(address) == 2:
        return IPv4Address("TCP", *address)
    host = socket.getnameinfo(cast("Any", address), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return IPv6Address("TCP", host, *address[1:])
