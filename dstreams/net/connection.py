"""A Twisted transport over a uvloop transport.

Twisted's own transports are told that a descriptor is ready and then call ``recv`` and ``send`` from Python.
Here uvloop does both: it hands received bytes straight to the protocol's ``dataReceived``, and ``write`` is one
Python frame above uvloop's own, which sends at once what the socket takes.

A connection's life::

    NEW ------> OPEN -----------> FINISHING -----> GONE
    accepted,   uvloop has the    asked to close,  the protocol knows
    or dialled  socket            still sending

uvloop takes a socket over one turn of its loop later. What is written until then is held back; the rest of the
state is kept here and applied when the transport comes (``connection_made``).

Where a write goes is decided ahead, not in each write: ``_send`` is the function for the present state.
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

if TYPE_CHECKING:
    from dstreams.net.reactor import UvloopReactor

_log = Logger()

HIGH_WATER_BYTES = 65536
"""A producer is paused when more than this is waiting to be sent, as on Twisted's own transports."""

_DONE = Failure(ConnectionDone())
_LOST = Failure(ConnectionLost())

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset and drops what wasn't sent."""


@implementer(ITCPTransport, ITLSTransport, IConsumer, IPushProducer, ISystemHandle, ILoggingContext)
class Connection:
    """One stream connection; subclasses know its addresses.

    To uvloop it is the asyncio protocol of its transport (``connection_made`` and what follows below).

    :param sock: a connected socket. uvloop closes it.
    :param protocol: what the connection talks to.
    :param reactor: the reactor that it belongs to.
    """

    # An idle connection should be small: there may be ten thousand. The dictionary exists for what TLS, or an
    # application, sets on the transport, and takes no room until then.
    __slots__ = (
        "TLS",
        "__dict__",
        "__weakref__",
        "_aborting",
        "_check_is_due",
        "_full",
        "_held",
        "_kept",
        "_reading",
        "_reading_ended",
        "_reason",
        "_send",
        "_transport",
        "_watched",
        "_write",
        "_writing_ended",
        "_writing_ends",
        "connected",
        "disconnected",
        "disconnecting",
        "producer",
        "producerPaused",
        "protocol",
        "reactor",
        "socket",
        "streamingProducer",
    )

    _tlsClientDefault = False

    def __init__(self, sock: socket.socket, protocol: IProtocol, reactor: UvloopReactor) -> None:
        self.socket: socket.socket = sock
        self.protocol: Any = protocol
        self.reactor = reactor
        self.connected = True
        self.disconnecting = self.disconnected = False
        self.producer: Any = None
        self.streamingProducer = self.producerPaused = False
        self.TLS = False
        self._transport: Any = None
        self._held: bytearray | None = bytearray()
        self._send: Callable[[bytes], object] = self._hold
        """Sends bytes below TLS."""
        self._write: Callable[[bytes], object] = self._hold
        """Sends the application's bytes: the same without TLS, else the TLS protocol's ``write``."""
        self._full = False
        """Whether uvloop has asked for a pause."""
        self._watched = False
        """Whether somebody waits for all to be sent: a pull producer, or the end."""
        self._check_is_due = False
        self._reading = True
        self._kept: list[bytes] | None = None
        self._reading_ended = False
        self._writing_ends = self._writing_ended = False
        self._aborting = False
        self._reason: Failure | None = None
        reactor.adopt(self)

    # -- the asyncio protocol that uvloop talks to

    @property
    def data_received(self) -> Callable[[bytes], object]:
        """What uvloop calls with received bytes; asked for once, when it is given a protocol."""
        return self._keep if self._kept is not None else cast("Callable[[bytes], object]", self.protocol.dataReceived)

    def connection_made(self, transport: Any) -> None:
        """uvloop has taken the socket over: apply what has happened meanwhile."""
        self._transport = transport
        if self.disconnected or self._aborting:
            transport.abort()
            return
        if not self._reading or self.disconnecting:
            # uvloop begins to read when this returns, whatever it is told here.
            self._kept = []
            transport.set_protocol(self)
        transport.set_write_buffer_limits(HIGH_WATER_BYTES, 0)
        held, self._held = self._held, None
        self._redirect()
        if held:
            transport.write(held)
        if self._watched or self.disconnecting or self._writing_ends:
            self._watch()
            self._check_soon()
        elif self.producerPaused and not self._full:
            self.reactor.soon(self._go_on)

    def connection_lost(self, exception: BaseException | None) -> None:
        """uvloop closes the socket when this returns."""
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
        self.connectionLost(reason)

    def eof_received(self) -> bool:
        """The peer sends nothing more; always ``True``: it is decided here what comes of it."""
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

    def pause_writing(self) -> None:
        """More waits to be sent than may."""
        self._full = True
        self._redirect()
        self._pause_when_much_waits()

    def resume_writing(self) -> None:
        """All has been sent."""
        self._full = False
        if not self.disconnected:
            self._redirect()
            self._go_on()

    # -- ITransport

    def write(self, data: bytes) -> None:
        """Send bytes, after those that were given before."""
        self._write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces, with one system call where that is possible."""
        try:
            data = b"".join(iovec)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self._write(data)

    def loseConnection(self) -> None:
        """Close when everything is sent and the producer has finished."""
        if not self.TLS:
            self._lose()
        elif self.connected and not self.disconnecting:
            self.protocol.loseConnection()

    def abortConnection(self) -> None:
        """Close now, with a reset; what wasn't sent is dropped."""
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
        """This end's address."""
        raise NotImplementedError

    def getPeer(self) -> Any:
        """The other end's address."""
        raise NotImplementedError

    # -- ITCPTransport

    def loseWriteConnection(self) -> None:
        """Tell the peer that nothing more comes, when everything is sent."""
        self._writing_ends = True
        if self._transport is not None:
            self._watch()
            self._check_soon()

    def getTcpNoDelay(self) -> bool:
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    # -- ITLSTransport

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """Speak TLS from now on."""
        newtls.startTLS(self, contextFactory, normal, _BelowTls)
        self._write = self.protocol.write
        if self._transport is not None:
            self._transport.set_protocol(self)

    # -- ISystemHandle, ILoggingContext

    def getHandle(self) -> socket.socket:
        """The socket, to look at and to set options of."""
        return self.socket

    def fileno(self) -> int:
        """The socket's descriptor, -1 when it is closed."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return prefix_of(self.protocol)

    @property
    def logstr(self) -> str:
        """What Twisted's connections call the same."""
        return self.logPrefix()

    # -- IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Ask ``producer`` for more when everything is sent; see IConsumer.

        :raise RuntimeError: another producer is registered.
        """
        if self.TLS:
            self.protocol.registerProducer(producer, streaming)
        else:
            self._register(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer has finished, or is no longer one."""
        if self.TLS:
            self.protocol.unregisterProducer()
        else:
            self._unregister()

    def stopConsuming(self) -> None:
        """The producer has lost its source."""
        self.unregisterProducer()
        self.loseConnection()

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
        """Nobody wants what is received."""
        self.loseConnection()

    # What Twisted's FileDescriptor calls the same two.
    stopReading = pauseProducing
    startReading = resumeProducing

    @property
    def is_reading(self) -> bool:
        """Whether what the peer sends is read."""
        return self._reading and not self.disconnecting and not self._reading_ended

    @property
    def is_writing(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._held or (self._transport is not None and self._transport.get_write_buffer_size()))

    # -- the end

    def connectionLost(self, reason: Failure) -> None:
        """Tell the producer and the protocol, and let go of the socket; called again, it does nothing.

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
        del self.protocol

    # -- writing

    def _redirect(self) -> None:
        """Point ``_send`` to the function for the present state."""
        if self.disconnected or self._aborting or self._writing_ended:
            send: Callable[[bytes], object] = _drop
        elif self._transport is None:
            send = self._hold
        elif self._full:
            send = self._send_when_full
        elif self._watched:
            send = self._send_watched
        else:
            send = self._transport.write
        self._send = send
        if not self.TLS:
            self._write = send
        elif self.disconnected:
            self._write = _drop

    def _hold(self, data: bytes) -> None:
        """Send when uvloop has the socket."""
        held = self._held
        assert held is not None
        held += data
        if len(held) > HIGH_WATER_BYTES:
            self._pause_producer()

    def _send_when_full(self, data: bytes) -> None:
        self._transport.write(data)
        self._pause_when_much_waits()

    def _send_watched(self, data: bytes) -> None:
        self._transport.write(data)
        self._check_soon()

    def _pause_when_much_waits(self) -> None:
        """Not at every pause that uvloop asks for: a watched connection has it ask for one at the first byte."""
        if self._transport.get_write_buffer_size() > HIGH_WATER_BYTES:
            self._pause_producer()

    def _pause_producer(self) -> None:
        if self.producer is not None and self.streamingProducer:
            self.producerPaused = True
            self.producer.pauseProducing()

    def _watch(self) -> None:
        """Have :meth:`_go_on` called from now on whenever all is sent, not only after a pause."""
        self._watched = True
        self._redirect()
        self._transport.set_write_buffer_limits(0)

    def _unwatch(self) -> None:
        self._watched = False
        self._redirect()
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES, 0)

    def _check_soon(self) -> None:
        """See in the next turn whether all has been sent: until then more may be written."""
        if not self._check_is_due:
            self._check_is_due = True
            self.reactor.soon(self._check)

    def _check(self) -> None:
        self._check_is_due = False
        transport = self._transport
        if transport is not None and not transport.get_write_buffer_size():
            self._go_on()

    def _go_on(self) -> None:
        """All is sent: ask the producer for more, or end what was asked to end."""
        producer = self.producer
        if producer is not None and (self.producerPaused or not self.streamingProducer):
            self.producerPaused = False
            self._call(producer.resumeProducing)
        elif self.disconnecting and self._transport is not None:
            self._transport.close()
        elif self._writing_ends and not self._writing_ended:
            self._end_writing()

    def _end_writing(self) -> None:
        self._writing_ended = True
        self._redirect()
        self._shut_down(socket.SHUT_WR)
        half_closeable: Any = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is not None:
            self._call(half_closeable.writeConnectionLost)

    def _lose(self) -> None:
        if not self.connected or self.disconnecting:
            return
        self.disconnecting = True
        if self._transport is not None:
            self._transport.pause_reading()
            self._watch()
            self._check_soon()

    def _register(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never unregistered."
            )
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer, self.streamingProducer, self.producerPaused = producer, streaming, False
        if not streaming:
            self._watched = True
            if self._transport is not None:
                self._watch()
                self._check_soon()
            producer.resumeProducing()

    def _unregister(self) -> None:
        pulled = self.producer is not None and not self.streamingProducer
        self.producer = None
        if not self.connected or self._transport is None:
            self._watched = False
        elif self.disconnecting or self._writing_ends:
            self._check_soon()
        elif pulled:
            self._unwatch()

    # -- reading

    def _keep(self, data: bytes) -> None:
        """Received although reading is paused: in the turn that uvloop took the socket over in."""
        if self._kept is not None:
            self._kept.append(data)
            self._transport.pause_reading()

    def _deliver_kept(self) -> None:
        """Reading goes on: first what was kept, with ``b""`` for the end."""
        kept = self._kept
        while kept and self._reading and self.connected and not self.disconnecting:
            data = kept.pop(0)
            if data:
                self._call(self.protocol.dataReceived, data)
            else:
                self._kept = kept = None
                self.eof_received()
        if self._reading and self.connected and not self.disconnecting:
            self._kept = None
            self._transport.set_protocol(self)
            self._transport.resume_reading()

    # -- what metrics ask

    @property
    def unsent_bytes(self) -> int:
        """What was written and waits in this process. No interface of Twisted's has this."""
        if self._transport is None:
            return len(self._held or b"")
        waiting: int = self._transport.get_write_buffer_size()
        return waiting

    # -- tools

    def _call(self, function: Callable[..., object], *args: object) -> None:
        """Call into the protocol or the producer; an exception ends the connection."""
        try:
            function(*args)
        except BaseException:
            failure = Failure()
            _log.failure("an exception ends a connection", failure)
            self.connectionLost(failure)

    def _shut_down(self, how: int) -> None:
        with suppress(OSError):  # the peer was faster
            self.socket.shutdown(how)

    def _reset_on_close(self) -> None:
        with suppress(OSError):  # it is closed already
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


class _BelowTls:
    """What TLS calls on the connection below it: functions that take the connection."""

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
    """How a protocol or a factory is called in logs."""
    return thing.logPrefix() if ILoggingContext.providedBy(thing) else type(thing).__name__


def _drop(data: bytes) -> None:
    """The connection takes no more."""
    memoryview(data)  # whatever it would have been: bytes only


def _guarded(function: Callable[[], object]) -> None:
    try:
        function()
    except BaseException:
        _log.failure("stopProducing failed")
