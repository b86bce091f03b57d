"""An HTTP/2 connection: many requests at a time, each on a stream of its own (RFC 9113).

The frames, their compression and the windows are h2's. What is here is what a server does with them: which requests
are served, in which order their responses are sent, what a slow or hostile client may do, and how a connection ends.

A connection sends what is in line on its streams in turn, a frame each, while the client leaves room in the windows
and the transport takes more. A body that is ahead of that waits, as on HTTP/1.1.

Frames are read one at a time. Those that are left when the turn of the reactor is over wait for the next turns, and
so do those to be sent, as on HTTP/1.1 (``dstreams/http/http1/channel.py``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, cast

from attrs import define, field
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame
from twisted.internet import protocol
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.http.http2.conversation import Conversation, begin
from dstreams.http.http2.heads import read_head, response_fields
from dstreams.http.http2.stream import Http2Stream
from dstreams.http.messages import Request, Response
from dstreams.http.transport.bodies import BytesBody, stop_body
from dstreams.http.transport.connections import Connections
from dstreams.http.transport.exchange import Exchange
from dstreams.http.transport.factories import ConnectionFactory
from dstreams.http.transport.heads import HeadFault
from dstreams.http.transport.limits import LARGE_TLS_READ_BYTES, STEP_SECONDS, WRITE_PIECE_BYTES, HttpLimits
from dstreams.http.transport.replies import BODILESS, DateLine
from dstreams.http.transport.sockets import Transport, unsent_bytes
from dstreams.runtime.pending import PendingCommit
from dstreams.runtime.timers import Timer, TimerWheel, slice_end

_log = Logger()

FRAME_BYTES = 16 * 1024
"""Maximum number of bytes that one stream sends before the next stream does."""

RESETS_AT_ONCE = 200
RESETS_PER_SECOND = 20
"""Limits on streams that a client resets. Opening and resetting a stream costs it nothing (CVE-2023-44487)."""

CONTROL_FRAMES_AT_ONCE = 10_000
CONTROL_FRAMES_PER_SECOND = 1_000
"""Limits on frames that carry neither a request nor a part of its body: PING, SETTINGS, PRIORITY, WINDOW_UPDATE,
RST_STREAM, empty DATA, CONTINUATION, and unknown frames (CVE-2019-9511 to 9518, CVE-2024-27316)."""

CONTROL_FRAMES_PER_ANSWER = 10
"""Number of control frames that a client may send in addition for each frame of a response. Go's client sends two
WINDOW_UPDATE for each 4 KiB, which makes eight for one of our frames; Envoy allows ten."""

_ANY_STREAM = 2**31 - 1
"""The highest possible stream number."""

LOOK_SECONDS = 5.0
"""Seconds between checks of a connection's deadlines."""


