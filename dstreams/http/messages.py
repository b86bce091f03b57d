"""The values that transports and operations exchange: a request, a response, and a streamed body.

The transports (the HTTP/1.1 channel, HTTP/2 and the twisted.web resource) build :class:`Request` values and write
:class:`Response` values. The operations convert one to the other, without knowledge of sockets or twisted.web.

Header names and values are ``bytes``, because that is what the parsers deliver, and the hot path decodes only what it
reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field

from dstreams.protocol.problems import ProtocolError
from dstreams.protocol.queries import ReadQuery
from dstreams.runtime.pending import Pending
from dstreams.storage.interface import FileRange
from dstreams.streams.appending import AppendRequest

if TYPE_CHECKING:
    # Routes name operations, and these import this module.
    from dstreams.http.routes import Route


@define(eq=False)
class HeadCacheEntry:
    """Facts derived from a request's head alone, cached for the next request with exactly the same head.

    Clients that append to one stream, or request its state, send the same head again and again. Every fact is ``None``,
    or empty, until it is needed.

    :param route: the operation that answers; ``name`` is the stream's name, empty if there is none.
    :param lines: the header lines that every response to this head carries.
    :param append: the parsed headers of an append.
    :param query: the parsed query of a read.
    :param observed: cached by the observer of requests.
    :param forwarded: the request as a trusted proxy reports it.
    """

    route: Route | None = None
    name: str = ""
    lines: bytes = b""
    append: AppendRequest | None = None
    query: ReadQuery | None = None
    observed: Any = None
    forwarded: Any = None


@define
class Via:
    """The peer that sent a request to this server, if proxies are expected between the client and the server.

    :param peer: its address as text, without the port; empty for a UNIX socket.
    :param trusted: whether it is a trusted proxy; otherwise it counts as the client itself.
    :param identity: the client's identity, as reported by a trusted proxy with a client certificate.
    """

    peer: str
    trusted: bool
    identity: str | None = None


@define(eq=False)
class Request:
    """One HTTP request.

    A request exists as soon as its head is complete. ``body`` is ``None`` until the whole body has arrived, so that an
    application can validate the head early (see :meth:`Application.validate_head`).

    :param method: the method, upper-case: ``b"GET"``.
    :param path: the path as sent, still percent-encoded, without the query; starts with ``/``.
    :param query: the text after the first ``?``, still percent-encoded; empty if there is none.
    :param headers: lower-case names to values without surrounding spaces; the values of a repeated header
        are joined by ``", "`` in the order of arrival (RFC 9110 section 5.3). Never modified, because requests with
        the same head share it.
    :param content_length: the announced size of the body in bytes, 0 if the request has no body, ``None`` if the size
        is unknown until the body ends (chunked).
    :param scheme: ``b"http"`` or ``b"https"``: how the client reached this server, or a trusted proxy in front of it.
    :param peer: the client's address in text form, without the port; empty when unknown.
    :param root: the part of the original path above ``path``, if this application is mounted below another one;
        otherwise empty.
    :param body: the complete body, or ``None`` while it is still arriving.
    :param facts: shared by requests with the same head.
    :param via: the peer that sent it, if proxies are expected; otherwise ``None``.
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
    facts: HeadCacheEntry = field(factory=HeadCacheEntry)
    via: Via | None = None


@define(eq=False)
class Frame:
    """Bytes for many readers: formatted once, and written to each of them without a copy.

    :param data: the bytes.
    """

    data: bytes
    _chunked: bytes | None = field(default=None, init=False)

    @property
    def chunked(self) -> bytes:
        """The same bytes as one HTTP/1.1 chunk (RFC 9112 section 7.1), formatted at first use."""
        chunked = self._chunked
        if chunked is None:
            chunked = self._chunked = b"%x\r\n%b\r\n" % (len(self.data), self.data)
        return chunked


