"""Server-Sent Events: a read that goes on (PROTOCOL 5.8).

Every wake-up formats what is new once. The readers that have all before it, which is nearly all of them, are
handed the same bytes object. A reader whose connection is slower than the stream is left alone; when its
transport has drained it catches up from storage, so that nothing queues for it meanwhile. A message that is larger than
an ordinary event is converted while it is sent, a piece at a time.
"""

from __future__ import annotations

import random
from functools import partial
from typing import ClassVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.http.context import Context
from dstreams.http.messages import Frame, Request, Response, Sink
from dstreams.http.operations.long_poll import nothing_new
from dstreams.http.operations.read import read_query
from dstreams.model.state import StreamState
from dstreams.protocol.cursors import interval, next_cursor
from dstreams.protocol.headers import LAST_EVENT_ID_KEY
from dstreams.protocol.offsets import NOW, format_offset, parse_offset
from dstreams.protocol.problems import InvalidOffset, ProtocolError
from dstreams.protocol.sse import (
    HEARTBEAT,
    LINE_BYTES,
    SseEncoding,
    control_event,
    data_event,
    end_of_event,
    incomplete_suffix,
)
from dstreams.protocol.sse_pieces import EventWriter, event_writer
from dstreams.runtime.pending import then
from dstreams.runtime.timers import Timer
from dstreams.storage.interface import StorageDamaged
from dstreams.streams.live import Audience
from dstreams.streams.reading import Slice

_log = Logger()

EVENT_BYTES = LINE_BYTES - 16
"""The most stored bytes in one data event, unless a single message is larger. They fit into one line with the field's
name, and with a bracket or an unfinished character before them."""

PIECE_BYTES = 16 * 1024
"""The most stored bytes of a larger event that are written to a connection at a time. Written, they are up to six times
as many: a newline becomes a line of its own. A connection holds a piece besides what its transport buffers."""

MAX_FRAMES = 16
"""The most frames that a wake-up keeps for readers that are called later."""

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


def subscribe(context: Context, request: Request, name: str) -> Response | Deferred[Response]:
    """Send all messages after an offset, then those that are appended.

    The offset is the ``Last-Event-ID`` of the request if it has one, because a browser that reconnects repeats the URL
    of its first request and adds that header.

    :return: 200 with events; 204 if the ``Last-Event-ID`` is the tail of a closed stream. Browsers reconnect after
        the end of every event stream and stop at a 204.
    :raise InvalidOffset: (or the Deferred fails) when the offset is beyond the stream's tail.
    """
    query = read_query(request)
    state = context.streams.find(name)
    head, offset = _HEAD_OF_URL, query.offset or 0
    resumed = _last_event_id(request)
    if resumed is not None:
        head, offset = _HEAD_OF_EVENT_ID, resumed
    position = state.tail if offset == NOW else offset
    if resumed is not None and state.closed and position == state.tail:
        context.streams.renew(state)
        return nothing_new(state, None)
    if state.config.content_type.sse_encoding is SseEncoding.BASE64:
        head += b"Stream-SSE-Data-Encoding: base64\r\n"
    # Read before the response begins: an offset that is not one of this stream's must get a 400, and one inside a
    # message is answered from the start of that message.
    checked = context.streams.read(state, position, EVENT_BYTES)
    context.streams.renew(state)
    return then(checked, lambda found: Response(200, head, SseReader(context, state, found.start, query.cursor)))


def _last_event_id(request: Request) -> int | None:
    """Return the position after the last event that the client received.

    :return: ``None`` without the header, and for a value that is not an offset: browsers repeat the value at every
        reconnect, and a 400 would stop them permanently.
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
    """The events of one wake-up, shared by all readers that are up to date.

    :param start: the position of its readers before it.
    :param end: their position after it.
    :param reached: the end of its messages; greater than ``end`` while an incomplete character is held back.
    :param tail: the stream's tail when the frame was made.
    :param closed: whether the stream was closed then; ``final`` means that this is the last frame.
    :param events: the data event, or nothing.
    :param shared: the data event and the control event with the cursor of ``interval``.
    :param made_at: the time at which it was made, in the wheel's seconds.
    """

    start: int
    end: int
    reached: int
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
        """Whether it advances its readers; it does not while it has only the beginning of a character."""
        return bool(self.events) or self.final

    def suits(self, tail: int, closed: bool, current: int) -> bool:
        """Whether a frame made now would be the same."""
        return self.tail == tail and self.closed == closed and self.interval == current


def make_frame(found: Slice, data: bytes, tail: int, closed: bool, current: int) -> LiveFrame:
    """Format the new messages as events.

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
        # A CR at the end waits too: if an LF follows, both are one line end, and the format would make it two.
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
        found.end,
        tail,
        closed,
        found.closed,
        found.up_to_date,
        current,
        events,
        Frame(events + control),
    )