@implementer(IPushProducer)
@define(eq=False)
class Http2Connection(protocol.Protocol):
    """One HTTP/2 connection, after its handshake.

    :param exchange: asks the application.
    :param wheel: timers, and the clock for durations.
    :param limits: limits on what a client may send, and how slowly.
    :param date: the ``Date`` header, shared by all connections.
    :param connections: the set that this connection belongs to.
    """

    _exchange: Exchange
    _wheel: TimerWheel
    _limits: HttpLimits
    _date: DateLine
    _connections: Connections

    http_version: ClassVar[str] = "2"

    blocked: bool = field(default=False, init=False)
    """Whether the transport has asked for a pause."""
    _h2: Conversation = field(init=False)
    _transport: Transport = field(init=False)
    _peer: str = field(default="", init=False)
    _streams: dict[int, Http2Stream] = field(factory=dict, init=False)
    _ready: deque[Http2Stream] = field(factory=deque, init=False)
    _starved: set[Http2Stream] = field(factory=set, init=False)
    """Streams with output that no flow-control window has space for."""
    _draining: dict[int, Http2Stream] = field(factory=dict, init=False)
    """Streams that were answered early and whose bodies still arrive."""
    _corked: bool = field(default=False, init=False)
    """Whether output is collected, to be sent at the end of the turn."""
    _retiring: bool = field(default=False, init=False)
    """Whether a GOAWAY was sent for a shutdown."""
    _finishing: bool = field(default=False, init=False)
    """Whether new requests are rejected."""
    _closing: bool = field(default=False, init=False)
    _closing_since: float = field(default=0.0, init=False)
    _blocked_since: float = field(default=0.0, init=False)
    _idle_since: float = field(default=0.0, init=False)
    _resets: float = field(default=0.0, init=False)
    _reset_at: float = field(default=0.0, init=False)
    _calm: float = field(default=0.0, init=False)
    """The number of control frames that the client may send now."""
    _calm_at: float = field(default=0.0, init=False)
    _postponed: bool = field(default=False, init=False)
    """Whether work is postponed to later turns of the reactor. Nothing is read until then."""
    _postponed_at: float = field(default=0.0, init=False)
    _timer: Timer | None = field(default=None, init=False)

    # -- called by the listener and the observer

    @property
    def peer(self) -> str:
        """The address of the peer."""
        return self._peer

    @property
    def is_reading(self) -> bool:
        """Whether a request is incomplete."""
        return any(stream.is_reading for stream in self._streams.values())

    @property
    def is_responding(self) -> bool:
        """Whether a response of the application is pending."""
        return any(stream.pending is not None for stream in self._streams.values())

    @property
    def is_streaming(self) -> bool:
        """Whether a streamed body is being sent."""
        return any(stream.body is not None for stream in self._streams.values())

    @property
    def is_stalled(self) -> bool:
        """Whether the client is slower than the server, on one stream or on all."""
        return self.blocked or any(stream.stuck_since is not None for stream in self._streams.values())

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes written that are still in this process."""
        return unsent_bytes(self._transport) + sum(stream.queued for stream in self._streams.values())

    def retire(self) -> None:
        """Ask the client to send its next requests elsewhere. Those that it still sends here are answered."""
        self._retiring = True
        if self._timer is not None and not self._closing:
            self._ask_to_leave(_ANY_STREAM)

    def finish(self) -> None:
        """Close when all requests are answered, including those already on their way."""
        if self._closing or self._finishing:
            return
        self.retire()
        self._wheel.call_later(self._limits.last_head_timeout, self._refuse_requests)

    def _refuse_requests(self) -> None:
        """Reject new requests (RFC 9113 section 6.8)."""
        if not (self._finishing or self._closing):
            self._finishing = True
            self._ask_to_leave(self._h2.highest_inbound_stream_id)
            self._send()

    def _ask_to_leave(self, last_stream: int) -> None:
        """Send a GOAWAY.

        :param last_stream: the number of the last stream that is served.
        """
        self._flush()
        # Not through h2, which accepts no frames after it has sent one.
        frame = GoAwayFrame(last_stream_id=last_stream, error_code=ErrorCodes.NO_ERROR)
        self._transport.write(frame.serialize())

    def abort(self) -> None:
        """Close immediately."""
        self._transport.abortConnection()

    # -- called by the transport

    def connectionMade(self) -> None:
        """Send the settings, and start to wait for requests."""
        transport = self._transport = cast("Transport", self.transport)
        if ITCPTransport.providedBy(transport):
            cast("Any", transport).setTcpNoDelay(True)
        host: Any = getattr(transport.getPeer(), "host", "")
        self._peer = host if isinstance(host, str) else ""
        self._h2 = begin(self._limits)
        transport.registerProducer(self, True)
        self._connections.live.add(self)
        self._idle_since = self._reset_at = self._calm_at = self._wheel.seconds()
        self._resets = RESETS_AT_ONCE
        self._calm = CONTROL_FRAMES_AT_ONCE
        self._flush()
        self._timer = self._wheel.call_later(LOOK_SECONDS, self._look)
        if self._retiring:
            self._ask_to_leave(_ANY_STREAM)

    def dataReceived(self, data: bytes) -> None:
        """Process the received bytes, and send the results."""
        if self._closing:
            return
        try:
            self._h2.feed(data)
        except ProtocolError as error:
            self._end_broken(error)
            return
        if not self._postponed:
            self._serve(self._wheel.turn_is_over)
        if len(data) > LARGE_TLS_READ_BYTES and self._wheel.turn_is_over():
            self._postpone()

    def _serve(self, over: Callable[[], bool]) -> None:
        """Process frames until the time is over, and send the results."""
        corked, self._corked = self._corked, True
        more = False
        while self._h2.holds_frame and not self._closing:
            if more and over():
                break
            more = True
            self._read_frame()
        else:
            more = False
        if self._h2.awaits_too_much and not self._closing:
            self._connections.refused += 1
            self._close(ErrorCodes.FRAME_SIZE_ERROR)
        self._corked = corked
        if more:
            self._postpone()
        self._send(over)

    def _read_frame(self) -> None:
        try:
            events = self._h2.read_frame()
        except ProtocolError as error:
            self._end_broken(error)
            return
        except Exception:
            _log.failure("reading HTTP/2 frames failed")
            self._closing = True
            self._transport.abortConnection()
            return
        count = self._h2.take_control_frames()
        if count and not self._allows_control_frames(count):
            self._calm_down()
            return
        for event in events:
            act = self._ACTIONS.get(type(event))
            if act is not None and not self._closing:
                act(self, event)

    def _end_broken(self, error: ProtocolError) -> None:
        """Close a connection whose client violated the protocol; h2 has queued a GOAWAY with the reason."""
        _log.debug("an HTTP/2 client broke the protocol: {error}", error=error)
        self._connections.refused += 1
        self._flush()
        self._lose()

    def _allows_control_frames(self, count: int) -> bool:
        now = self._wheel.seconds()
        earned = CONTROL_FRAMES_PER_SECOND * (now - self._calm_at)
        self._calm = min(CONTROL_FRAMES_AT_ONCE, self._calm + earned) - count
        self._calm_at = now
        return self._calm >= 0

    def _calm_down(self) -> None:
        """Close a connection whose client keeps the server busy without requests."""
        self._connections.refused += 1
        self._connections.calmed += 1
        self._close(ErrorCodes.ENHANCE_YOUR_CALM)

    # -- later turns

    def _postpone(self) -> None:
        """Postpone work to the next turns. Until then nothing is read, and no deadline of the client runs."""
        if self._postponed or self._closing:
            return
        self._postponed = True
        self._postponed_at = self._wheel.seconds()
        self._connections.postponed += 1
        if not self.blocked:
            self._transport.pauseProducing()
        self._wheel.in_slices(self._continue()).addErrback(self._continuing_failed)

    def _continue(self) -> Iterator[None]:
        """Do the postponed work step by step."""
        while not self._closing:
            self._serve(slice_end(STEP_SECONDS))
            if not self._h2.holds_frame and (self.blocked or not self._ready):
                break
            yield
        self._end_postponement()

    def _end_postponement(self) -> None:
        self._postponed = False
        if self._closing:
            return
        waited = self._wheel.seconds() - self._postponed_at
        self._idle_since += waited
        for stream in (*self._streams.values(), *self._draining.values()):
            stream.now += waited
            stream.last_byte += waited
        if not self.blocked:
            self._transport.resumeProducing()

    def _continuing_failed(self, failure: Failure) -> None:
        self._postponed = False
        _log.failure("serving what was postponed failed", failure)
        self._transport.abortConnection()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:  # noqa: ARG002 (Twisted's)
        """Release everything, because the connection is closed."""
        self._closing = self._corked = True
        if self._timer is not None:
            self._timer.cancel()
        for stream in list(self._streams.values()):
            self._stop(stream)
        self._streams.clear()
        self._draining.clear()
        self._starved.clear()
        self._ready.clear()
        self._connections.lost(self)

    def pauseProducing(self) -> None:
        """Pause writing and reading, because the client is slower than the server and responses would pile up."""
        if not self.blocked:
            self.blocked = True
            self._blocked_since = self._wheel.seconds()
            if not self._postponed:
                self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Continue, because the client has received what was sent."""
        if self.blocked:
            self.blocked = False
            if not self._postponed:
                self._transport.resumeProducing()
            self._send()

    def stopProducing(self) -> None:
        """Do nothing: :meth:`connectionLost` follows."""

    # -- events from the client

    def _request_received(self, event: RequestReceived) -> None:
        number = event.stream_id
        assert number is not None
        if self._finishing:
            # The client did not know yet. Nothing was done, so it may retry elsewhere.
            with suppress(ProtocolError):  # it has taken it back by itself
                self._h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        stream = self._streams[number] = Http2Stream(self, number, self._wheel.seconds(), self._connections.bodies)
        if self._connections.observer is not None:
            stream.asked_at = time.perf_counter()
        stream.is_open = event.stream_ended is None
        try:
            request = stream.request = read_head(cast("Any", event.headers), self._limits, self._peer)
        except HeadFault as fault:
            self._refuse(stream, self._exchange.refuse(None, fault.status, fault.detail))
            return
        if not stream.is_open:
            request.content_length = 0
            self._respond(stream, stream.complete())
        else:
            self._begin_body(stream, request)

    def _begin_body(self, stream: Http2Stream, request: Request) -> None:
        """Validate a head that announces a body; then wait for the body."""
        length, most = request.content_length, self._exchange.application.max_body_bytes
        early = self._exchange.validate_head(request)
        if early is not None:
            self._answer(stream, early)
        elif length is not None and length > most:
            self._refuse(stream, self._exchange.refuse_too_large(request))
        elif not self._connections.bodies.admits(length):
            self._answer(stream, self._exchange.refuse_busy(request))
        else:
            if b"expect" in request.headers:
                self._send_continue(stream)
            stream.await_body()

    def _send_continue(self, stream: Http2Stream) -> None:
        with suppress(ProtocolError):  # the client was faster
            self._h2.send_headers(stream.id, [(b":status", b"100")])

    def _data_received(self, event: DataReceived) -> None:
        number, data = event.stream_id, event.data
        assert number is not None
        assert data is not None
        # Even if it is not needed, so that the bodies of other streams continue.
        self._h2.acknowledge_received_data(event.flow_controlled_length, number)
        stream = self._streams.get(number)
        if stream is None:
            self._drop(number, len(data))
        elif stream.is_reading:
            has_room = stream.receive(data, self._wheel.seconds())
            if stream.received > self._exchange.application.max_body_bytes:
                self._refuse(stream, self._exchange.refuse_too_large(stream.request))
            elif not has_room:
                assert stream.request is not None
                self._answer(stream, self._exchange.refuse_busy(stream.request))

    def _drop(self, number: int, count: int) -> None:
        """Discard a part of a body that was answered early."""
        stream = self._draining.get(number)
        if stream is not None:
            stream.received += count
            if stream.received > self._limits.linger_bytes:
                self._stop_draining(stream)

    def _stop_draining(self, stream: Http2Stream) -> None:
        """Reset a stream whose body is not needed; the client should have seen the response by now."""
        self._draining.pop(stream.id, None)
        self._reset(stream, ErrorCodes.NO_ERROR)

    def _stream_ended(self, event: StreamEnded) -> None:
        self._draining.pop(event.stream_id, None)
        stream = self._streams.get(event.stream_id)
        if stream is not None and stream.is_open:
            stream.is_open = False
            if stream.is_reading:
                self._respond(stream, stream.complete())

    def _stream_reset(self, event: StreamReset) -> None:
        self._draining.pop(event.stream_id, None)
        stream = self._streams.get(event.stream_id)
        # Without a stream, it was answered already, or aborted. h2 reads a whole segment before it reports any event,
        # so a stream that is opened and reset in one segment has ended before its response can be sent.
        if stream is not None:
            self._forget(stream)
        now = self._wheel.seconds()
        self._resets = min(RESETS_AT_ONCE, self._resets + RESETS_PER_SECOND * (now - self._reset_at)) - 1
        self._reset_at = now
        if self._resets < 0:
            self._calm_down()

    def _window_updated(self, event: WindowUpdated) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if not event.stream_id:
            self._feed_starved()
        elif stream is not None and stream in self._starved:
            self._starved.discard(stream)
            self._line_up(stream)

    def _feed_starved(self, _: Event | None = None) -> None:
        """Queue all streams that waited for a flow-control window."""
        starved, self._starved = self._starved, set()
        for stream in starved:
            self._line_up(stream)

    def _terminated(self, event: ConnectionTerminated) -> None:
        """Handle a GOAWAY: open streams continue, unless it reports an error."""
        if event.error_code:
            self._lose()
        else:
            self._finishing = True  # and when no stream is left, it is closed

    _ACTIONS: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {
        RequestReceived: _request_received,
        DataReceived: _data_received,
        StreamEnded: _stream_ended,
        StreamReset: _stream_reset,
        WindowUpdated: _window_updated,
        RemoteSettingsChanged: _feed_starved,
        ConnectionTerminated: _terminated,
    }

    # -- asking the application

    def _respond(self, stream: Http2Stream, request: Request) -> None:
        answer = self._exchange.respond(request)
        if isinstance(answer, Response):
            self._answer(stream, answer)
            return
        stream.pending = answer
        answered = partial(self._answered, stream)
        if isinstance(answer, PendingCommit):
            answer.when(answered)
        else:
            answer.addCallbacks(answered, partial(self._not_answered, stream)).addErrback(_log_failure)

    def _answered(self, stream: Http2Stream, response: Response) -> None:
        if stream.pending is None:  # the client had gone
            if not isinstance(response.body, bytes):
                stop_body(response.body)
            return
        stream.pending = None
        self._answer(stream, response)
        self._send()

    def _not_answered(self, stream: Http2Stream, failure: Failure) -> None:
        if stream.pending is not None:
            self._answered(stream, self._exchange.failed(stream.request, "answering a request failed", failure))
        elif failure.check(CancelledError) is None:
            _log_failure(failure)

    def _refuse(self, stream: Http2Stream, response: Response) -> None:
        """Send an error response to a message that violates HTTP or a limit."""
        self._connections.refused += 1
        self._answer(stream, response)

    # -- answering

    def _answer(self, stream: Http2Stream, response: Response) -> None:
        """Send a response's head, and start to send its body."""
        request, body = stream.request, response.body
        observer = self._connections.observer
        if observer is not None:
            observer.answered(request, response, stream.asked_at, self)
        length = len(body) if isinstance(body, bytes) else body.length
        bodiless = response.status in BODILESS
        is_head = request is not None and request.method == b"HEAD"
        if bodiless or (is_head and not length):
            length = None
        fields = response_fields(response.status, response.head, self._date.current(), length)
        stream.forget_request()  # a live body may last for hours, and has taken what it needs
        ends = bodiless or is_head or not body
        try:
            self._h2.send_headers(stream.id, fields, end_stream=ends)
        except ProtocolError:
            # The client has reset the stream, in frames that are not processed yet.
            if not isinstance(body, bytes):
                stop_body(body)
            self._forget(stream)
            return
        if ends:
            if not isinstance(body, bytes):
                stop_body(body)
            self._sent(stream)
        elif isinstance(body, bytes) and len(body) <= WRITE_PIECE_BYTES:
            stream.queue(body)
            stream.ended = True
            self._line_up(stream)
        else:
            # The head is sent now, because a live body may be silent for a while.
            self.has_output(stream)
            stream.send_body(BytesBody(body) if isinstance(body, bytes) else body)

    def has_output(self, stream: Http2Stream) -> None:
        """Queue a stream that has output, or that has ended."""
        if stream.queued or stream.ended:
            self._line_up(stream)
        self._send()

    def break_off(self, stream: Http2Stream) -> None:
        """Reset a stream whose response cannot be completed, so that the client does not mistake it for complete."""
        if stream.id in self._streams:
            self._reset(stream, ErrorCodes.INTERNAL_ERROR)
            self._forget(stream)
            self._send()

    def _reset(self, stream: Http2Stream, code: ErrorCodes) -> None:
        with suppress(ProtocolError):  # the client was faster
            self._h2.reset_stream(stream.id, code)

    def _line_up(self, stream: Http2Stream) -> None:
        if not stream.is_ready and stream not in self._starved:
            stream.is_ready = True
            self._ready.append(stream)

    def _send(self, over: Callable[[], bool] | None = None) -> None:
        """Send the queued output, as far as time, the client and the transport allow.

        :param over: returns whether the time is over; by default at the end of the reactor's turn.
        """
        if self._corked or self._closing:
            return
        self._corked = True
        unsent = 0
        while self._ready and not self.blocked:
            stream = self._ready.popleft()
            stream.is_ready = False
            unsent += self._send_frame(stream)
            if unsent >= WRITE_PIECE_BYTES:
                self._flush()
                unsent = 0
                if self._ready and (over or self._wheel.turn_is_over)():
                    self._postpone()
                    break
        self._flush()
        self._corked = False
        if self._finishing and not (self._streams or self._draining or self._closing):
            self._lose()

    def _send_frame(self, stream: Http2Stream) -> int:
        """Send one frame, and return the number of its bytes."""
        if stream.id not in self._streams:
            return 0
        try:
            return self._send_some(stream)
        except ProtocolError:
            # The client has reset the stream, in frames that are not processed yet.
            self._forget(stream)
            return 0

    def _send_some(self, stream: Http2Stream) -> int:
        room = 0
        if stream.queued:
            room = min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size, FRAME_BYTES)
            if room <= 0:
                self._starved.add(stream)
                if stream.stuck_since is None:
                    stream.stuck_since = self._wheel.seconds()
                return 0
        data = stream.take(room)
        ends = stream.ended and not stream.queued
        if data or ends:
            self._h2.send_data(stream.id, data, end_stream=ends)
            self._calm += CONTROL_FRAMES_PER_ANSWER
        stream.stuck_since = None
        if ends:
            self._sent(stream)
        elif stream.queued:
            self._line_up(stream)
        else:
            stream.resume()
        return len(data)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)

    def _sent(self, stream: Http2Stream) -> None:
        """Remove a stream whose response is complete."""
        if stream.is_open:
            # The response was early. The rest of the body is discarded, as in HTTP/1.1: clients such as curl 7.88
            # discard the response if a reset follows it, although RFC 9113 (section 8.1) allows the reset.
            self._draining[stream.id] = stream
            stream.now, stream.received = self._wheel.seconds(), 0
        self._forget(stream)

    def _forget(self, stream: Http2Stream) -> None:
        self._streams.pop(stream.id, None)
        self._starved.discard(stream)
        self._stop(stream)
        self._idle_since = self._wheel.seconds()

    def _stop(self, stream: Http2Stream) -> None:
        observer, request = self._connections.observer, stream.request
        if observer is not None and request is not None and stream.pending is not None:
            observer.abandoned(request, stream.asked_at, self)
        stream.stop()

    # -- time

    def _look(self) -> None:
        """Check the deadlines."""
        now, limits = self._wheel.seconds(), self._limits
        self._timer = self._wheel.call_later(LOOK_SECONDS, self._look)
        if self._closing:
            if now - self._closing_since >= limits.drain_timeout:
                self._transport.abortConnection()
        elif self.blocked:
            if now - self._blocked_since >= limits.stall_timeout:
                self._connections.cut_stalled += 1
                self._transport.abortConnection()
        elif self._postponed:
            pass  # what the client has sent must be read before it can be late
        elif not (self._streams or self._draining) and now - self._idle_since >= limits.idle_timeout:
            self._close(ErrorCodes.NO_ERROR)
        else:
            for stream in list(self._streams.values()):
                self._look_at(stream, now)
            for stream in list(self._draining.values()):
                if now - stream.now >= limits.drain_timeout:
                    self._stop_draining(stream)
            self._send()

    def _look_at(self, stream: Http2Stream, now: float) -> None:
        limits = self._limits
        if stream.is_reading:
            elapsed = now - stream.now
            if now - stream.last_byte >= limits.body_timeout:
                self._time_out(stream, f"No body data received for {limits.body_timeout:g} seconds")
            elif elapsed > limits.body_timeout and stream.received < limits.min_body_rate * elapsed:
                self._time_out(stream, f"A request body must arrive at {limits.min_body_rate} bytes per second")
        elif stream.stuck_since is not None and now - stream.stuck_since >= limits.stall_timeout:
            self._connections.cut_stalled += 1
            self._reset(stream, ErrorCodes.CANCEL)
            self._forget(stream)

    def _time_out(self, stream: Http2Stream, detail: str) -> None:
        self._connections.timed_out += 1
        self._refuse(stream, self._exchange.refuse(stream.request, 408, detail))

    # -- the end

    def _close(self, code: ErrorCodes) -> None:
        """Send a GOAWAY with the reason, and close."""
        self._h2.close_connection(code)
        self._flush()
        self._lose()

    def _lose(self) -> None:
        """Close when everything is sent; :meth:`_look` aborts if the client does not receive it in time."""
        if self._closing:
            return
        self._closing = True
        self._closing_since = self._wheel.seconds()
        for stream in list(self._streams.values()):
            self._forget(stream)
        self._draining.clear()
        # A transport does not close while its producer is paused.
        self._transport.unregisterProducer()
        self._transport.loseConnection()


def _log_failure(failure: Failure) -> None:
    _log.failure("answering a request failed", failure)


class Http2Factory(ConnectionFactory[Http2Connection]):
    """Makes HTTP/2 connections."""

    def make(self) -> Http2Connection:
        """Return a new connection."""
        return Http2Connection(self._exchange, self._wheel, self._limits, self._date, self._connections)
