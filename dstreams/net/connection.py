"""A Twisted transport over a uvloop transport.

Twisted's own transports are told that a descriptor is ready and then call ``recv`` and ``send`` from Python.
Here uvloop does both: it hands received bytes straight to the protocol's ``dataReceived``, and ``write`` is one
Python frame above uvloop's own, which sends at once what the socket takes.

uvloop takes a socket over one turn of its loop after it was accepted or dialled. What is asked of the connection
until then is kept, and done when the transport comes (``connection_made``).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import _newtls as newtls
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.net.sending import SendingHalf

if TYPE_CHECKING:
    from dstreams.net.reactor import UvloopReactor

_log = Logger()

_DONE = Failure(ConnectionDone())
_LOST = Failure(ConnectionLost())

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with time 0: closing sends a reset and discards unsent bytes."""


@implementer(ITCPTransport, ITLSTransport, IConsumer, IPushProducer, ISystemHandle, ILoggingContext)
class Connection(SendingHalf):
    """One stream connection; subclasses know its addresses.

    To uvloop it is the asyncio protocol of its transport.

    :param sock: a connected socket. uvloop closes it.
    :param protocol: what the connection talks to.
    :param reactor: the reactor that it belongs to.
    """

    __slots__ = ("_kept", "_reading", "_reading_ended", "_reason")

    _tlsClientDefault = False

    def __init__(self, sock: socket.socket, protocol: IProtocol, reactor: UvloopReactor) -> None:
        super().__init__(sock, protocol, reactor)
        self._reading = True
        self._reading_ended = False
        self._kept: list[bytes] | None = None
        """Bytes that uvloop has read although reading is paused."""
        self._reason: Failure | None = None
        reactor.adopt(self)

    # -- what uvloop tells

    @property
    def data_received(self) -> Callable[[bytes], object]:
        """The function that uvloop calls with received bytes. uvloop reads this property once, when the protocol is
        set.
        """
        return self._keep if self._kept is not None else cast("Callable[[bytes], object]", self.protocol.dataReceived)

    def connection_made(self, transport: Any) -> None:
        """Apply what has happened since uvloop was asked to take over the socket."""
        if self.disconnected or self._aborting:
            transport.abort()
            return
        self._transport = transport
        if not self._reading or self.disconnecting:
            # uvloop begins to read when this returns, whatever it is told here.
            self._kept = []
            transport.set_protocol(self)
        self._begin_sending()

    def connection_lost(self, exception: BaseException | None) -> None:
        """Note that uvloop closes the socket when this returns."""
        if self.disconnected:
            self._transport = None
            return
        reason = self._reason
        if reason is None:
            if exception is None:
                reason = _DONE
            elif exception.__traceback__ is None:
                # Made by uvloop from an error number; one with a traceback was raised by the protocol.
                reason = _LOST
            else:
                reason = Failure(exception, type(exception), exception.__traceback__)
                if isinstance(exception, OSError):  # all others are reported by uvloop
                    _log.failure("an exception ends a connection", reason)
        self.reactor.end(self, reason)

    def await_end(self) -> None:
        """Stop using the socket, which uvloop has closed; :meth:`connectionLost` follows in a later turn."""
        self._aborting = True
        self._transport = self._held = self._kept = None
        self._reading = False
        self._redirect()

    def eof_received(self) -> bool:
        """Handle the end of the input. Return ``True``, so that uvloop does not close the connection itself."""
        if self._kept is not None:
            self._kept.append(b"")
            return True
        self._reading_ended = True
        half_closeable: Any = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is None:
            self.connectionLost(_DONE)
        else:
            self._call(half_closeable.readConnectionLost)
        return True

    # -- ITransport

    def loseConnection(self) -> None:
        """Close when everything is sent and the producer has finished."""
        if not self.TLS:
            self._lose()
        elif self.connected and not self.disconnecting:
            self.protocol.loseConnection()

    def abortConnection(self) -> None:
        """Close immediately with a reset, and discard unsent bytes."""
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self._reason = Failure(ConnectionAborted())
        self._reading = False
        self._redirect()
        self._reset_on_close()
        if self._transport is not None:
            self._transport.abort()

    def getHost(self) -> Any:
        """The local address."""
        raise NotImplementedError

    def getPeer(self) -> Any:
        """The peer's address."""
        raise NotImplementedError

    # -- ITCPTransport, ITLSTransport, ISystemHandle

    def getTcpNoDelay(self) -> bool:
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """Use TLS from now on."""
        newtls.startTLS(self, contextFactory, normal, _BelowTls)
        self._write = self.protocol.write
        if self._transport is not None:
            self._transport.set_protocol(self)

    def getHandle(self) -> socket.socket:
        """The socket, for reading and setting its options."""
        return self.socket

    def fileno(self) -> int:
        """The socket's descriptor, -1 when it is closed."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return prefix_of(self.protocol)

    @property
    def logstr(self) -> str:
        """The same as on Twisted's connections."""
        return self.logPrefix()

    # -- IPushProducer: the connection as the producer of what it receives

    def pauseProducing(self) -> None:
        """Read nothing until :meth:`resumeProducing`."""
        self._reading = False
        if self._transport is not None:
            self._transport.pause_reading()

    def resumeProducing(self) -> None:
        """Read again, unless the connection is being closed or the peer has finished."""
        if not self.connected or self.disconnecting or self._reading_ended:
            return
        self._reading = True
        if self._kept is not None:
            self.reactor.soon(self._deliver_kept)
        elif self._transport is not None:
            self._transport.resume_reading()

    def stopProducing(self) -> None:
        """Close the connection, because received bytes are not needed any more."""
        self.loseConnection()

    # What Twisted's FileDescriptor calls the same two.
    stopReading = pauseProducing
    startReading = resumeProducing

    @property
    def is_reading(self) -> bool:
        """Whether reading is not paused."""
        return self._reading and self.connected and not self.disconnecting and not self._reading_ended

    # -- the end

    def connectionLost(self, reason: Failure) -> None:
        """Notify the producer and the protocol, and release the socket. A second call does nothing.

        The reactor calls it when it stops, with connections still open.
        """
        if self.disconnected:
            return
        self.disconnected, self.connected = True, False
        transport, self._transport = self._transport, None
        self.reactor.forget(self)
        self._held = self._kept = None
        self._redirect()
        producer, self.producer = self.producer, None
        if producer is not None:
            _guarded(producer.stopProducing)
        if not self._aborting:
            # Not left to uvloop, which closes the descriptor only later: the peer shall know now.
            self._shut_down(socket.SHUT_RDWR)
        if transport is not None:
            transport.abort()
        protocol = self.protocol
        try:
            protocol.connectionLost(reason)
        except BaseException:
            _log.failure("connectionLost failed")
        self.protocol = None

    def _lose(self) -> None:
        if not self.connected or self.disconnecting:
            return
        self.disconnecting = True
        if self._transport is not None:
            self._transport.pause_reading()
            self._watch()
            self._check_soon()

    def _reset_on_close(self) -> None:
        with suppress(OSError):  # it is closed already
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    # -- reading

    def _keep(self, data: bytes) -> None:
        """Keep bytes received while reading is paused, in the turn in which uvloop took over the socket."""
        if self._kept is not None:
            self._kept.append(data)
            self._transport.pause_reading()

    def _deliver_kept(self) -> None:
        """Continue to read, beginning with the kept bytes; ``b""`` stands for the end of the input."""
        kept = self._kept
        while kept and self.is_reading:
            data = kept.pop(0)
            if data:
                self._call(self.protocol.dataReceived, data)
            else:
                self._kept = None
                self.eof_received()
        # Both may have happened in the calls: being asked once more to resume, and the end.
        if self._kept is not None and self.is_reading:
            self._kept = None
            self._transport.set_protocol(self)
            self._transport.resume_reading()


class _BelowTls:
    """The methods that TLS calls on the connection below it, as functions that take the connection."""

    @staticmethod
    def write(connection: Connection, data: bytes) -> None:
        connection._send(data)  # noqa: SLF001

    @staticmethod
    def writeSequence(connection: Connection, pieces: Iterable[bytes]) -> None:
        connection._send(b"".join(pieces))  # noqa: SLF001

    loseConnection = staticmethod(Connection._lose)  # noqa: SLF001
    registerProducer = staticmethod(Connection._register)  # noqa: SLF001
    unregisterProducer = staticmethod(Connection._unregister)  # noqa: SLF001


def prefix_of(thing: object) -> str:
    """Return a protocol's name for logs."""
    if thing is None:
        return "-"
    return thing.logPrefix() if ILoggingContext.providedBy(thing) else type(thing).__name__


def _guarded(function: Callable[[], object]) -> None:
    try:
        function()
    except BaseException:
        _log.failure("stopProducing failed")
