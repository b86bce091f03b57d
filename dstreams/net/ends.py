"""The two kinds of connection: accepted ones and dialled ones.

Listening, accepting and dialling are Twisted's own: binding, adopted descriptors, running out of descriptors,
name resolution, time-outs, and the exceptions for all of these. Only connected sockets are handed to uvloop.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from dstreams.net.connection import Connection

if TYPE_CHECKING:
    from dstreams.net.reactor import UvloopReactor


class ServerConnection(Connection):
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
        client: Any,
        server: object,
        sessionno: int,
        reactor: UvloopReactor,
    ) -> None:
        self.client = client
        self.server = server
        self.sessionno = sessionno
        super().__init__(sock, protocol, reactor)

    @property
    def hostname(self) -> Any:
        """The peer's address without its port."""
        return self.client[0]

    def logPrefix(self) -> str:
        return f"{super().logPrefix()},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        if self.disconnected:
            return f"<{type(self).__name__} #{self.sessionno}, closed>"
        return f"<{type(self.protocol).__name__} #{self.sessionno} on {self._place()}>"

    def _place(self) -> object:
        """The port that has accepted it."""
        return self.socket.getsockname()


class ClientConnection(Connection):
    """A connection that was dialled.

    :param dialler: Twisted's client, which has connected.
    """

    __slots__ = ("addr", "connector", "peer")

    _tlsClientDefault = True

    def __init__(self, dialler: Any, protocol: IProtocol) -> None:
        self.connector = dialler.connector
        self.peer: IAddress = dialler.getPeer()
        self.addr = dialler.addr
        """The address that was dialled; it may be a name."""
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


def hand_over(dialler: Any, kind: type[ClientConnection], protocol: IProtocol | None) -> None:
    """Replace a client that has connected by a connection.

    :param protocol: what its factory has built.
    """
    dialler.connected = True  # it can't fail any more
    connection = dialler.connector.transport = kind(dialler, Protocol() if protocol is None else protocol)
    del dialler.socket, dialler.fileno
    if protocol is None:
        connection.loseConnection()
    else:
        protocol.makeConnection(connection)
