"""One HTTP/2 stream: a request as it arrives, and its response as it leaves."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dstreams.http.messages import Body, Frame, Request, Response
from dstreams.http.transport.bodies import ReceivedBody, stop_body
from dstreams.http.transport.limits import WRITE_PIECE_BYTES
from dstreams.http.transport.upload_budget import UploadBudget
from dstreams.runtime.pending import PendingCommit
from dstreams.storage.interface import FileRange

_log = Logger()


class Owner(Protocol):
    """What a stream asks of its connection."""

    @property
    def blocked(self) -> bool:
        """Whether the client takes nothing on this connection."""

    def has_output(self, stream: Http2Stream) -> None:
        """There is something to send, or nothing more will come."""

    def break_off(self, stream: Http2Stream) -> None:
        """The response can't be completed."""


@define(eq=False)
class Http2Stream:
    """A request, and where the body of its response goes (a ``Sink``).

    :param owner: the connection.
    :param id: the stream's number.
    :param now: when it began.
    :param bodies: how much of all requests' bodies may be arriving.
    :param request: the request; ``None`` when its head couldn't be read.
    """

    owner: Owner
    id: int
    now: float
    bodies: UploadBudget
    request: Request | None = None

    asked_at: float = field(default=0.0, init=False)
    """When its head was complete; only where an observer wants to know."""
    is_open: bool = field(default=True, init=False)
    """Whether the client may still send on it."""
    is_reading: bool = field(default=False, init=False)
    """Whether the body of the request is awaited."""
    last_byte: float = field(default=0.0, init=False)
    pending: Deferred[Response] | PendingCommit[Response] | None = field(default=None, init=False)
    """The application's answer, while it isn't there yet."""
    body: Body | None = field(default=None, init=False)
    """The streamed body that is being sent."""
    missing: int | None = field(default=None, init=False)
    """How many bytes of it are still owed, when its length was announced."""
    waiting: bool = field(default=False, init=False)
    """Whether the body was told to wait until the client has caught up."""
    is_ready: bool = field(default=False, init=False)
    """Whether it is in the connection's queue of those that have something to send."""
    stuck_since: float | None = field(default=None, init=False)
    """Since when the client has left no room for what is to be sent."""
    ended: bool = field(default=False, init=False)
    """Whether the response ends with what is queued."""
    queued: int = field(default=0, init=False)
    """How many bytes are to be sent."""
    received: int = field(default=0, init=False)
    held: int = field(default=0, init=False)
    """What is counted of the request's body in ``bodies``."""
    _arrived: ReceivedBody = field(factory=ReceivedBody, init=False)
    _queue: deque[bytes] = field(factory=deque, init=False)

    # -- the request

    def await_body(self) -> None:
        """The head is read; the body comes next."""
        self.is_reading = True
        self.last_byte = self.now

    def receive(self, data: bytes, now: float) -> bool:
        """A part of the body; whether there is room for it."""
        self.last_byte = now
        self.received += len(data)
        held = self.bodies.hold(self.held, self.received)
        self.held = max(0, held)
        if held >= 0:
            self._arrived.add(data, 0, len(data))
        return held >= 0

    def complete(self) -> Request:
        """The body is complete: the request with it."""
        request = self.request
        assert request is not None
        self.is_reading = False
        request.body = self._arrived.joined()
        self._let_go()
        return request

    def forget_request(self) -> None:
        """The request isn't needed any more, however much of it there was."""
        self.is_reading = False
        self._let_go()
        self.request = None

    def _let_go(self) -> None:
        self._arrived.clear()
        held, self.held = self.held, 0
        self.bodies.free(held)

    # -- the response

    def send_body(self, body: Body) -> None:
        """Let a body write itself; its head has been sent."""
        self.body, self.missing = body, body.length
        try:
            body.start(self)
        except Exception:
            self._fail()

    def queue(self, data: bytes) -> None:
        """Put bytes in line."""
        self._queue.append(data)
        self.queued += len(data)

    def take(self, most: int) -> bytes:
        """At most so many bytes of those that are in line, in one piece."""
        queue = self._queue
        if not queue:
            return b""
        first = queue.popleft()
        if len(first) > most:
            queue.appendleft(first[most:])
            first = first[:most]
        else:
            # Small writes share a frame.
            room = most - len(first)
            if queue and len(queue[0]) <= room:
                pieces = [first]
                while queue and len(queue[0]) <= room:
                    room -= len(queue[0])
                    pieces.append(queue.popleft())
                first = b"".join(pieces)
        self.queued -= len(first)
        return first

    def resume(self) -> None:
        """What was in line has been sent."""
        if self.waiting and self.body is not None:
            self.waiting = False
            try:
                self.body.resume()
            except Exception:
                self._fail()

    def stop(self) -> None:
        """Let go of everything: the stream has ended, or the client has gone."""
        body, self.body = self.body, None
        if body is not None:
            stop_body(body)
        pending, self.pending = self.pending, None
        if isinstance(pending, Deferred):
            pending.cancel()
        self._queue.clear()
        self.queued = 0
        self.forget_request()

    # -- what the body calls

    def write(self, data: bytes) -> bool:
        """See :meth:`Sink.write`."""
        if self.body is not None and data:
            if self.missing is not None:
                if len(data) > self.missing:
                    _log.error("a response body is longer than it announced")
                    self.abort()
                    return False
                self.missing -= len(data)
            self.queue(data)
            self.owner.has_output(self)
        if self.body is None:
            return False
        self.waiting = self.owner.blocked or self.queued >= WRITE_PIECE_BYTES
        return not self.waiting

    def write_frame(self, frame: Frame) -> bool:
        """See :meth:`Sink.write_frame`."""
        return self.write(frame.data)

    sends_files = False

    def send_file(self, part: FileRange) -> int:  # noqa: ARG002 (the interface's)
        """See :meth:`Sink.send_file`."""
        return 0

    def finish(self) -> None:
        """See :meth:`Sink.finish`."""
        if self.body is None:
            return
        if self.missing:
            _log.error("a response body is shorter than it announced")
            self.abort()
            return
        self.body = None
        self.ended = True
        self.owner.has_output(self)

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        if self.body is not None:
            self.body = None
            self.owner.break_off(self)

    def _fail(self) -> None:
        _log.failure("a response body failed while it was being sent")
        self.abort()