@define(eq=False)
class LargeEvent:
    """A data event of one message that is larger than :data:`EVENT_BYTES`, formatted while it is sent.

    :param found: the message, perhaps with an unfinished character of an earlier one before it.
    """

    found: Slice
    _writer: EventWriter = field(init=False)
    _position: int = field(init=False)
    _end: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        content_type = self.found.config.content_type
        encoding = content_type.sse_encoding
        self._writer = event_writer(encoding, content_type.decoding_table)
        self._position = self.found.start
        # Every stored JSON message is followed by a comma.
        self._end = self.found.end - (encoding is SseEncoding.JSON)

    @property
    def is_complete(self) -> bool:
        """Whether the last piece was returned."""
        return self._position == self._end

    @property
    def next_position(self) -> int:
        """The reader's position after the complete event."""
        return self.found.end - self._writer.held_back

    def next_piece(self) -> bytes | Deferred[bytes]:
        """Return the next bytes of the event, at least one."""
        end = min(self._position + PIECE_BYTES, self._end)
        return then(self.found.read(self._position, end), partial(self._write, end))

    def _write(self, end: int, data: bytes) -> bytes:
        opening = self._writer.begin() if self._position == self.found.start else b""
        self._position = end
        written = opening + self._writer.write(data)
        if self.is_complete:
            written += self._writer.end(self.found.closed) + end_of_event(format_offset(self.next_position))
        return written


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
    # Whether _cursor was sent on this connection, rather than received from the client.
    _cursor_is_ours: bool = field(default=False, init=False)
    # The number of bytes after the position that are the beginning of a character, followed by a message that was too
    # large to be sent with them.
    _unfinished: int = field(default=0, init=False)
    # The large event that is being sent.
    _large: LargeEvent | None = field(default=None, init=False)

    @property
    def length(self) -> None:
        """Always ``None``: the length of an SSE body is unknown."""
        return

    def start(self, sink: Sink) -> None:
        """Send what was appended before, and at least one control event."""
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
        """Send what is new. A reader that is behind finds it by itself."""
        if self._paused or self._fetching:
            return
        assert self._audience is not None
        frame = self._audience.newest
        # Made in this wake-up for a reader at the same position. Most readers only need to write it: 0.4 us instead of
        # 1.7 (python -m bench.application).
        if (
            isinstance(frame, LiveFrame)
            and frame.start == self._position
            and self._greeted
            and not self._ending
            and self._sink is not None
            and self._keeps_pace(frame)
        ):
            self._position, self._cursor, self._last_event = frame.end, frame.interval, frame.made_at
            self._cursor_is_ours, self._unfinished = True, 0
            self._paused = not self._sink.write_frame(frame.shared)
        else:
            self._advance()

    def resume(self) -> None:
        """The connection has drained: catch up."""
        self._paused = False
        if self._large is not None and not self._fetching:
            self._send_pieces(self._large)
        if not (self._paused or self._fetching):
            self._advance()

    def end(self) -> None:
        """Finish after the control event that follows what has been begun."""
        self._ending = True
        if self._greeted and self._large is None:
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

    def _frame(self, state: StreamState) -> LiveFrame | LargeEvent | Deferred[LiveFrame | LargeEvent]:
        """The frame that begins where this reader is; shared if another reader has had it made."""
        audience = self._audience
        assert audience is not None
        current = interval(self._context.clocks.wall())
        tail, closed = state.tail, state.closed
        if audience.frames:
            made = audience.frames.get(self._position)
            if isinstance(made, LiveFrame) and made.suits(tail, closed, current):
                return made
        unfinished = self._unfinished
        found = self._context.streams.read(state, self._position + unfinished, EVENT_BYTES, on_boundary=True)

        def make(found: Slice) -> LiveFrame | LargeEvent | Deferred[LiveFrame | LargeEvent]:
            is_large = len(found) > EVENT_BYTES
            if unfinished:
                found = evolve(found, start=found.start - unfinished)
            if is_large:
                return LargeEvent(found)
            data = found.read(found.start, found.end) if len(found) else b""
            return then(data, lambda stored: keep(make_frame(found, stored, tail, closed, current)))

        def keep(frame: LiveFrame) -> LiveFrame:
            frames = audience.frames
            if frames is not None and frame.moves:
                if len(frames) >= MAX_FRAMES:
                    del frames[next(iter(frames))]  # the oldest
                frames[frame.start] = frame
                if frame.up_to_date and not frame.final:
                    frame.made_at = self._context.wheel.seconds()
                    audience.newest = frame
            return frame

        return then(found, make)

    def _fetched(self, frame: LiveFrame | LargeEvent) -> None:
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

    def _deliver(self, frame: LiveFrame | LargeEvent) -> bool:
        """Send a frame; whether to go on with the next."""
        assert self._sink is not None
        if isinstance(frame, LargeEvent):
            self._large = frame
            return self._send_pieces(frame)
        if self._greeted and not frame.moves:
            if frame.up_to_date:
                return False  # the rest of the character isn't there yet
            self._unfinished = frame.reached - frame.end
            return True
        if self._keeps_pace(frame):
            self._cursor, self._cursor_is_ours = frame.interval, True
            shared = frame.shared
        else:
            shared = Frame(frame.events + self._control(frame.end, frame.interval, frame.up_to_date, frame.final))
        self._paused = not self._sink.write_frame(shared)
        return self._delivered(frame.end, frame.final)

    def _delivered(self, position: int, final: bool) -> bool:
        """Note that events were sent up to a position; whether to go on with the next."""
        self._greeted = True
        self._unfinished = 0
        self._position = position
        self._last_event = self._context.wheel.seconds()
        self._ending = self._ending or final
        if self._ending:
            self._finish()
            return False
        return not self._paused

    def _keeps_pace(self, frame: LiveFrame) -> bool:
        """Whether the shared cursor is above the client's own, and not below the last one it was sent."""
        if self._cursor is None or self._cursor < frame.interval or frame.final:
            return True
        return self._cursor_is_ours and self._cursor == frame.interval

    def _control(self, end: int, current: int, up_to_date: bool, final: bool) -> bytes:
        """Return a control event with a cursor for this reader alone.

        :param current: the cursor interval. The cursor is ahead of the one that the client came with.
        """
        if not self._cursor_is_ours:
            self._cursor, self._cursor_is_ours = next_cursor(self._cursor, current), True
        elif self._cursor is None or self._cursor < current:
            self._cursor = current
        return control_event(format_offset(end), self._cursor, up_to_date, final)

    def _send_pieces(self, event: LargeEvent) -> bool:
        """Send more of a large event, as the connection takes it; whether to go on with the next event."""
        while self._sink is not None and not self._paused:
            try:
                piece = event.next_piece()
            except Exception:
                self._failed(Failure())
                return False
            if isinstance(piece, Deferred):
                self._fetching = True
                piece.addCallback(self._piece_fetched, event).addErrback(self._failed)
                return False
            if self._send_piece(event, piece):
                return self._delivered(event.next_position, event.found.closed)
        return False

    def _piece_fetched(self, piece: bytes, event: LargeEvent) -> None:
        self._fetching = False
        if self._sink is None:
            return
        if self._send_piece(event, piece):
            goes_on = self._delivered(event.next_position, event.found.closed)
        else:
            goes_on = self._send_pieces(event)
        if goes_on:
            self._advance()

    def _send_piece(self, event: LargeEvent, piece: bytes) -> bool:
        """Send a piece, with a control event behind the last one; whether it was that."""
        assert self._sink is not None
        if event.is_complete:
            self._large = None
            found, current = event.found, interval(self._context.clocks.wall())
            piece += self._control(event.next_position, current, found.up_to_date, found.closed)
        self._paused = not self._sink.write(piece)
        return event.is_complete

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
            if not self._paused and self._large is None:
                self._paused = not self._sink.write_frame(_HEARTBEAT)
        self._set_timer(now)

    def _finish(self) -> None:
        sink = self._sink
        self._release()
        if sink is not None:
            sink.finish()

    def _release(self) -> None:
        self._sink = self._large = None
        if self._timer is not None:
            self._timer.cancel()
        self._context.streams.unwatch(self._state.id, self)
