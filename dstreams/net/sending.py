"""The sending half of a connection: where writes go, when producers are paused, and when all is sent.

Where a write goes is decided ahead, not in each write: ``_send`` is the function for the present state.

=====================  ==========================================================================================
``_hold``              uvloop hasn't got the socket yet
uvloop's own           the usual
``_send_watched``      somebody waits for all to be sent: a pull producer, or an end that was asked for
``_send_when_full``    uvloop has asked for a pause: a streaming producer that goes on is told again
``_drop``              nothing is sent any more
=====================  ==========================================================================================
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from dstreams.net.reactor import UvloopReactor

_log = Logger()

HIGH_WATER_BYTES = 65536
"""Number of unsent bytes above which a producer is paused, as on Twisted's own transports."""


class SendingHalf:
    """The part of a connection that sends, and the state that both parts use.

    :param sock: a connected socket.
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
        """The transport of uvloop, from the time when it has the socket until the connection is lost."""
        self._held: bytearray | None = bytearray()
        self._send: Callable[[bytes], object] = self._hold
        """Sends bytes below TLS."""
        self._write: Callable[[bytes], object] = self._hold
        """Sends the application's bytes: the same without TLS, else the TLS protocol's ``write``."""
        self._full = False
        """Whether uvloop has asked for a pause."""
        self._watched = False
        """Whether something waits until everything is sent."""
        self._check_is_due = False
        self._writing_ends = self._writing_ended = False
        self._aborting = False

    def loseConnection(self) -> None:
        """Close when everything is sent and the producer has finished."""
        raise NotImplementedError

    def connectionLost(self, reason: Failure) -> None:
        """End the connection."""
        raise NotImplementedError

    # -- what uvloop tells

    def _begin_sending(self) -> None:
        """Send the bytes written before uvloop had the socket, and apply requests to close made meanwhile."""
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES, 0)
        held, self._held = self._held, None
        self._redirect()
        if held:
            self._transport.write(held)
        if self._watched or self.disconnecting or self._writing_ends:
            self._watch()
            self._check_soon()
        elif self.producerPaused and not self._full:
            self.reactor.soon(self._go_on)

    def pause_writing(self) -> None:
        """Pause the producer, because too many bytes are unsent."""
        self._full = True
        self._redirect()
        # uvloop asks again when its limits change, as they do when a connection begins to be watched.
        if not self.producerPaused:
            self._pause_when_much_waits()

    def resume_writing(self) -> None:
        """Resume the producer, because everything has been sent."""
        self._full = False
        if not self.disconnected:
            self._redirect()
            self._go_on()

    # -- ITransport, ITCPTransport

    def write(self, data: bytes) -> None:
        """Send bytes, after those written before."""
        self._write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces, with one system call where that is possible."""
        try:
            data = b"".join(iovec)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self._write(data)

    def send_file(self, descriptor: int, offset: int, size: int) -> int:
        """Have the kernel send bytes of a file from its page cache, as many as the socket takes now.

        For half the processor time of reading and writing them, or less (docs/explanation/performance.md). It waits for
        the disk where they aren't in the page cache.

        :param descriptor: the file's.
        :param offset: where the bytes begin in it; ``size`` how many there are.
        :return: how many were sent; 0 when they have to be written: because something else is still to be sent, because
            the socket is full, or because the connection isn't what it should be, which writing will tell.
        """
        transport = self._transport
        if transport is None or self._write != transport.write or transport.get_write_buffer_size():
            return 0
        try:
            return os.sendfile(self.socket.fileno(), descriptor, offset, size)
        except OSError:
            return 0

    def loseWriteConnection(self) -> None:
        """Half-close the connection when everything is sent."""
        self._writing_ends = True
        if self._transport is not None:
            self._watch()
            self._check_soon()

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
        """Remove the producer, because it has finished."""
        if self.TLS:
            self.protocol.unregisterProducer()
        else:
            self._unregister()

    def stopConsuming(self) -> None:
        """Close the connection, because the producer has failed."""
        self.unregisterProducer()
        self.loseConnection()

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes written that are still in this process. No interface of Twisted has this."""
        if self._transport is None:
            return len(self._held or b"")
        waiting: int = self._transport.get_write_buffer_size()
        return waiting

    @property
    def is_writing(self) -> bool:
        """Whether there are unsent bytes."""
        return self.unsent_bytes > 0

    # -- the present state

    def _redirect(self) -> None:
        """Set ``_send`` to the function for the current state."""
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
        """Keep bytes until uvloop has the socket."""
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
        """Check in the next turn whether everything has been sent, because more may be written until then."""
        if not self._check_is_due:
            self._check_is_due = True
            self.reactor.soon(self._check)

    def _check(self) -> None:
        self._check_is_due = False
        transport = self._transport
        if transport is not None and not transport.get_write_buffer_size():
            self._go_on()

    def _go_on(self) -> None:
        """Ask the producer for more, or close if that was requested, because everything is sent."""
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


def _drop(data: bytes) -> None:
    """Discard bytes, because the connection is closing."""
    memoryview(data)  # whatever it would have been: bytes only
