"""The values that cross the HTTP boundary: a request, a response, and a streamed body.

The HTTP/1.1 channel and the twisted.web resource build :class:`Request` values and write
:class:`Response` values; the operations turn one into the other and know neither sockets nor
twisted.web.

Header names and values are ``bytes`` throughout: that is what both parsers deliver, and the hot path
decodes nothing that it doesn't read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import define, field

from dstreams.eventually import Eventually
from dstreams.protocol.problems import ProtocolError
from dstreams.protocol.queries import ReadQuery
from dstreams.storage.interface import FileRange
from dstreams.streams.appending import AppendRequest


@define(eq=False)
class Facts:
    """What was worked out from a request's head alone, kept for the next request with the very same head.

    Clients that append to one stream, or ask for its state, send the same head again and again. Every fact is
    ``None``, or empty, until somebody needs it.

    :param operation: what answers; ``name`` the stream it is for.
    :param lines: the header lines that every answer carries.
    :param append: what an append asks for.
    :param query: what a read asks for.
    :param observed: what observers of requests remember of it.
    :param forwarded: what it says when a trusted proxy sends it.
    """

    operation: Callable[[Any, Request, str], Eventually[Response]] | None = None
    name: str = ""
    lines: bytes = b""
    append: AppendRequest | None = None
    query: ReadQuery | None = None
    observed: Any = None
    forwarded: Any = None


@define
class Via:
    """Who sent a request to this server where proxies are expected between the client and it.

    :param peer: its address in text form, without the port; empty for a UNIX socket.
    :param trusted: whether it is a trusted proxy; else it is taken for the client itself.
    :param identity: who the client is, by the word of a trusted proxy that has shown a certificate.
    """

    peer: str
    trusted: bool
    identity: str | None = None


@define(eq=False)
class Request:
    """One HTTP request.

    A request exists from the moment its head is complete. ``body`` is ``None`` until the whole body has
    arrived, so that an application can judge the head alone (see :meth:`Application.judge`).

    :param method: the method, upper-case: ``b"GET"``.
    :param path: the path as sent, still percent-encoded, without the query; starts with ``/``.
    :param query: what follows the first ``?``, still percent-encoded; empty when there is none.
    :param headers: lower-case names to values without surrounding blanks; the values of a repeated header
        are joined by ``", "`` in the order of arrival (RFC 9110 section 5.3). Never changed: requests with the
        same head share it.
    :param content_length: the announced body length in bytes, 0 when the request has no body, ``None``
        when only the end of the body tells (chunked).
    :param scheme: ``b"http"`` or ``b"https"``: how the client reached this server, or a trusted proxy before it.
    :param peer: the client's address in text form, without the port; empty when unknown.
    :param root: the part of the original path above ``path`` where this application is mounted below
        another one; empty when it is the whole site.
    :param body: the complete body, or ``None`` while it is still arriving.
    :param facts: shared by requests with the same head.
    :param via: who sent it, where proxies are expected; ``None`` where they aren't.
    """

    method: bytes
    path: bytes
    query: bytes
    headers: Mapping[bytes, bytes]
    content_length: int | None = 0
    scheme: bytes = b"http"
    peer: str = ""
    root: bytes = b""
    body: bytes | None = None
    facts: Facts = field(factory=Facts)
    via: Via | None = None


@define(eq=False)
class Frame:
    """Bytes that many readers get: formatted once, written to each of them without a copy.

    :param data: the bytes themselves.
    """

    data: bytes
    _chunked: bytes | None = field(default=None, init=False)

    @property
    def chunked(self) -> bytes:
        """The same bytes as one HTTP/1.1 chunk (RFC 9112 section 7.1), made at the first use."""
        chunked = self._chunked
        if chunked is None:
            chunked = self._chunked = b"%x\r\n%b\r\n" % (len(self.data), self.data)
        return chunked


class Sink(Protocol):
    """Where a streamed body goes. Implemented by the channel and by the twisted.web adapter."""

    def write(self, data: bytes) -> bool:
        """Send ``data`` (not empty).

        :return: ``False`` when the client is slower than the body: write nothing more until
            :meth:`Body.resume` is called. What was handed over is sent in any case.
        """

    def write_frame(self, frame: Frame) -> bool:
        """Send bytes shared with other readers; otherwise as :meth:`write`."""

    @property
    def sends_files(self) -> bool:
        """Whether :meth:`send_file` may do anything."""

    def send_file(self, part: FileRange) -> int:
        """Send bytes of a file that nobody has read, as many as can be sent at once.

        :return: how many it were. 0 when the client doesn't keep up, or anything else is the matter: write them.
        """

    def finish(self) -> None:
        """The body is complete. Nothing may be written afterwards; :meth:`Body.stop` isn't called."""

    def abort(self) -> None:
        """The body can't be completed: cut the connection, so that the client notices."""


