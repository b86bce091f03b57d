"""The HTTP/1.1 channel: reads requests from a connection's bytes and writes the responses, strictly in order.

A connection is in one of these phases::

    HEAD ----> BODY ----> RESPONDING ----> HEAD ...               the usual sequence
      |          |          ^    |
      |          |          |    +-------> DRAINING ---> HEAD     answered early; a short body is discarded
      +---------error-------+    |
                                 +-------> LINGERING --> CLOSING  the last response was written before the client
                                 |                                had sent everything
                                 +-----------------------------> CLOSING

``_serve`` is the only loop: it processes the input, and then writes. So pipelined requests neither recurse nor wait
for each other's writes.

A client that sends much at once gets a share of each turn of the reactor. What is left when the turn is over
(``TimerWheel.turn_is_over``) is postponed: nothing more is read, and the connection continues in the next turns, in
short steps that alternate with those of other connections (``TimerWheel.in_slices``).

A request is validated by its head while its body is incomplete (``Application.validate_head``). If it is rejected, the
rest of the body is discarded, because a connection that is closed with unread bytes is reset, and the reset destroys
the response.

The same bytes get the same responses however they are divided into segments. So it depends on the announced length of a
body, never on what has arrived, whether the connection survives an early response: bodies of up to ``drain_bytes`` are
discarded, and the connection stays open; for longer bodies, chunked bodies and those announced by ``Expect``, the head
is always validated first, and an early response ends the connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import Enum
from math import inf
from typing import Any, cast

from attrs import define, field
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    INegotiated,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.http.http1.framing import BodyTooLarge, FramingError
from dstreams.http.http1.head_cache import HeadCache
from dstreams.http.http1.heads import RequestHead
from dstreams.http.http1.output_buffer import OutputBuffer
from dstreams.http.http1.reader import RequestReader
from dstreams.http.http1.writer import CONTINUE, ResponseWriter
from dstreams.http.messages import Request, Response
from dstreams.http.transport.bodies import stop_body
from dstreams.http.transport.connections import Connections, HttpStatistics
from dstreams.http.transport.exchange import Exchange
from dstreams.http.transport.factories import ConnectionFactory
from dstreams.http.transport.heads import HeadFault
from dstreams.http.transport.limits import LARGE_READ_BYTES, LARGE_TLS_READ_BYTES, STEP_SECONDS, HttpLimits
from dstreams.http.transport.replies import DateLine
from dstreams.http.transport.sockets import Transport, unsent_bytes
from dstreams.runtime.pending import Pending, PendingCommit
from dstreams.runtime.timers import Deadline, TimerWheel, slice_end

_log = Logger()


class Phase(Enum):
    """The phase of a connection."""

    HEAD = "waiting for a request, or in the middle of its head"
    BODY = "reading a request's body"
    RESPONDING = "the application has the request, or its response is being sent"
    DRAINING = "discarding the rest of a body that was answered early"
    ENDING = "the last response is written; closed at the end of this turn"
    LINGERING = "nothing more is written; what the client still sends is discarded"
    CLOSING = "the transport has been asked to close"
    CLOSED = "gone"


# Bound once, because looking up a member in its class takes 0.15 us, about ten times a request.
_HEAD = Phase.HEAD
_BODY = Phase.BODY
_RESPONDING = Phase.RESPONDING
_DRAINING = Phase.DRAINING
_ENDING = Phase.ENDING
_LINGERING = Phase.LINGERING
_CLOSING = Phase.CLOSING
_CLOSED = Phase.CLOSED


@implementer(IHalfCloseableProtocol, IPushProducer)
@define(eq=False)
class HttpChannel(protocol.Protocol):
    """One HTTP/1.1 connection.

    :param exchange: asks the application.
    :param wheel: timers, and the clock for durations.
    :param limits: limits on what a client may send, and how slowly.
    :param date: the ``Date`` header, shared by all connections.
    :param connections: the set that this connection belongs to.
    :param head_cache: parses the heads of requests, and caches them.
    """

    _exchange: Exchange
    _wheel: TimerWheel
    _limits: HttpLimits
    _date: DateLine
    _connections: Connections
    _head_cache: HeadCache

    # Per connection.
    _phase: Phase = field(default=_HEAD, init=False)
    _transport: Transport = field(init=False)
    _half_closeable: ITCPTransport | None = field(default=None, init=False)
    _scheme: bytes = field(default=b"http", init=False)
    _peer: str = field(default="", init=False)
    _large_read: int = field(default=LARGE_READ_BYTES, init=False)
    """Longer segments count as work of a turn."""
    _reader: RequestReader = field(init=False)
    _output: OutputBuffer = field(init=False)
    _writer: ResponseWriter = field(init=False)
    _deadline: Deadline = field(init=False)
    _most_unjudged: int = field(init=False)
    """Maximum length of a body that is not validated early if it has arrived together with its head."""
    _registered: bool = field(default=False, init=False)
    """Whether the channel is registered as the transport's producer."""
    _reading_paused: bool = field(default=False, init=False)
    _blocked_since: float = field(default=0.0, init=False)
    _retiring: bool = field(default=False, init=False)
    """Whether the next response is the last one."""
    _finishing: bool = field(default=False, init=False)
    """Whether the server is shutting down, so that idle connections are closed."""
    _postponed: bool = field(default=False, init=False)
    """Whether work is postponed to later turns of the reactor. Nothing is read until then."""
    _postponed_at: float = field(default=0.0, init=False)

    # Per request.
    _request: Request | None = field(default=None, init=False)
    _pending: Deferred[Response] | PendingCommit[Response] | None = field(default=None, init=False)
    """The application's response, while it is pending."""
    _asked_at: float = field(default=0.0, init=False)
    """The time at which the head was complete; set only if there is an observer."""
    _until: float = field(default=inf, init=False)
    """The deadline for a head, or for the rest of a body that is discarded."""
    _body_since: float = field(default=0.0, init=False)
    _held: int = field(default=0, init=False)
    """The number of bytes of its body that the upload budget counts."""
    _unread: int = field(default=0, init=False)
    """The number of bytes still to be discarded."""
    _linger: bool = field(default=False, init=False)
    """Whether the client may still be sending after the last response."""

    # -- called by the listener

    @property
    def is_reading(self) -> bool:
        """Whether a request is incomplete."""
        return self._phase is _BODY or (self._phase is _HEAD and self._reader.available > 0)

    @property
    def is_responding(self) -> bool:
        """Whether the application's response is pending."""
        return self._pending is not None

    @property
    def is_streaming(self) -> bool:
        """Whether a streamed body is being sent."""
        return self._writer.body is not None

    @property
    def is_stalled(self) -> bool:
        """Whether the client is slower than the server."""
        return self._output.blocked

    @property
    def http_version(self) -> str:
        """The HTTP version of the current request."""
        return self._writer.version

    @property
    def peer(self) -> str:
        """The address of the peer."""
        return self._peer

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes written that are still in this process."""
        return unsent_bytes(self._transport)

    def retire(self) -> None:
        """Make the current response the last one, or the next one if there is none.

        Requests that have arrived and are postponed are still answered.
        """
        self._retiring = True
        if self._phase is _RESPONDING or self._phase is _BODY:
            self._writer.keep_alive = not self._is_last(0)

    def finish(self) -> None:
        """Close after the current response; if there is none, after a request that is already on its way."""
        self.retire()
        self._finishing = True
        if self._phase is _HEAD and not self._output.corked:
            self._serve()

    def abort(self) -> None:
        """Close immediately."""
        self._transport.abortConnection()

    # -- called by the transport

    def connectionMade(self) -> None:
        """Initialize the connection, and start to wait for a request."""
        transport = self._transport = cast("Transport", self.transport)
        secure = ISSLTransport.providedBy(transport) or INegotiated.providedBy(transport)
        if ITCPTransport.providedBy(transport):
            tcp = cast("ITCPTransport", transport)
            tcp.setTcpNoDelay(True)
            # TLS has no half-close, and its transport would forward one to the socket below it.
            self._half_closeable = None if secure else tcp
        self._scheme = b"https" if secure else b"http"
        self._large_read = LARGE_TLS_READ_BYTES if secure else LARGE_READ_BYTES
        self._peer = _text_address(transport.getPeer())
        self._reader = RequestReader(self._limits, self._head_cache)
        self._most_unjudged = min(self._limits.drain_bytes, self._exchange.application.max_body_bytes)
        self._output = OutputBuffer(transport)
        self._writer = ResponseWriter(self._output, self._date, self._response_ended, self._wheel, self._continue_body)
        self._deadline = Deadline(self._wheel, self._deadline_passed)
        # Not only for streamed bodies: a client that sends requests and reads no responses must not fill the
        # transport's buffer either.
        transport.registerProducer(self, True)
        self._registered = True
        self._connections.live.add(self)
        self._deadline.move(self._wheel.seconds() + self._limits.idle_timeout)

    def dataReceived(self, data: bytes) -> None:
        """Process the received bytes."""
        phase, output = self._phase, self._output
        if phase is _HEAD and not self._reader.buffered and not output.corked and not output.blocked:
            end = data.find(b"\r\n\r\n") + 4
            head = self._head_cache.known.get(data[:end]) or self._head_cache.recognize(data[:end])
            # Requests that must be validated by their heads first take the slow path; see the module's docstring.
            if (
                head is not None
                and len(data) - end == head.content_length
                and head.content_length <= self._most_unjudged
                and not head.expects_continue
            ):
                self._serve_whole(head, data[end:])
                return
        if phase is _LINGERING:
            self._drop(len(data))
        elif phase is not _CLOSING and phase is not _CLOSED:
            self._reader.feed(data)
            if not output.corked and not self._postponed:
                self._serve()
        if len(data) > self._large_read and self._wheel.turn_is_over():
            self._postpone()

    def readConnectionLost(self) -> None:  # noqa: N802 (Twisted's name)
        """Note that the client will send nothing more; it may still read."""
        self._reader.ended = True
        if self._wheel.turn_is_over():  # many clients have left at once
            self._wheel.take_turn(self._input_ended)
        else:
            self._input_ended()

    def _input_ended(self) -> None:
        """Close the connection, or finish what is in progress, after the end of the input."""
        if self._phase is _CLOSED:
            return
        if self._phase is _LINGERING:
            self._lose()
        elif self._phase is _RESPONDING:
            self._give_up_waiting()
        elif not self._output.corked and not self._postponed:
            self._serve()

    def writeConnectionLost(self) -> None:  # noqa: N802 (Twisted's name)
        """Do nothing: the half-close was requested here."""

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:  # noqa: ARG002 (Twisted's)
        """Release everything, because the connection is closed."""
        self._phase = _CLOSED
        self._registered = False
        # Dropping callbacks cuts reference cycles: a closed connection is freed at once, not by the garbage collector.
        self._deadline.close()
        self._reader.clear()
        self._free_body()
        self._writer.close()
        pending, self._pending = self._pending, None
        if pending is not None:
            self._abandoned()
        if isinstance(pending, Deferred):
            pending.cancel()
        self._connections.lost(self)

    def _abandoned(self) -> None:
        observer, request = self._connections.observer, self._request
        if observer is not None and request is not None:
            observer.abandoned(request, self._asked_at, self)

    def pauseProducing(self) -> None:
        """Pause writing, because the client is slower than the server."""
        if not self._output.blocked:
            self._output.blocked = True
            self._blocked_since = self._wheel.seconds()
            if not self._output.corked:
                self._settle()

    def resumeProducing(self) -> None:
        """Continue writing, because the client has received what was sent."""
        self._output.blocked = False
        self._continue_body()

    def _continue_body(self) -> None:
        """Send more of a streamed body, and if it ends, process the next request."""
        corked = self._output.cork()
        self._writer.resume()
        if not corked:
            self._serve()

    def stopProducing(self) -> None:
        """Do nothing: :meth:`connectionLost` follows."""

    # -- turns

    def _serve(self, over: Callable[[], bool] | None = None) -> bool:
        """Process the input and send the responses, as far as time and a slow client allow.

        :param over: returns whether the time is over; by default at the end of the reactor's turn.
        :return: whether work was postponed.
        """
        output = self._output
        output.corked = True
        held_up, more = True, False
        while held_up:
            more = self._take_steps(over or self._wheel.turn_is_over)
            held_up = output.blocked
            # Still corked, so that the channel is not closed inside this write if the transport asks for a pause.
            output.flush()
            held_up = held_up and not output.blocked
        output.corked = False
        if more and not output.blocked:
            self._postpone()
            return True
        self._settle()
        return False

    def _serve_whole(self, head: RequestHead, body: bytes) -> None:
        """Process a segment that is exactly one request with a cached head.

        It does the same as :meth:`_serve`, and saves 1.1 us of 5.6 (``python -m bench.application``).
        """
        output = self._output
        output.corked = True
        request = self._request = head.request(self._scheme, self._peer)
        request.body = body
        self._reader.blank_lines = 0
        if self._connections.observer is not None:
            self._asked_at = time.perf_counter()
        self._writer.begin(head.method == b"HEAD", head.is_1_0, head.keep_alive and not self._retiring)
        self._respond(request)
        if self._pending is None or output.blocked:
            output.flush()
            output.corked = False
            self._settle()
        else:
            output.corked = False  # nothing is written, and no deadline applies now

    def _take_steps(self, over: Callable[[], bool]) -> bool:
        """Process the input. Return whether this ended because the time was over."""
        while not self._output.blocked:
            phase = self._phase
            if phase is _HEAD:
                goes_on = self._reader.has_more and self._read_head()
            elif phase is _BODY:
                goes_on = self._read_body()
            elif phase is _DRAINING:
                goes_on = self._drain()
            else:
                return False
            if not goes_on:
                return False
            phase = self._phase
            may_wait = phase is _HEAD or (phase is _BODY and self._reader.body_paused)
            if may_wait and over():
                return True
        return False

    # -- later turns

    def _postpone(self) -> None:
        """Postpone work to the next turns. Until then nothing is read, and no deadline of the client runs."""
        phase = self._phase
        if self._output.blocked or phase is _ENDING or phase is _CLOSING or phase is _CLOSED:
            return
        if phase is not _LINGERING:
            self._deadline.move(inf)
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pauseProducing()
        if not self._postponed:
            self._postponed = True
            self._postponed_at = self._wheel.seconds()
            self._connections.postponed += 1
            self._wheel.in_slices(self._continue()).addErrback(self._continuing_failed)

    def _continue(self) -> Iterator[None]:
        """Do the postponed work step by step."""
        while self._take_step():
            yield
        self._postponed = False

    def _take_step(self) -> bool:
        """Do a part of the postponed work. Return whether there is more."""
        phase = self._phase
        if phase is _CLOSED or phase is _CLOSING or self._output.blocked:
            return False  # the rest is processed when the client has received its responses
        if phase is _LINGERING:
            if self._unread >= 0:
                self._go_on_reading()
            return False
        now = self._wheel.seconds()
        waited, self._postponed_at = now - self._postponed_at, now
        self._body_since += waited
        self._until += waited
        return self._serve(slice_end(STEP_SECONDS))

    def _continuing_failed(self, failure: Failure) -> None:
        self._postponed = False
        _log.failure("serving what was postponed failed", failure)
        self._transport.abortConnection()

    # -- the end of a turn

    def _settle(self) -> None:
        """Set the deadline at the end of a turn, for whatever comes next."""
        phase = self._phase
        if self._reader.trim() and phase is _HEAD and not self._output.blocked:
            if self._finishing or self._reader.ended:
                self._end_idle()
            else:
                self._deadline.move(self._wheel.seconds() + self._limits.idle_timeout)
                if self._reading_paused:
                    self._go_on_reading()
        elif phase is _ENDING:
            self._end_connection()
        elif phase in (_HEAD, _BODY, _RESPONDING, _DRAINING):
            self._settle_midway(phase)

    def _settle_midway(self, phase: Phase) -> None:
        """As :meth:`_settle`, in the middle of a request or a response."""
        limits, now = self._limits, self._wheel.seconds()
        if self._output.blocked:
            self._deadline.move(self._blocked_since + limits.stall_timeout)
        elif phase is _HEAD:
            if self._until == inf:
                self._until = now + limits.head_timeout
            if self._finishing:
                # The beginning of a head is not a request yet, so it delays the shutdown only a little.
                self._until = min(self._until, now + limits.last_head_timeout)
            self._deadline.move(self._until)
        elif phase is _BODY:
            elapsed = now - self._body_since
            if elapsed > limits.body_timeout and self._reader.body_received < limits.min_body_rate * elapsed:
                self._time_out(f"A request body must arrive at {limits.min_body_rate} bytes per second")
                return
            self._deadline.move(now + limits.body_timeout)
        else:
            self._deadline.move(self._until if phase is _DRAINING else inf)
        self._bound_input(phase is _RESPONDING or self._output.blocked)

    def _bound_input(self, waiting: bool) -> None:
        """Limit the bytes read ahead while a response is pending, or while the client does not receive it."""
        if not waiting or self._reader.available <= self._limits.read_ahead_bytes:
            if self._reading_paused:
                self._go_on_reading()
        elif not self._reading_paused:
            self._reading_paused = True
            self._transport.pauseProducing()

    def _go_on_reading(self) -> None:
        self._reading_paused = False
        if not self._reader.ended:
            self._transport.resumeProducing()

    def _deadline_passed(self) -> None:
        phase = self._phase
        if phase is _CLOSING:
            self._transport.abortConnection()
        elif phase is _LINGERING or phase is _DRAINING:
            self._lose()
        elif self._output.blocked:
            self._connections.cut_stalled += 1
            self._transport.abortConnection()
        elif phase is _BODY:
            self._time_out(f"No body data received for {self._limits.body_timeout:g} seconds")
        elif phase is _HEAD and self._reader.available:
            self._time_out(f"The head must be complete within {self._limits.head_timeout:g} seconds")
        elif phase is _HEAD:
            self._lose()

    # -- reading a request

    def _read_head(self) -> bool:
        try:
            head = self._reader.head()
        except HeadFault as fault:
            return self._refuse(None, self._exchange.refuse(None, fault.status, fault.detail))
        if head is None:
            return False
        self._until = inf
        if self._connections.observer is not None:
            self._asked_at = time.perf_counter()
        request = self._request = head.request(self._scheme, self._peer)
        length = head.content_length
        goes_on = head.keep_alive and not (self._retiring and self._is_last(length or 0))
        self._writer.begin(head.method == b"HEAD", head.is_1_0, goes_on)
        if length == 0:
            self._respond(request)
        elif (
            length is not None
            and length <= self._reader.available
            and length <= self._most_unjudged
            and not head.expects_continue
        ):
            request.body = self._reader.take(length)
            self._respond(request)
        else:
            self._begin_body(head, request)
        return self._reader.has_more

    def _begin_body(self, head: RequestHead, request: Request) -> None:
        """Validate a head whose body is incomplete, large, or announced by ``Expect``; then read the body."""
        length, available = head.content_length, self._reader.available
        max_bytes = self._exchange.application.max_body_bytes
        early = self._exchange.validate_head(request)
        if early is not None:
            may_drain = length is not None and length <= self._limits.drain_bytes and not head.expects_continue
            self._answer_early(early, length if may_drain else None)
            return
        if length is not None and length > max_bytes:
            self._refuse(request, self._exchange.refuse_too_large(request))
            return
        if length is not None and length <= available:
            request.body = self._reader.take(length)
            self._respond(request)
            return
        if not self._connections.bodies.admits(length):
            may_drain = length is not None and length <= self._limits.drain_bytes and not head.expects_continue
            self._answer_early(self._exchange.refuse_busy(request), length if may_drain else None)
            return
        if head.expects_continue and not available:
            self._output.write(CONTINUE)
        self._reader.begin_body(length, max_bytes)
        self._body_since = self._wheel.seconds()
        self._phase = _BODY

    def _read_body(self) -> bool:
        request = self._request
        assert request is not None
        try:
            request.body = self._reader.body()
        except FramingError as error:
            return self._refuse(request, self._exchange.refuse(request, 400, str(error)))
        except BodyTooLarge:
            return self._refuse(request, self._exchange.refuse_too_large(request))
        if request.body is None:
            return self._hold_body(request) or self._reader.body_paused
        if self._held:
            self._free_body()
        if self._retiring and self._is_last(0):
            self._writer.keep_alive = False
        self._respond(request)
        return self._reader.has_more

    def _hold_body(self, request: Request) -> bool:
        """Count the received bytes of a body. Return whether it is rejected because the upload budget is exceeded."""
        bodies, received = self._connections.bodies, self._reader.body_received
        if received > bodies.most:  # a retry would not help
            return self._refuse(request, self._exchange.refuse_too_large(request))
        held = bodies.hold(self._held, received)
        self._held = max(0, held)
        if held < 0:
            self._reader.clear()
            self._answer_early(self._exchange.refuse_busy(request), None)
        return held < 0

    def _free_body(self) -> None:
        held, self._held = self._held, 0
        self._connections.bodies.free(held)

    def _drain(self) -> bool:
        """Discard what has arrived of a body that was answered early."""
        self._unread -= self._reader.skip(self._unread)
        if not self._unread:
            self._phase, self._until = _HEAD, inf
        elif self._reader.ended:
            self._phase = _ENDING
        return not self._unread and self._reader.has_more

    def _is_last(self, body_bytes: int) -> bool:
        """Whether the current request is the last one of a retiring connection.

        :param body_bytes: the length of the body that follows its head.
        """
        return not (self._postponed and self._reader.holds_head(body_bytes))

    # -- asking the application

    def _respond(self, request: Request) -> None:
        self._phase = _RESPONDING
        answer: Pending[Response]
        try:
            # Exchange.respond, inlined: saves a call on the hot path.
            answer = self._exchange.application.respond(request)
        except Exception:
            answer = self._exchange.failed(request, "answering a request failed")
        if isinstance(answer, Response):
            self._send(answer)
            return
        self._pending = answer
        if isinstance(answer, PendingCommit):
            answer.when(self._answered)
        else:
            answer.addCallbacks(self._answered, self._not_answered).addErrback(_log_failure)

    def _answered(self, response: Response) -> None:
        """Send the application's response, in the turn of the request or in a later one."""
        if self._pending is None:  # the client has disconnected
            if not isinstance(response.body, bytes):
                stop_body(response.body)
            return
        self._pending = None
        output = self._output
        corked, output.corked = output.corked, True
        self._send(response)
        if not corked:
            self._serve()

    def _not_answered(self, failure: Failure) -> None:
        cancelled = failure.check(CancelledError) is not None
        if self._pending is None:
            if not cancelled:
                _log_failure(failure)
        elif cancelled and self._is_unwanted():
            self._pending = None
            self._lose()
        else:
            self._answered(self._exchange.failed(self._request, "answering a request failed", failure))

    def _give_up_waiting(self) -> None:
        """Handle a client that has closed its side while it waits for a response.

        A client that waits for new data has most likely disconnected: the wait is cancelled, and its result is sent. A
        client that has changed something, or downloads something, may well wait for the end.
        """
        body = self._writer.body
        if body is not None and body.length is None:
            self._writer.stop()
            self._lose()
        elif isinstance(self._pending, Deferred) and self._is_unwanted():
            self._writer.keep_alive = False
            self._pending.cancel()

    def _is_unwanted(self) -> bool:
        """Whether nobody needs a failed response: that of a GET whose client has closed its side."""
        return self._reader.ended and self._request is not None and self._request.method == b"GET"

    def _refuse(self, request: Request | None, response: Response) -> bool:
        """Send an error response to a message that violates HTTP or a limit; the connection ends with it."""
        self._connections.refused += 1
        if request is None:
            self._writer.begin(is_head=False, is_1_0=False, keep_alive=False)
        self._request = request
        self._answer_early(response, None)
        return True

    def _time_out(self, detail: str) -> None:
        self._connections.timed_out += 1
        self._output.cork()
        request = self._request if self._phase is _BODY else None
        self._refuse(request, self._exchange.refuse(request, 408, detail))
        self._serve()

    # -- answering

    def _send(self, response: Response) -> None:
        """Write a response, or start to write it; :meth:`_response_ended` is called when it is complete."""
        observer = self._connections.observer
        if observer is not None:
            observer.answered(self._request, response, self._asked_at, self)
        try:
            self._writer.send(response)
        except Exception:
            self._writer.send(self._exchange.failed(self._request, "writing a response failed"))
        self._request = None  # a live body may last for hours, and does not need it

    def _answer_early(self, response: Response, unread: int | None) -> None:
        """Answer before the body has arrived.

        :param unread: the length of the body, if it is discarded and the connection stays open; ``None`` if the
            connection ends with this response.
        """
        self._phase = _RESPONDING
        self._free_body()
        if unread is None:
            self._writer.keep_alive, self._linger = False, True
        else:
            self._unread = unread
            self._until = self._wheel.seconds() + self._limits.drain_timeout
        self._send(response)

    def _response_ended(self, complete: bool) -> None:
        """Enter the next phase after a response has been written."""
        if not complete:
            self._phase = _CLOSING
            self._transport.abortConnection()
            return
        if not self._writer.keep_alive:
            self._phase = _ENDING
        elif self._unread:
            self._phase = _DRAINING
        else:
            self._phase = _HEAD
        if not self._output.corked:
            self._serve()

    # -- the end

    def _end_idle(self) -> None:
        """Close an idle connection.

        At shutdown, a request may already be on its way. Closing at once would reset the connection of a client that
        has done nothing wrong, so there is a moment in which that request is still answered.
        """
        if self._reader.ended:
            self._lose()
            return
        self._until = min(self._until, self._wheel.seconds() + self._limits.last_head_timeout)
        self._deadline.move(self._until)
        if self._reading_paused:
            self._go_on_reading()

    def _end_connection(self) -> None:
        """Close, after lingering if the client may still be sending."""
        if self._reader.ended or not (self._linger or self._unread or self._reader.available):
            self._lose()
            return
        self._phase = _LINGERING
        self._unregister()
        if self._half_closeable is not None:
            self._half_closeable.loseWriteConnection()  # so that the client knows the answer is complete
        if self._reading_paused:
            self._go_on_reading()
        self._deadline.move(self._wheel.seconds() + self._limits.drain_timeout)
        self._unread = self._limits.linger_bytes
        self._drop(self._reader.available)
        self._reader.clear()

    def _drop(self, count: int) -> None:
        """Count what a lingering client still sends; beyond the limit, stop reading until the deadline."""
        self._unread -= count
        if self._unread < 0 and not self._reading_paused:
            self._reading_paused = True
            self._transport.pauseProducing()

    def _lose(self) -> None:
        """Close when everything is sent, or abort if the client does not receive it in time."""
        self._phase = _CLOSING
        self._unregister()
        self._deadline.move(self._wheel.seconds() + self._limits.stall_timeout)
        self._transport.loseConnection()

    def _unregister(self) -> None:
        """Unregister as the producer, because a transport does not close while its producer is paused."""
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()


