"""Server-Sent Events: a read that goes on (PROTOCOL 5.8).

Every wake-up formats what is new once. The readers that have all before it, which is nearly all of them, are
handed the same bytes object. A reader whose connection is slower than the stream is left alone; when its
transport has drained it catches up from storage, so that nothing queues for it meanwhile.
"""

from __future__ import annotations

import random
from typing import ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.eventually import then
from dstreams.http.context import Context
from dstreams.http.messages import Frame, Request, Response, Sink
from dstreams.http.operations.long_poll import nothing_new
from dstreams.model.state import StreamState
from dstreams.protocol.cursors import interval, next_cursor
from dstreams.protocol.headers import LAST_EVENT_ID_KEY
from dstreams.protocol.offsets import NOW, format_offset, parse_offset
from dstreams.protocol.problems import InvalidOffset, ProtocolError
from dstreams.protocol.sse import HEARTBEAT, SseEncoding, control_event, data_event, incomplete_suffix
from dstreams.storage.interface import StorageDamaged
from dstreams.streams.live import Audience
from dstreams.streams.reading import Slice
from dstreams.timers import Timer

_log = Logger()

EVENT_BYTES = 256 * 1024
"""The most stored bytes in one data event, if a message isn't larger; also the most that is handed to a transport at
a time, so that a large event doesn't wait in the memory of every reader's connection."""

JITTER = 0.1
"""The part of its lifetime by which a reader may be asked earlier or later to come back, so that readers that came
together don't come back together."""

_HEARTBEAT = Frame(HEARTBEAT)

_HEAD = (
    b"Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\nVary: Last-Event-ID\r\nCache-Control: "
    # X-Accel-Buffering: nginx would hold events back otherwise.
)
_HEAD_OF_URL = _HEAD + b"no-cache, no-transform\r\n"
_HEAD_OF_EVENT_ID = _HEAD + b"no-store, no-transform\r\n"
"""The response depends on more than the URL, so a cache must not store it under the URL."""


def follow(
    context: Context, request: Request, state: StreamState, offset: int, cursor: int | None
) -> Response | Deferred[Response]:
    """Send all messages after an offset, then those that are appended.

    The offset is the request's ``Last-Event-ID`` if it has one, since a browser that reconnects repeats the URL
    of its first request and adds that header.

    :param offset: the offset in the URL: a position, or ``NOW``.
    :param cursor: the cursor that the client sent back.
    :return: 200 with events; 204 if the ``Last-Event-ID`` is the tail of a closed stream. Browsers reconnect after
        the end of every event stream and stop at a 204.
    :raise InvalidOffset: (or the Deferred fails) when the offset is beyond the stream's tail.
    """
    head = _HEAD_OF_URL
    resumed = _last_event_id(request)
    if resumed is not None:
        head, offset = _HEAD_OF_EVENT_ID, resumed
    position = state.tail if offset == NOW else offset
    if resumed is not None and state.closed and position == state.tail:
        context.streams.renew(state)
        return nothing_new(state, None)
    if state.config.content_type.sse_encoding is SseEncoding.BASE64:
        head += b"Stream-SSE-Data-Encoding: base64\r\n"
    # Read ahead of the answer: an offset that isn't one of this stream must get its 400, and one inside a message is
    # answered from the message's start.
    checked = context.streams.read(state, position, EVENT_BYTES)
    context.streams.renew(state)
    return then(checked, lambda found: Response(200, head, SseReader(context, state, found.start, cursor)))


def _last_event_id(request: Request) -> int | None:
    """Return the position after the last event that the client received.

    :return: ``None`` without the header, and for a value that isn't an offset: browsers send the same value again
        and again, and would give up for good at a 400.
    """
    raw = request.headers.get(LAST_EVENT_ID_KEY)
    if raw is None:
        return None
    try:
        return parse_offset(raw)
    except InvalidOffset:
        return None


