"""The HTTP/1.1 channel: requests from a connection's bytes, responses back, strictly in order.

A connection is in one of a few phases::

    HEAD ----> BODY ----> RESPONDING ----> HEAD ...               the usual round
      |          |          ^    |
      |          |          |    +-------> DRAINING ---> HEAD     answered early; a short body is dropped
      +----------+--refused-+    |
                                 +-------> LINGERING --> CLOSING  the last answer came before the client
                                 |                                had sent everything
                                 +-----------------------------> CLOSING

``_serve`` is the only loop: it takes steps while there is input to take them on, and then writes. So
pipelined requests neither recurse nor wait for each other's writes.

A client that sends a lot at once gets its share of each turn of the reactor: what is left when the turn is over
(``TimerWheel.turn_is_over``) is postponed. Then nothing more is read, and the connection continues in the next
turns, in short steps that alternate with those of all others that wait (``TimerWheel.in_slices``).

Where a body isn't wanted the request is judged by its head (``Application.validate_head``), and what remains of the
body is dropped: a connection that is closed with unread bytes is reset, and the reset destroys the answer.

The same bytes get the same answers however they are cut. Therefore, whether a connection survives an early
answer depends on the announced length, never on what has arrived: bodies of up to ``drain_bytes`` are dropped
and the connection goes on; longer ones, chunked ones and those announced by ``Expect`` are judged before
anything else, and an early answer to them ends the connection.
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
    """What a connection is doing."""

    HEAD = "waiting for a request, or in the middle of its head"
    BODY = "reading a request's body"
    RESPONDING = "the application has the request, or its response is being sent"
    DRAINING = "dropping the rest of a body that was answered early"
    ENDING = "the last response is written; closed at the end of this turn"
    LINGERING = "nothing more is written; what the client still sends is dropped"
    CLOSING = "the transport has been asked to close"
    CLOSED = "gone"


# Bound once: looking a member up in its class takes 0.15 us, and a request does so about ten times.
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
    :param wheel: timers, and the time that durations are measured in.
    :param limits: what a client may send, and how slowly.
    :param date: the ``Date`` header, shared by all connections.
    :param connections: the connections that this one belongs to.
    :param heads: reads the requests' heads.
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
    """Segments that are longer count as a part of the work of a turn."""
    _reader: RequestReader = field(init=False)
    _output: OutputBuffer = field(init=False)
    _writer: ResponseWriter = field(init=False)
    _deadline: Deadline = field(init=False)
    _most_unjudged: int = field(init=False)
    """The longest body that isn't judged by its head when it has arrived with it."""
    _registered: bool = field(default=False, init=False)
    """Whether this is the transport's producer."""
    _reading_paused: bool = field(default=False, init=False)
    _blocked_since: float = field(default=0.0, init=False)
    _retiring: bool = field(default=False, init=False)
    """Whether the next answer is the last one."""
    _finishing: bool = field(default=False, init=False)
    """Whether the server stops: a client that has nothing to ask isn't waited for."""
    _postponed: bool = field(default=False, init=False)
    """Whether it continues in later turns of the reactor, and isn't read from until then."""
    _postponed_at: float = field(default=0.0, init=False)

    # Per request.
    _request: Request | None = field(default=None, init=False)
    _pending: Deferred[Response] | PendingCommit[Response] | None = field(default=None, init=False)
    """What the application answers when it can."""
    _asked_at: float = field(default=0.0, init=False)
    """When its head was complete; only where an observer wants to know."""
    _until: float = field(default=inf, init=False)
    """When a head, or the rest of a body that is dropped, must have arrived."""
    _body_since: float = field(default=0.0, init=False)
    _held: int = field(default=0, init=False)
    """What is counted of its body in ``Connections.bodies``."""
    _unread: int = field(default=0, init=False)
    """How many bytes are still to be dropped."""
    _linger: bool = field(default=False, init=False)
    """Whether the client may still be sending when the last answer has been written."""

    # -- what the listener asks

    @property
    def is_reading(self) -> bool:
        """Whether a request has begun to arrive and isn't complete."""
        return self._phase is _BODY or (self._phase is _HEAD and self._reader.available > 0)

    @property
    def is_responding(self) -> bool:
        """Whether the application owes an answer."""
        return self._pending is not None

    @property
    def is_streaming(self) -> bool:
        """Whether a streamed body is being sent."""
        return self._writer.body is not None

    @property
    def is_stalled(self) -> bool:
        """Whether the client takes less than it is sent."""
        return self._output.blocked

    @property
    def http_version(self) -> str:
        """The version of HTTP that the present request is in."""
        return self._writer.version

    @property
    def peer(self) -> str:
        """The address at the other end."""
        return self._peer

    @property
    def unsent_bytes(self) -> int:
        """What was written and waits in this process."""
        return unsent_bytes(self._transport)

    def retire(self) -> None:
        """Make the answer under way the last one, or the next one when none is.

        Requests that had arrived and were postponed are all answered.
        """
        self._retiring = True
        if self._phase is _RESPONDING or self._phase is _BODY:
            self._writer.keep_alive = not self._is_last(0)

    def finish(self) -> None:
        """Close after the answer under way; when there is none, after a request that is still on its way."""
        self.retire()
        self._finishing = True
        if self._phase is _HEAD and not self._output.corked:
            self._serve()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abortConnection()

    # -- what the transport tells

    def connectionMade(self) -> None:
        """Begin to listen to the client."""
        transport = self._transport = cast("Transport", self.transport)
        secure = ISSLTransport.providedBy(transport) or INegotiated.providedBy(transport)
        if ITCPTransport.providedBy(transport):
            tcp = cast("ITCPTransport", transport)
            tcp.setTcpNoDelay(True)
            # TLS has no half-close, and its transport would pass ours on to the socket below it.
            self._half_closeable = None if secure else tcp
        self._scheme = b"https" if secure else b"http"
        self._large_read = LARGE_TLS_READ_BYTES if secure else LARGE_READ_BYTES
        self._peer = _text_address(transport.getPeer())
        self._reader = RequestReader(self._limits, self._head_cache)
        self._most_unjudged = min(self._limits.drain_bytes, self._exchange.application.max_body_bytes)
        self._output = OutputBuffer(transport)
        self._writer = ResponseWriter(self._output, self._date, self._response_ended, self._wheel, self._continue_body)
        self._deadline = Deadline(self._wheel, self._deadline_passed)
        # Not only for streamed bodies: a client that sends requests and reads no answers must not fill the
        # transport's buffer either.
        transport.registerProducer(self, True)
        self._registered = True
        self._connections.live.add(self)
        self._deadline.move(self._wheel.seconds() + self._limits.idle_timeout)

    def dataReceived(self, data: bytes) -> None:
        """Use what has arrived, as far as it goes."""
        phase, output = self._phase, self._output
        if phase is _HEAD and not self._reader.buffered and not output.corked and not output.blocked:
            end = data.find(b"\r\n\r\n") + 4
            head = self._head_cache.known.get(data[:end]) or self._head_cache.recognize(data[:end])
            # What is judged by its head alone isn't served like this: see the top of the module.
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
        """The client has closed its side: it may still read, but will send nothing more."""
        self._reader.ended = True
        if self._wheel.turn_is_over():  # many clients have left at once
            self._wheel.take_turn(self._input_ended)
        else:
            self._input_ended()

    def _input_ended(self) -> None:
        """Do what the end of the client's input asks for."""
        if self._phase is _CLOSED:
            return
        if self._phase is _LINGERING:
            self._lose()
        elif self._phase is _RESPONDING:
            self._give_up_waiting()
        elif not self._output.corked and not self._postponed:
            self._serve()

    def writeConnectionLost(self) -> None:  # noqa: N802 (Twisted's name)
        """Our side is closed, as was asked for."""

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:  # noqa: ARG002 (Twisted's)
        """The connection is gone: let go of everything."""
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
        """The client takes less than it is sent."""
        if not self._output.blocked:
            self._output.blocked = True
            self._blocked_since = self._wheel.seconds()
            if not self._output.corked:
                self._settle()

    def resumeProducing(self) -> None:
        """The client has taken what it was sent."""
        self._output.blocked = False
        self._continue_body()

    def _continue_body(self) -> None:
        """Send more of a streamed body, and serve what follows if it ends."""
        corked = self._output.cork()
        self._writer.resume()
        if not corked:
            self._serve()

    def stopProducing(self) -> None:
        """The transport is gone; it says so by :meth:`connectionLost`."""

    # -- turns

    def _serve(self, over: Callable[[], bool] | None = None) -> bool:
        """Take a turn: use the input as far as time and the client's taking of the answers allow, and send these.

        :param over: says when the time has passed; by default when this turn of the reactor is over.
        :return: whether there is more to do, which was postponed.
        """
        output = self._output
        output.corked = True
        held_up, more = True, False
        while held_up:
            more = self._take_steps(over or self._wheel.turn_is_over)
            held_up = output.blocked
            # Still corked: a transport that asks for a pause in the middle of this write isn't closed there.
            output.flush()
            held_up = held_up and not output.blocked
        output.corked = False
        if more and not output.blocked:
            self._postpone()
            return True
        self._settle()
        return False

    def _serve_whole(self, head: RequestHead, body: bytes) -> None:
        """Take a short turn: all that has come is one request, with a head that is known.

        It does what :meth:`_serve` would do, and saves 1.1 us of 5.6 (``python -m bench.application``).
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
            output.corked = False  # nothing is written, and no deadline runs that means anything now

    def _take_steps(self, over: Callable[[], bool]) -> bool:
        """Use the input; whether that ended because the time was over."""
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
        """Continue in the next turns; until then nothing is read, and no time passes for the client."""
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
        """Do what was postponed, step by step."""
        while self._take_step():
            yield
        self._postponed = False

    def _take_step(self) -> bool:
        """Do a part of what was postponed; whether there is more."""
        phase = self._phase
        if phase is _CLOSED or phase is _CLOSING or self._output.blocked:
            return False  # what is left is served when the client has taken its answers
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
        """At the end of a turn: note how long what comes next may take."""
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
                # The beginning of a head isn't a request yet: it doesn't hold up the end for long.
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
        """Keep what is read ahead within its bound while an answer is awaited or not taken."""
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
        """A head is complete whose body isn't, or is large, or is asked for: judge it, then read the body."""
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
        """Count what has come of a body; whether it has to be answered now, because there is no room for more."""
        bodies, received = self._connections.bodies, self._reader.body_received
        if received > bodies.most:  # to come again later wouldn't help it
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
        """Drop what has arrived of a body that was answered early."""
        self._unread -= self._reader.skip(self._unread)
        if not self._unread:
            self._phase, self._until = _HEAD, inf
        elif self._reader.ended:
            self._phase = _ENDING
        return not self._unread and self._reader.has_more

    def _is_last(self, body_bytes: int) -> bool:
        """Whether a connection that retires does so with the present request.

        :param body_bytes: how long its body is that comes next.
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
        """The application's answer has come, in this turn or in one of its own."""
        if self._pending is None:  # the client had gone
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
        """The client has closed its side while it waits for an answer.

        One that waits for news has most likely gone: the wait is cancelled, and what that yields is sent. One
        that has changed something, or downloads something, may well wait for the end.
        """
        body = self._writer.body
        if body is not None and body.length is None:
            self._writer.stop()
            self._lose()
        elif isinstance(self._pending, Deferred) and self._is_unwanted():
            self._writer.keep_alive = False
            self._pending.cancel()

    def _is_unwanted(self) -> bool:
        """Whether a failing answer would interest nobody: a look at something, by a client that has left."""
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
        """Write a response, or begin to; :meth:`_response_ended` is called when it is complete."""
        observer = self._connections.observer
        if observer is not None:
            observer.answered(self._request, response, self._asked_at, self)
        try:
            self._writer.send(response)
        except Exception:
            self._writer.send(self._exchange.failed(self._request, "writing a response failed"))
        self._request = None  # a live body may last for hours, and has taken what it needs

    def _answer_early(self, response: Response, unread: int | None) -> None:
        """Answer before the body has arrived.

        :param unread: the body's length when it is to be dropped and the connection goes on, ``None`` when
            the connection ends with this answer.
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
        """The response has been written, in this turn or in one of its own."""
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
        """Close a connection on which nothing is asked.

        When the server stops, a request may have crossed with that. Closing at once would reset the connection
        under a client that has done nothing wrong, so there is a moment to answer that one.
        """
        if self._reader.ended:
            self._lose()
            return
        self._until = min(self._until, self._wheel.seconds() + self._limits.last_head_timeout)
        self._deadline.move(self._until)
        if self._reading_paused:
            self._go_on_reading()

    def _end_connection(self) -> None:
        """Close; gently, when the client may still be sending."""
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
        """Count what a lingering client still sends; beyond the bound let it wait for the end."""
        self._unread -= count
        if self._unread < 0 and not self._reading_paused:
            self._reading_paused = True
            self._transport.pauseProducing()

    def _lose(self) -> None:
        """Close when everything is sent; a client that doesn't take it is cut."""
        self._phase = _CLOSING
        self._unregister()
        self._deadline.move(self._wheel.seconds() + self._limits.stall_timeout)
        self._transport.loseConnection()

    def _unregister(self) -> None:
        """A transport doesn't close while a producer is registered and paused."""
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()