class Body(Protocol):
    """A response body that is produced while it is sent: a large read or a live subscription."""

    @property
    def length(self) -> int | None:
        """The number of bytes that will be written, or ``None`` when that isn't known beforehand."""

    def start(self, sink: Sink) -> None:
        """Begin to write to ``sink``; called once, after the response head has been written."""

    def resume(self) -> None:
        """The client has caught up with what was written: go on."""

    def stop(self) -> None:
        """The client has gone, or was cut off: release everything, write nothing more."""


@define(eq=False)
class Response:
    """One HTTP response.

    :param status: the status code.
    :param head: the header lines, each ended by CRLF. Framing isn't part of it: ``Content-Length``,
        ``Transfer-Encoding``, ``Connection`` and ``Date`` are the transport's. A block of lines rather than
        pairs, because most of it is constant and built once.
    :param body: the body, or the producer of one.
    """

    status: int
    head: bytes = b""
    body: bytes | Body = b""


@define(eq=False)
class Refusal(Response):
    """A response that describes an error; for the log it carries what clients aren't told.

    :param error: what the client sees.
    :param cause: what lies behind it, when that is more.
    """

    error: ProtocolError | None = None
    cause: BaseException | None = None


@define(eq=False)
class PageResponse(Response):
    """A response that isn't about a stream: health, metrics, whatever else is mounted."""


class Speaker(Protocol):
    """A connection, as far as an observer cares."""

    @property
    def http_version(self) -> str:
        """The version of HTTP that is spoken in the present request: ``1.0``, ``1.1`` or ``2``."""

    @property
    def peer(self) -> str:
        """The address at its other end; empty where there is none, as of a UNIX socket."""


class Observer(Protocol):
    """Is told of every request by the transports, to count and to log it. Never raises."""

    def answered(self, request: Request | None, response: Response, asked_at: float, speaker: Speaker) -> None:
        """A request is answered: the response is about to be written.

        :param request: the request, or ``None`` when its head could not be read.
        :param asked_at: when its head was complete, by ``time.perf_counter``.
        :param speaker: where it came from.
        """

    def abandoned(self, request: Request, asked_at: float, speaker: Speaker) -> None:
        """The client has gone before there was an answer."""


class Application(Protocol):
    """What the HTTP transports serve."""

    max_body_bytes: int
    """The largest request body that is buffered, in bytes, whatever the request."""

    def judge(self, request: Request) -> Response | None:
        """Answer from the head alone, while the body is still arriving.

        Must give the same answer that :meth:`respond` would give, or ``None`` when that depends on the body.
        """

    def respond(self, request: Request) -> Eventually[Response]:
        """Answer a complete request. Never raises; a Deferred never fails, and what is decided can be rescued."""

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        """The problem+json answer to a message that HTTP itself doesn't allow.

        :param request: the request as far as it is known, or ``None`` when its head could not be read.
        :param status: one of 400, 408, 413, 414, 417, 431, 501, 503, 505.
        :param detail: one sentence for the client's developer.
        """
