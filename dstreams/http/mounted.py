"""Passes requests to a twisted.web site in the same process.

It serves everything that is not a stream: health, metrics and other pages. The site's ``Request`` gets a substitute
for its channel, as in twisted.web's own HTTP/2 support, so that no second connection is needed. The whole output is
collected before it is sent, so a mounted site cannot stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.http.messages import PageResponse, Request, Response, Sink
from dstreams.http.transport.replies import BODILESS, internal_error

if TYPE_CHECKING:
    # Not imported at run time, because a reactor may still have to be chosen.
    from twisted.web.http_headers import Headers
    from twisted.web.server import Request as WebRequest
    from twisted.web.server import Site

_log = Logger()

MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""Maximum bytes of a mounted site's response. Pages and metrics of a large server take a tenth of that; larger
data should be a stream."""

_OURS = frozenset((b"connection", b"content-length", b"date", b"server", b"transfer-encoding"))
"""Headers from twisted.web that the transport of the response sets itself, or leaves out."""


class _OutputTooLarge(Exception):
    """The site has written more than ``MAX_OUTPUT_BYTES``."""


@define(eq=False)
class MountedSite:
    """Answers requests with a twisted.web site, for example that of a klein application.

    :param site: the site. It is not started, and writes no log of its own.
    """

    _site: Site

    def respond(self, request: Request) -> Deferred[Response]:
        """Answer a complete request.

        :return: the response; it never fails. If it is cancelled because the client has disconnected, the site's
            request loses its connection.
        """
        channel = _MountedChannel(self._site, request)
        channel.run()
        return channel.answer


@define(eq=False)
class _MountedChannel:
    """The substitute for the channel of a twisted.web request, one for each request.

    It has the attributes and methods that ``twisted.web.http.Request`` uses; their names are Twisted's.
    """

    site: Site
    _asked: Request
    answer: Deferred[Response] = field(init=False)
    transport: None = field(default=None, init=False)
    """Always ``None``: resources that write to the transport directly are not supported, as in Twisted's HTTP/2."""
    _web_request: WebRequest | None = field(default=None, init=False)
    _status: int = field(default=0, init=False)
    _head: list[bytes] = field(factory=list, init=False)
    _announced: int | None = field(default=None, init=False)
    _output: list[bytes] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _producer: Any = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.answer = Deferred(self._client_gone)

    @property
    def factory(self) -> Site:
        """The object with which twisted.web logs a finished request."""
        return self.site

    def run(self) -> None:
        """Let the site answer the request."""
        try:
            self._process()
        except Exception as error:
            self._fail(error)

    def _process(self) -> None:
        asked = self._asked
        request = self._web_request = self.site.requestFactory(self)
        for name, value in asked.headers.items():
            request.requestHeaders.addRawHeader(name, value)
        request.parseCookies()
        # Used instead of gotLength(), which would put large bodies into a temporary file.
        request.content = content = BytesIO()
        content.write(asked.body or b"")
        uri = asked.path + b"?" + asked.query if asked.query else asked.path
        # HTTP/1.0 makes the site send the body unchanged; with 1.1 it would be chunked, which is the transport's task.
        request.requestReceived(asked.method, uri, b"HTTP/1.0")

    # -- called by the request for information

    def getPeer(self) -> IAddress:
        """Return the client's address."""
        return _address(self._asked.peer, 0)

    def getHost(self) -> IAddress:
        """Return the address that the client requested, so that URLs built by the site lead back to this server."""
        name, colon, port = self._asked.headers.get(b"host", b"").decode("latin-1").rpartition(":")
        if not colon or not port.isdigit():
            name, port = name + colon + port, "443" if self.isSecure() else "80"
        return _address(name.strip("[]") or "localhost", int(port))

    def isSecure(self) -> bool:  # noqa: N802
        """Whether the client used https."""
        return self._asked.scheme == b"https"

    # -- called by the request to write

    def writeHeaders(  # noqa: N802
        self,
        version: bytes,  # noqa: ARG002 (Twisted's arguments)
        code: bytes,
        reason: bytes,  # noqa: ARG002
        headers: Headers,
    ) -> None:
        """Store status and headers of the response."""
        self._status = int(code)
        for name, values in headers.getAllRawHeaders():
            if name.lower() not in _OURS:
                self._head.extend(b"%b: %b\r\n" % (name, value) for value in values)
        lengths = headers.getRawHeaders(b"content-length")
        if lengths and lengths[0].isdigit():
            self._announced = int(lengths[0])

    def write(self, data: bytes) -> None:
        """Store a part of the body."""
        self._size += len(data)
        if self._size <= MAX_OUTPUT_BYTES:
            self._output.append(data)
        else:
            self._fail(_OutputTooLarge(f"{self._asked.path!r} answered more than {MAX_OUTPUT_BYTES} bytes"))

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        """Store several parts of the body."""
        for part in parts:
            self.write(part)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Accept a producer of the body; a pull producer is called repeatedly."""
        self._producer = producer
        if not streaming:
            self._pull()

    def unregisterProducer(self) -> None:
        """Note that the producer has written everything."""
        self._producer = None

    def requestDone(self, _: WebRequest) -> None:  # noqa: N802
        """Send the response, which is complete."""
        self._web_request = None
        if not self.answer.called:
            self.answer.callback(self._response())

    def loseConnection(self) -> None:
        """Fail, because the site has aborted its response."""
        self._fail(ConnectionDone("the site closed its connection"))

    abortConnection = loseConnection

    # -- ending the request

    def _pull(self) -> None:
        if self._producer is not None and self._web_request is not None:
            try:
                self._producer.resumeProducing()
            except Exception as error:
                self._fail(error)
                return
            self.site.reactor.callLater(0, self._pull)

    def _response(self) -> Response:
        head, body = b"".join(self._head), b"".join(self._output)
        if self._asked.method == b"HEAD" and self._announced and self._status not in BODILESS:
            return PageResponse(self._status, head, _UnsentBody(self._announced))
        return PageResponse(self._status, head, body)

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        """Answer 400, because twisted.web found the body malformed before it called the site."""
        self._disconnect()
        if not self.answer.called:
            body = b'{"type":"/errors/bad-request","title":"Bad Request","status":400,"code":"BAD_REQUEST"}'
            self.answer.callback(PageResponse(400, b"Content-Type: application/problem+json\r\n", body))

    def _fail(self, error: Exception) -> None:
        if not self.answer.called:
            _log.failure("a mounted site failed", Failure(error))
            self._disconnect()
            self.answer.callback(internal_error())

    def _client_gone(self, _: Deferred[Response]) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        """Notify the site's request that its response is not needed any more."""
        request, self._web_request = self._web_request, None
        if request is not None:
            try:
                request.connectionLost(Failure(ConnectionDone()))
            except Exception:
                _log.failure("a mounted site failed after its client had disconnected")


@frozen
class _UnsentBody:
    """The body of a response to HEAD, of which only the length is known (a ``Body``)."""

    length: int

    def start(self, sink: Sink) -> None:
        """Abort the connection; this is never called for HEAD."""
        sink.abort()

    def resume(self) -> None:
        """Do nothing: never called for HEAD."""

    def stop(self) -> None:
        """Do nothing: there is nothing to release."""


def _address(host: str, port: int) -> IAddress:
    if not host:
        return UNIXAddress(None)
    if ":" in host:
        return IPv6Address("TCP", host, port)
    return IPv4Address("TCP", host, port)