class HttpFactory(ConnectionFactory[HttpChannel]):
    """Makes the channels of a listener."""

    _head_cache: HeadCache | None = None

    def make(self) -> HttpChannel:
        """Return a new channel. All channels share a head cache."""
        if self._head_cache is None:
            self._head_cache = HeadCache(self._limits)
        return HttpChannel(self._exchange, self._wheel, self._limits, self._date, self._connections, self._head_cache)

    def retire(self) -> None:
        """Make every connection's next response its last; new connections are still accepted."""
        super().retire()
        self._connections.retire(self._wheel)

    def drain(self) -> Deferred[None]:
        """Close connections after their current response, idle ones after ``last_head_timeout``; accept no new ones.

        :return: fires when all are closed. It may be called again, and cancelled.
        """
        self.refuse_connections()
        return self._connections.drain(self._wheel)

    def abort(self) -> None:
        """Abort the remaining connections."""
        self._connections.abort(self._wheel)

    def statistics(self) -> HttpStatistics:
        """Return figures about the connections."""
        return self._connections.statistics()


def _text_address(address: IAddress) -> str:
    """Return the host part of an address; empty if it has none, as for a UNIX socket."""
    host: Any = getattr(address, "host", "")
    return host if isinstance(host, str) else ""


def _log_failure(failure: Failure) -> None:
    _log.failure("answering a request failed", failure)
