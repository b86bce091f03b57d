"""Ports, connectors and connections by kind of socket: TCP and UNIX.

Listening, accepting and dialling are Twisted's own: binding, adopted descriptors, running out of descriptors,
name resolution, time-outs and the exceptions for all of these. Only connected sockets are handed to uvloop.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from dstreams.net.connection import Connection

if TYPE_CHECKING:
    from dstreams.net.reactor import UvloopReactor


class TcpConnection(Connection):
    """A connection over IPv4 or IPv6."""

    __slots__ = ()

    def getHost(self) -> Any:
        return internet_address(self.socket.getsockname())


class TcpServerConnection(TcpConnection):
    """A connection that was accepted.

    :param client: the peer's address, as the socket gives it; an IPv6 host with its scope.
    :param server: the port that accepted it, ``None`` for an adopted connection.
    :param sessionno: which one it is on that port.
    """

    __slots__ = ("client", "server", "sessionno")

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        server: tcp.Port | None,
        sessionno: int,
        reactor: UvloopReactor,
    ) -> None:
        self.client = client
        self.server = server
        self.sessionno = sessionno
        super().__init__(sock, protocol, reactor)

    @property
    def hostname(self) -> str:
        """The peer's address without its port."""
        return cast("str", self.client[0])

    def getPeer(self) -> Any:
        kind = IPv4Address if len(self.client) == 2 else IPv6Address
        return kind("TCP", *self.client)

    def logPrefix(self) -> str:
        return f"{super().logPrefix()},{self.sessionno},{self.client[0]}"

    def __repr__(self) -> str:
        return f"<{type(self.protocol).__name__} #{self.sessionno} on {self.socket.getsockname()[1]}>"


class TcpClientConnection(TcpConnection):
    """A connection that was dialled.

    :param dialler: Twisted's client, which has connected.
    """

    __slots__ = ("addr", "connector", "peer")
    _tlsClientDefault = True

    def __init__(self, dialler: Any, protocol: IProtocol) -> None:
        self.connector = dialler.connector
        self.peer = dialler.getPeer()
        self.addr = dialler.addr
        """What was dialled, maybe a name."""
        super().__init__(dialler.socket, protocol, dialler.reactor)

    def getPeer(self) -> Any:
        return self.peer

    def logPrefix(self) -> str:
        return f"{super().logPrefix()},client"

    def __repr__(self) -> str:
        return f"<{type(self)} to {self.addr} at {id(self):x}>"

    def connectionLost(self, reason: Failure) -> None:
        told = self.disconnected
        super().connectionLost(reason)
        if not told:
            self.connector.connectionLost(reason)


class TcpPort(tcp.Port):
    """Twisted's port, with connections of ours."""

    transport = cast("Any", TcpServerConnection)


class _TcpDialler(tcp.Client):
    """Twisted's client until it is connected."""

    def _connectDone(self) -> None:
        hand_over(self, TcpClientConnection)


class TcpConnector(tcp.Connector):
    """Twisted's connector, with connections of ours."""

    def _makeTransport(self) -> tcp.Client:
        return _TcpDialler(self.host, self.port, self.bindAddress, self, self.reactor)


def hand_over(dialler: Any, kind: type[TcpClientConnection]) -> None:
    """Replace a dialler that has connected by a connection."""
    protocol = dialler.connector.buildProtocol(dialler.getPeer())
    dialler.connected = True  # it can't fail any more
    connection = dialler.connector.transport = kind(dialler, Protocol() if protocol is None else protocol)
    del dialler.socket, dialler.fileno
    if protocol is None:
        connection.loseConnection()
    else:
        protocol.makeConnection(connection)


def adopt_tcp(descriptor: int, family: int, factory: IProtocolFactory, reactor: UvloopReactor) -> Connection | None:
    """A connection over a copy of a connected socket; ``None`` when the factory doesn't want it."""
    sock = socket.fromfd(descriptor, family, socket.SOCK_STREAM)
    peer = internet_address(sock.getpeername())
    protocol = factory.buildProtocol(peer)
    if protocol is None:
        sock.close()
        return None
    client = (peer.host, *sock.getpeername()[1:])  # the host with its scope
    connection = TcpServerConnection(sock, protocol, client, None, peer.port, reactor)
    protocol.makeConnection(connection)
    return connection


def internet_address(address: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """A socket's address as Twisted's; the host of an IPv6 address carries its scope, if it has one."""
    if len(address) == 2:
        return IPv4Address("TCP", *address)
    host = socket.getnameinfo(cast("Any", address), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return IPv6Address("TCP", host, *address[1:])
