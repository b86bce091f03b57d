"""Writes the responses of a connection: small ones whole, others as they are produced."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from attrs import define, field
from twisted.logger import Logger

from dstreams.http.http1.output_buffer import OutputBuffer
from dstreams.http.http1.sink import ChannelSink
from dstreams.http.messages import Body, Response
from dstreams.http.transport.bodies import BytesBody, stop_body
from dstreams.http.transport.limits import WRITE_PIECE_BYTES
from dstreams.http.transport.replies import BODILESS, DateLine
from dstreams.runtime.timers import TimerWheel

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""Reason phrases of RFC 9110 that differ between Python's versions."""

STATUS_LINES: dict[int, bytes] = {
    status.value: f"HTTP/1.1 {status.value} {_PHRASES.get(status.value, status.phrase)}\r\n".encode("ascii")
    for status in HTTPStatus
}
"""The status lines, by status code."""


def connection_line(keep_alive: bool, is_1_0: bool) -> bytes:
    """Return the ``Connection`` header line; empty if the connection stays open by default."""
    if not keep_alive:
        return b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if is_1_0 else b""


def unknown_status(status: int) -> bytes:
    """Return the status line for a status that is not in :data:`STATUS_LINES`."""
    return b"HTTP/1.1 %d Unknown\r\n" % status


_log = Logger()


@define(eq=False)
class ResponseWriter:
    """Writes one response after the other.

    :param output: the connection's output.
    :param date: the ``Date`` header.
    :param on_end: called at the end of each response, with whether it is complete; if not, the client must be
        told by cutting the connection.
    :param wheel: determines when the turn of the reactor is over.
    :param go_on: calls :meth:`resume` and sends the result; called in a later turn.
    """

    _output: OutputBuffer
    _date: DateLine
    _on_end: Callable[[bool], None]
    _wheel: TimerWheel
    _go_on: Callable[[], None]
    keep_alive: bool = field(default=True, init=False)
    """Whether the connection stays open after the current response."""
    _is_1_0: bool = field(default=False, init=False)
    _is_head: bool = field(default=False, init=False)
    _body: Body | None = field(default=None, init=False)
    _sink: ChannelSink | None = field(default=None, init=False)

    @property
    def body(self) -> Body | None:
        """The streamed body that is being sent."""
        return self._body

    @property
    def version(self) -> str:
        """The HTTP version of the current request."""
        return "1.0" if self._is_1_0 else "1.1"

    def begin(self, is_head: bool, is_1_0: bool, keep_alive: bool) -> None:
        """Prepare for the response to a request, which :meth:`send` will write.

        :param is_head: whether the response is sent without its body.
        :param is_1_0: whether the request is HTTP/1.0.
        :param keep_alive: whether the connection stays open after the response.
        """
        self._is_head = is_head
        self._is_1_0 = is_1_0
        self.keep_alive = keep_alive

    def send(self, response: Response) -> None:
        """Write a response, or its head and the first part of its body.

        :raises Exception: the response is unusable, and nothing of it was written.
        """
        body = response.body
        if not isinstance(body, bytes):
            self._send_stream(response, body)
            return
        framing = b""
        if response.status in BODILESS:
            body = b""
        elif self._is_head:
            framing, body = b"Content-Length: %d\r\n" % len(body) if body else b"", b""
        elif len(body) <= WRITE_PIECE_BYTES:
            framing = b"Content-Length: %d\r\n" % len(body)
        else:
            self._send_stream(response, BytesBody(body))
            return
        self._write(response, framing, body)
        self._on_end(True)

    def resume(self) -> None:
        """Continue a waiting body, because the client has received what was sent or because a new turn has begun."""
        if self._body is not None and self._sink is not None and self._sink.wants_resumption():
            try:
                self._body.resume()
            except Exception:
                self._break_off()

    def stop(self) -> None:
        """Stop writing, because the client has disconnected or was aborted."""
        body = self._let_go()
        if body is not None:
            stop_body(body)

    def close(self) -> None:
        """Stop, and drop the callbacks, because they refer to the owner of this object."""
        self.stop()
        self._on_end, self._go_on = _ignore, _nothing

    def _send_stream(self, response: Response, body: Body) -> None:
        length = body.length
        if self._is_head or response.status in BODILESS:
            stop_body(body)
            framing = b"Content-Length: %d\r\n" % length if length and response.status not in BODILESS else b""
            self._write(response, framing)
            self._on_end(True)
            return
        framing, chunked = b"", False
        if length is not None:
            framing = b"Content-Length: %d\r\n" % length
        elif self._is_1_0:
            self.keep_alive = False  # the body ends where the connection does
        else:
            framing, chunked = b"Transfer-Encoding: chunked\r\n", True
        mark = self._output.mark()
        self._write(response, framing)
        self._body = body
        self._sink = ChannelSink(self._output, chunked, length, self._stream_ended, self._wheel, self._go_on)
        try:
            body.start(self._sink)
        except Exception:
            if self._body is body and self._output.take_back(mark):
                self._let_go()
                raise
            self._break_off()

    def _write(self, response: Response, framing: bytes, body: bytes = b"") -> None:
        connection = b"" if self.keep_alive and not self._is_1_0 else connection_line(self.keep_alive, self._is_1_0)
        first, date = STATUS_LINES.get(response.status) or unknown_status(response.status), self._date.current()
        self._output.write(b"".join((first, response.head, date, connection, framing, b"\r\n", body)))

    def _stream_ended(self, complete: bool) -> None:
        self._let_go()
        self._on_end(complete)

    def _break_off(self) -> None:
        """Abort the response, because its body has raised an exception."""
        _log.failure("a response body failed while it was being sent")
        if self._let_go() is not None:
            self._on_end(False)

    def _let_go(self) -> Body | None:
        body, sink, self._body, self._sink = self._body, self._sink, None, None
        if sink is not None:
            sink.close()
        return body


def _ignore(complete: bool) -> None:
    """Do nothing: the callback of a closed writer for the end of a response."""


def _nothing() -> None:
    """Do nothing: the callback of a closed writer for resuming a body."""
