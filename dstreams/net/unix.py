"""UNIX sockets: Twisted's ports and connectors, with this package's connections.

Descriptors can be sent. uvloop can't receive any, so a protocol that says it wants them
(``IFileDescriptorReceiver``) gets Twisted's own transport.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from attrs import define, field
from twisted.internet import unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost, FileDescriptorOverrun
from twisted.internet.interfaces import IFileDescriptorReceiver, IProtocol, IProtocolFactory, IUNIXTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.net.connection import Connection, prefix_of
from dstreams.net.ends import ClientConnection, ServerConnection, hand_over
from dstreams.net.sending import HIGH_WATER_BYTES

if TYPE_CHECKING:
    from dstreams.net.reactor import UvloopReactor

_RETRY_SECONDS = 0.01

_MAX_DESCRIPTORS = 64
"""Number of unsent descriptors above which a producer is paused, as on Twisted's own transports."""


@define
class _Passing:
    """Descriptors to be sent, each together with one byte.

    :param data: what was written since the first of them was given.
    """

    descriptors: deque[int] = field(factory=deque)
    data: bytearray = field(factory=bytearray)


@implementer(IUNIXTransport)
class UnixConnection(Connection):
    """The common part of both kinds of UNIX connections."""

    __slots__ = ()

    _passing: _Passing | None = None

    def getHost(self) -> Any:
        return UNIXAddress(self.socket.getsockname())

    def getTcpNoDelay(self) -> bool:
        """Return ``False``: UNIX sockets have no such option."""
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: UNIX sockets have no such option."""

    def sendFileDescriptor(self, descriptor: int) -> None:
        """Send a copy of a descriptor together with a byte that is written later in this turn.

        When there are fewer bytes than descriptors, the connection is lost with ``FileDescriptorOverrun``.
        """
        if self._passing is None:
            self._passing = _Passing()
            self._redirect()
            self.reactor.soon(self._pass_descriptors)
        self._passing.descriptors.append(descriptor)
        self._pause_when_many_wait(self._passing)

    def _redirect(self) -> None:
        super()._redirect()
        if self._passing is not None and self.connected and not self._aborting and not self._writing_ended:
            self._send = self._write = self._hold_beside

    def _go_on(self) -> None:
        if self._passing is None:
            super()._go_on()

    def _hold_beside(self, data: bytes) -> None:
        """Send bytes after the descriptors."""
        assert self._passing is not None
        self._passing.data += data
        self._pause_when_many_wait(self._passing)

    def _pause_when_many_wait(self, passing: _Passing) -> None:
        if len(passing.descriptors) > _MAX_DESCRIPTORS or len(passing.data) > HIGH_WATER_BYTES:
            self._pause_producer()

    def _pass_descriptors(self) -> None:
        passing = self._passing
        if passing is None or not self.connected or self._aborting:
            return
        if len(passing.descriptors) > len(passing.data):
            self.connectionLost(Failure(FileDescriptorOverrun()))
            return
        # Nobody tells when uvloop's socket takes more; this is rare enough to look again and again.
        if self._transport is None or self._transport.get_write_buffer_size() or not self._passed(passing):
            if self.connected:
                self.reactor.callLater(_RETRY_SECONDS, self._pass_descriptors)
            return
        self._passing = None
        self._redirect()
        self._send(bytes(passing.data))
        self._check_soon()

    def _passed(self, passing: _Passing) -> bool:
        """Send the descriptors. Return whether the socket has accepted all of them."""
        while passing.descriptors:
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", passing.descriptors[0]))]
            try:
                self.socket.sendmsg([passing.data[:1]], beside, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                self.connectionLost(Failure(ConnectionLost()))
                return False
            passing.descriptors.popleft()
            del passing.data[:1]
        return True


class UnixServerConnection(UnixConnection, ServerConnection):
    """A connection accepted on a UNIX socket."""

    __slots__ = ()

    @property
    def hostname(self) -> Any:
        """The path that the peer is bound to, which is usually empty."""
        return self.client

    def getPeer(self) -> Any:
        return UNIXAddress(self.client or None)

    def logPrefix(self) -> str:
        if self.server is None and self.connected:  # adopted: nobody knows by which path it came
            return f"{prefix_of(self.protocol)},{self.sessionno},{self.socket.getsockname()}"
        return super().logPrefix()


class UnixClientConnection(UnixConnection, ClientConnection):
    """A connection dialled over a UNIX socket."""

    __slots__ = ()

    def getHost(self) -> Any:
        return UNIXAddress(None)


def _receives_descriptors(protocol: object) -> bool:
    return bool(IFileDescriptorReceiver.providedBy(protocol))


def _accepted(
    sock: socket.socket, protocol: IProtocol, client: Any, server: Any, sessionno: int, reactor: UvloopReactor
) -> object:
    kind: Any = unix.Server if _receives_descriptors(protocol) else UnixServerConnection
    return kind(sock, protocol, client, server, sessionno, reactor)


class UnixPort(unix.Port):
    """Twisted's port, with this package's connections."""

    transport = cast("Any", staticmethod(_accepted))


class UnixConnector(unix.Connector):
    """Twisted's connector, with this package's connections."""

    def _makeTransport(self) -> Any:
        return _Dialler(self.address, self, self.reactor, self.checkPID)


class _Dialler(unix.Client):
    """Twisted's client until it is connected; permanently, if the protocol receives descriptors."""

    def _connectDone(self) -> None:
        protocol: Any = self.connector.buildProtocol(self.getPeer())
        if not _receives_descriptors(protocol):
            hand_over(self, UnixClientConnection, protocol)
            return
        self.protocol = protocol
        self.connected = 1
        self.logstr = f"{self._getLogPrefix(protocol)},client"
        self.startReading()
        protocol.makeConnection(self)


def adopt_unix(descriptor: int, factory: IProtocolFactory, reactor: UvloopReactor) -> object:
    """Return a connection over a copy of a connected socket, or ``None`` if the factory returns no protocol."""
    sock = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)
    protocol = factory.buildProtocol(UNIXAddress(sock.getsockname()))
    if protocol is None:
        sock.close()
        return None
    connection = _accepted(sock, protocol, sock.getpeername(), None, 0, reactor)
    protocol.makeConnection(cast("Any", connection))
    return connection
