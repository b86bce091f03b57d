"""One HTTP/2 stream: a request while it arrives, and its response while it is sent."""

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
    """The methods of the connection that a stream calls."""

    @property
    def blocked(self) -> bool:
        """Whether the client is slower than the server on this connection."""

    def has_output(self, stream: Http2Stream) -> None:
        """Queue a stream that has output, or that has ended."""

    def break_off(self, stream: Http2Stream) -> None:
        """Reset a stream whose response cannot be completed."""


@define(eq=False)
class Http2Stream:
    """A request, and the destination of the body of its response (a ``Sink``).

    :param owner: the connection.
    :param id: the stream's number.
    :param now: the time at which it began.
    :param bodies: the upload budget.
    :param request: the request; ``None`` if its head could not be read.
    """

    owner: Owner
    id: int
    now: float
    bodies: UploadBudget
    request: Request | None = None

    asked_at: float = field(default=0.0, init=False)
    """The time at which the head was complete; set only if there is an observer."""
    is_open: bool = field(default=True, init=False)
    """Whether the client may still send on it."""
    is_reading: bool = field(default=False, init=False)
    """Whether the body of the request is incomplete."""
    last_byte: float = field(default=0.0, init=False)
    pending: Deferred[Response] | PendingCommit[Response] | None = field(default=None, init=False)
    """The application's response, while it is pending."""
    body: Body | None = field(default=None, init=False)
    """The streamed body that is being sent."""
    missing: int | None = field(default=None, init=False)
    """The number of its bytes still to come, if its length was announced."""
    waiting: bool = field(default=False, init=False)
    """Whether the body waits until the client has caught up."""
    is_ready: bool = field(default=False, init=False)
    """Whether it is in the connection's queue of streams with output."""
    stuck_since: float | None = field(default=None, init=False)
    """The time since which the client's window has had no space for its output."""
    ended: bool = field(default=False, init=False)
    """Whether the response ends with what is queued."""
    queued: int = field(default=0, init=False)
    """The number of queued bytes."""
    received: int = field(default=0, init=False)
    held: int = field(default=0, init=False)
    """The number of bytes of the request's body that ``bodies`` counts."""
    _arrived: ReceivedBody = field(factory=ReceivedBody, init=False)
    _queue: deque[bytes] = field(factory=deque, init=False)

    # -- the request

    def await_body(self) -> None:
        """Wait for the body."""
        self.is_reading = True
        self.last_byte = self.now

    def receive(self, data: bytes, now: float) -> bool:
        """Add a part of the body. Return whether the upload budget allows it."""
        self.last_byte = now
        self.received += len(data)
        held = self.bodies.hold(self.held, self.received)
        self.held = max(0, held)
        if held >= 0:
            self._arrived.add(data, 0, len(data))
        return held >= 0

    def complete(self) -> Request:
        """Return the request with its complete body."""
        request = self.request
        assert request is not None
        self.is_reading = False
        request.body = self._arrived.joined()
        self._let_go()
        return request

    def forget_request(self) -> None:
        """Release the request, complete or not."""
        self.is_reading = False
        self._let_go()
        self.request = None

    def _let_go(self) -> None:
        self._arrived.clear()
        held, self.held = self.held, 0
        self.bodies.free(held)

    # -- the response

    def send_body(self, body: Body) -> None:
        """Start a streamed body; the head has been sent."""
        self.body, self.missing = body, body.length
        try:
            body.start(self)
        except Exception:
            self._fail()

    def queue(self, data: bytes) -> None:
        """Queue bytes."""
        self._queue.append(data)
        self.queued += len(data)

    def take(self, most: int) -> bytes:
        """Remove at most ``most`` bytes from the queue, and return them in one piece."""
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
        """Resume the body, because the queue has been sent."""
        if self.waiting and self.body is not None:
            self.waiting = False
            try:
                self.body.resume()
            except Exception:
                self._fail()

    def stop(self) -> None:
        """Release everything, because the stream has ended or the client has disconnected."""
        body, self.body = self.body, None
        if body is not None:
            stop_body(body)
        pending, self.pending = self.pending, None
        if isinstance(pending, Deferred):
            pending.cancel()
        self._queue.clear()
        self.queued = 0
        self.forget_request()

    # -- called by the body

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