class Sink(Protocol):
    """The destination of a streamed body. Every transport implements it."""

    def write(self, data: bytes) -> bool:
        """Send ``data`` (not empty).

        :return: ``False`` if the client is slower than the body: write nothing more until :meth:`Body.resume` is
            called. ``data`` is sent in any case.
        """

    def write_frame(self, frame: Frame) -> bool:
        """Send bytes that are shared with other readers; otherwise the same as :meth:`write`."""

    @property
    def sends_files(self) -> bool:
        """Whether :meth:`send_file` can ever send anything."""

    def send_file(self, part: FileRange) -> int:
        """Send bytes directly from a file, as many as can be sent immediately.

        :return: the number of bytes sent; 0 means that the caller must read and write them itself.
        """

    def finish(self) -> None:
        """End the body. Nothing may be written afterwards, and :meth:`Body.stop` is not called."""

    def abort(self) -> None:
        """Abort the connection because the body cannot be completed, so that the client notices."""


class Body(Protocol):
    """A response body that is produced while it is sent: a large read or a live reader's events."""

    @property
    def length(self) -> int | None:
        """The number of bytes that will be written, or ``None`` if that is not known beforehand."""

    def start(self, sink: Sink) -> None:
        """Start to write to ``sink``. Called once, after the response head has been written."""

    def resume(self) -> None:
        """Continue to write, because the client has caught up."""

    def stop(self) -> None:
        """Release everything and write nothing more, because the client has disconnected or was aborted."""


@define(eq=False)
class Response:
    """One HTTP response.

    :param status: the status code.
    :param head: the header lines, each terminated by CRLF. The transport adds framing headers: ``Content-Length``,
        ``Transfer-Encoding``, ``Connection`` and ``Date``. It is a block of lines rather than pairs, because most of
        it is constant and built once.
    :param body: the body as bytes, or its producer.
    """

    status: int
    head: bytes = b""
    body: bytes | Body = b""


@define(eq=False)
class Refusal(Response):
    """A response that reports an error. For the log it carries details that the client does not get.

    :param error: the error that the client sees.
    :param cause: the internal cause, if there is one.
    """

    error: ProtocolError | None = None
    cause: BaseException | None = None


class ObservedConnection(Protocol):
    """A connection, as observers of requests see it."""

    @property
    def http_version(self) -> str:
        """The HTTP version of the current request: ``1.0``, ``1.1`` or ``2``."""

    @property
    def peer(self) -> str:
        """The address of the peer; empty if it has none, as for a UNIX socket."""


class Observer(Protocol):
    """Called by the transports for every request, to count and log it. It never raises."""

    def answered(
        self, request: Request | None, response: Response, asked_at: float, connection: ObservedConnection
    ) -> None:
        """Handle a request that is answered: its response is about to be written.

        :param request: the request, or ``None`` if its head could not be read.
        :param asked_at: the time when its head was complete, by ``time.perf_counter``.
        :param speaker: the connection that it came from.
        """

    def abandoned(self, request: Request, asked_at: float, connection: ObservedConnection) -> None:
        """Handle a request whose client has disconnected before the response was ready."""


class Application(Protocol):
    """Answers the requests that the HTTP transports receive."""

    max_body_bytes: int
    """Maximum size in bytes of a request body that is buffered, for every request."""

    def validate_head(self, request: Request) -> Response | None:
        """Validate a request by its head alone, while the body is still arriving.

        It must return the response that :meth:`respond` would return, or ``None`` if that depends on the body.
        """

    def respond(self, request: Request) -> Pending[Response]:
        """Answer a complete request. It never raises; a Deferred never fails, and a pending result has a rescue."""

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        """Return the problem+json response to a message that violates HTTP.

        :param request: the request as far as it is known, or ``None`` if its head could not be read.
        :param status: one of 400, 408, 413, 414, 417, 431, 501, 503, 505.
        :param detail: one sentence for the client's developer.
        """