class HttpFactory(ConnectionFactory[HttpChannel]):
    """Makes the channels of a listener, and keeps track of them."""

    _head_cache: HeadCache | None = None

    def make(self) -> HttpChannel:
        """A channel; all of them know the same heads by heart."""
        if self._head_cache is None:
            self._head_cache = HeadCache(self._limits)
        return HttpChannel(self._exchange, self._wheel, self._limits, self._date, self._connections, self._head_cache)

    def retire(self) -> None:
        """Give every connection one more answer: it says that the connection closes. New ones are still taken."""
        super().retire()
        self._connections.retire(self._wheel)

    def drain(self) -> Deferred[None]:
        """Close connections after their current answer, idle ones after ``last_head_timeout``; take no new ones.

        :return: fires when all are gone. May be called again, and cancelled.
        """
        self.refuse_connections()
        return self._connections.drain(self._wheel)

    def abort(self) -> None:
        """Cut the connections that are left."""
        self._connections.abort(self._wheel)

    def statistics(self) -> HttpStatistics:
        """What the connections are doing, and what was done to them."""
        return self._connections.statistics()


def _text_address(address: IAddress) -> str:
    """The host part of an address; empty for one that has none, such as a UNIX socket's."""
    host: Any = getattr(address, "host", "")
    return host if isinstance(host, str) else ""


def _log_failure(failure: Failure) -> None:
    _log.failure("answering a request failed", failure)