@define(eq=False)
class LiveFrame:
    """One wake-up's events, as all caught-up readers get them.

    :param start: the position of the readers it is for.
    :param end: their position afterwards.
    :param tail: the stream's tail when it was made.
    :param closed: whether the stream was closed then; ``final`` says that this is the last frame.
    :param events: the data event, or nothing.
    :param shared: the data event and the control event with the cursor of ``interval``.
    :param made_at: when it was made, in the wheel's seconds.
    """

    start: int
    end: int
    tail: int
    closed: bool
    final: bool
    up_to_date: bool
    interval: int
    events: bytes
    shared: Frame
    made_at: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether it brings its readers further; not while there is only the beginning of a character."""
        return bool(self.events) or self.final

    def suits(self, tail: int, closed: bool, current: int) -> bool:
        """Whether it is still what would be made now."""
        return self.tail == tail and self.closed == closed and self.interval == current


def make_frame(found: Slice, data: bytes, tail: int, closed: bool, current: int) -> LiveFrame:
    """Format what is new.

    A text event isn't cut inside a character or a line end: the bytes of an unfinished one wait for the rest,
    unless there will be none.

    :param data: the slice's bytes.
    :param tail: the stream's tail, ``closed`` whether it is closed.
    :param current: the cursor interval.
    """
    content_type = found.config.content_type
    encoding, table = content_type.sse_encoding, content_type.decoding_table
    held_back = 0
    if encoding is SseEncoding.TEXT and not found.closed:
        # A CR waits too: with an LF behind it, it is one line end, and the format would make it two.
        if data.endswith(b"\r"):
            held_back = 1
        elif table is None:
            held_back = incomplete_suffix(data)
        if held_back:
            data = data[:-held_back]
    end = found.end - held_back
    offset = format_offset(end)
    events = data_event(data, encoding, offset, table) if data else b""
    control = control_event(offset, current, found.up_to_date, found.closed)
    return LiveFrame(
        found.start,
        end,
        tail,
        closed,
        found.closed,
        found.up_to_date,
        current,
        events,
        Frame(events + control),
    )


@define(eq=False)
class SseReader:
    """One SSE connection (a ``Body`` and a ``Watcher``)."""

    kind: ClassVar[str] = "sse"
    _context: Context
    _state: StreamState
    _position: int
    _cursor: int | None
    _sink: Sink | None = field(default=None, init=False)
    _audience: Audience | None = field(default=None, init=False)
    _timer: Timer | None = field(default=None, init=False)
    _last_event: float = field(default=0.0, init=False)
    _ends_at: float = field(default=0.0, init=False)
    _greeted: bool = field(default=False, init=False)
    _paused: bool = field(default=False, init=False)
    _fetching: bool = field(default=False, init=False)
    _ending: bool = field(default=False, init=False)
    # Whether _cursor is one that we sent on this connection, rather than the client's.
    _cursor_is_ours: bool = field(default=False, init=False)
    # The most stored bytes to read for an event: more than usual only while nothing but the beginning of a
    # character lies before a message that is larger than that.
    _limit: int = field(default=EVENT_BYTES, init=False)
    # What is left of an event that is too large to hand over at once.
    _rest: memoryview | None = field(default=None, init=False)

    @property
    def length(self) -> None:
        """Nobody knows."""
        return

    def start(self, sink: Sink) -> None:
        """Begin: what lies behind the tail first, at least one control event."""
        self._sink = sink
        self._audience = self._context.streams.watch(self._state, self)
        now = self._last_event = self._context.wheel.seconds()
        lifetime = self._context.settings.sse_lifetime
        if lifetime:
            self._ends_at = now + lifetime * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 (spreads load)
        self._set_timer(now)
        self._ending = self._context.streams.ending
        self._advance()

    def wake(self) -> None:
        """Something has changed. A reader that is behind finds it by itself."""
        if self._paused or self._fetching:
            return
        assert self._audience is not None
        frame = self._audience.newest
        # Made in this wake-up for a reader that was where this one is. Most readers need no more than to be handed it:
        # 0.4 us instead of 1.7 (python -m bench.application).
        if (
            isinstance(frame, LiveFrame)
            and frame.start == self._position
            and self._greeted
            and not self._ending
            and self._sink is not None
            and self._keeps_pace(frame)
        ):
            self._position, self._cursor, self._last_event = frame.end, frame.interval, frame.made_at
            self._cursor_is_ours, self._limit = True, EVENT_BYTES
            self._paused = not self._sink.write_frame(frame.shared)
        else:
            self._advance()

    def resume(self) -> None:
        """The connection has drained: catch up."""
        self._paused = False
        if self._rest is not None:
            self._send_rest()
        if not (self._paused or self._fetching):
            self._advance()

    def end(self) -> None:
        """Finish after the control event that follows what has been begun."""
        self._ending = True
        if self._greeted and self._rest is None:
            self._finish()

    def stop(self) -> None:
        """The client has gone."""
        self._release()

    def _advance(self) -> None:
        """Send all that is new, as far as the connection takes it."""
        while self._sink is not None and not self._paused:
            try:
                state = self._context.streams.incarnation(self._state.id)
            except ProtocolError:
                self._finish()  # deleted or expired
                return
            if self._greeted and self._position == state.tail and not state.closed:
                if self._ending:
                    self._finish()
                return
            try:
                frame = self._frame(state)
            except Exception:
                self._failed(Failure())
                return
            if isinstance(frame, Deferred):
                self._fetching = True
                frame.addCallback(self._fetched).addErrback(self._failed)
                return
            if not self._deliver(frame):
                return

    def _frame(self, state: StreamState) -> LiveFrame | Deferred[LiveFrame]:
        """The frame that begins where this reader is; shared if another reader has had it made."""
        audience = self._audience
        assert audience is not None
        current = interval(self._context.clocks.wall())
        tail, closed = state.tail, state.closed
        if audience.frames:
            made = audience.frames.get(self._position)
            if isinstance(made, LiveFrame) and made.suits(tail, closed, current):
                return made
        found = self._context.streams.read(state, self._position, self._limit, on_boundary=True)

        def make(found: Slice) -> LiveFrame | Deferred[LiveFrame]:
            data = found.read(found.start, found.end) if len(found) else b""
            return then(data, lambda stored: keep(make_frame(found, stored, tail, closed, current)))

        def keep(frame: LiveFrame) -> LiveFrame:
            if audience.frames is not None and frame.moves:
                audience.frames[frame.start] = frame
                if frame.up_to_date and not frame.final and len(frame.shared.data) <= 2 * EVENT_BYTES:
                    frame.made_at = self._context.wheel.seconds()
                    audience.newest = frame
            return frame

        return then(found, make)

    def _fetched(self, frame: LiveFrame) -> None:
        self._fetching = False
        if self._sink is not None and self._deliver(frame):
            self._advance()

    def _failed(self, failure: Failure) -> None:
        self._fetching = False
        if not failure.check(StorageDamaged):  # the storage logs that, once for each stream
            _log.failure("a live read failed", failure)
        sink = self._sink
        self._release()
        if sink is not None:
            sink.abort()

    def _deliver(self, frame: LiveFrame) -> bool:
        """Send a frame; whether to go on with the next."""
        if self._greeted and not frame.moves:
            if frame.up_to_date:
                return False  # the rest of the character isn't there yet
            self._limit *= 2
            return True
        self._greeted = True
        self._limit = EVENT_BYTES
        self._position = frame.end
        self._last_event = self._context.wheel.seconds()
        self._ending = self._ending or frame.final
        if self._keeps_pace(frame):
            self._cursor, self._cursor_is_ours = frame.interval, True
            self._send(frame.shared)
        else:
            self._send(self._own_frame(frame))
        if self._ending and self._rest is None:
            self._finish()
            return False
        return not self._paused

    def _keeps_pace(self, frame: LiveFrame) -> bool:
        """Whether the shared cursor is above the client's own, and not below the last one it was sent."""
        if self._cursor is None or self._cursor < frame.interval or frame.final:
            return True
        return self._cursor_is_ours and self._cursor == frame.interval

    def _own_frame(self, frame: LiveFrame) -> Frame:
        """The same events with a cursor ahead of the client's own."""
        if not self._cursor_is_ours:
            self._cursor = next_cursor(self._cursor, frame.interval)
            self._cursor_is_ours = True
        control = control_event(format_offset(frame.end), self._cursor, frame.up_to_date, frame.final)
        return Frame(frame.events + control)

    def _send(self, frame: Frame) -> None:
        assert self._sink is not None
        if len(frame.data) <= 2 * EVENT_BYTES:
            self._paused = not self._sink.write_frame(frame)
        else:
            self._rest = memoryview(frame.data)
            self._send_rest()

    def _send_rest(self) -> None:
        while self._rest is not None and self._sink is not None and not self._paused:
            piece, self._rest = bytes(self._rest[:EVENT_BYTES]), self._rest[EVENT_BYTES:] or None
            self._paused = not self._sink.write(piece)
        if self._rest is None and self._ending:
            self._finish()

    def _set_timer(self, now: float) -> None:
        """One timer for the heartbeat and the end of life, whichever is first."""
        due = self._last_event + self._context.settings.sse_heartbeat
        if self._ends_at:
            due = min(due, self._ends_at)
        self._timer = self._context.wheel.call_later(due - now, self._tick)

    def _tick(self) -> None:
        now = self._context.wheel.seconds()
        if self._ends_at and now >= self._ends_at:
            self._ends_at = 0.0
            self.end()
        if self._sink is None:
            return
        if now - self._last_event >= self._context.settings.sse_heartbeat:
            self._last_event = now
            if not self._paused and self._rest is None:
                self._paused = not self._sink.write_frame(_HEARTBEAT)
        self._set_timer(now)

    def _finish(self) -> None:
        sink = self._sink
        self._release()
        if sink is not None:
            sink.finish()

    def _release(self) -> None:
        self._sink = self._rest = None
        if self._timer is not None:
            self._timer.cancel()
        self._context.streams.unwatch(self._state.id, self)
