"""Requests of ours, answered by a twisted.web site in the same process.

For everything that isn't a stream: health, metrics, pages. The site's ``Request`` gets a stand-in for its
channel, as twisted.web's own HTTP/2 support gives it one, so no second connection is needed. The output is
collected as a whole before it is answered, so a mounted site can't stream.
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

from dstreams.http.http1.replies import BODILESS, internal_error
from dstreams.http.messages import PageResponse, Request, Response, Sink

if TYPE_CHECKING:
    # Not when this is imported: a reactor may still have to be chosen.
    from twisted.web.http_headers import Headers
    from twisted.web.server import Request as WebRequest
    from twisted.web.server import Site

_log = Logger()

MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""The most that a mounted site may answer. Pages and metrics of a large server are a tenth of that; what is
larger should be a stream."""

_OURS = frozenset((b"connection", b"content-length", b"date", b"server", b"transfer-encoding"))
"""Headers of twisted.web's that the transport of the answer sets, or leaves out."""


class _OutputTooLarge(Exception):
    """The site has written more than ``MAX_OUTPUT_BYTES``."""


@define(eq=False)
class MountedSite:
    """Answers requests by a twisted.web site, for example that of a klein application.

    :param site: the site. It isn't started, and keeps no log of its own.
    """

    _site: Site

    def respond(self, request: Request) -> Deferred[Response]:
        """Answer a complete request.

        :return: the answer; never fails, unless it is cancelled because the client has gone: then the site's
            request loses its connection.
        """
        channel = _MountedChannel(self._site, request)
        channel.run()
        return channel.answer


@define(eq=False)
class _MountedChannel:
    """What a twisted.web request knows as its channel: one for each request.

    The attributes and methods are those that ``twisted.web.http.Request`` uses; their names are Twisted's.
    """

    site: Site
    _asked: Request
    answer: Deferred[Response] = field(init=False)
    transport: None = field(default=None, init=False)
    """Resources that write to a transport behind the request's back aren't served; HTTP/2 does the same."""
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
        """Where twisted.web logs a finished request."""
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
        # Instead of gotLength(), which puts large bodies into a temporary file.
        request.content = content = BytesIO()
        content.write(asked.body or b"")
        uri = asked.path + b"?" + asked.query if asked.query else asked.path
        # To a 1.0 client the body is sent as it is; a 1.1 client would get chunks, which are ours to make.
        request.requestReceived(asked.method, uri, b"HTTP/1.0")

    # -- what the request asks

    def getPeer(self) -> IAddress:
        """The client's address."""
        return _address(self._asked.peer, 0)

    def getHost(self) -> IAddress:
        """The address that the client asked: URLs that the site makes lead back to where it came from."""
        name, colon, port = self._asked.headers.get(b"host", b"").decode("latin-1").rpartition(":")
        if not colon or not port.isdigit():
            name, port = name + colon + port, "443" if self.isSecure() else "80"
        return _address(name.strip("[]") or "localhost", int(port))

    def isSecure(self) -> bool:  # noqa: N802
        """Whether the client used https."""
        return self._asked.scheme == b"https"

    # -- what the request writes

    def writeHeaders(  # noqa: N802
        self,
        version: bytes,  # noqa: ARG002 (Twisted's arguments)
        code: bytes,
        reason: bytes,  # noqa: ARG002
        headers: Headers,
    ) -> None:
        """The response has begun."""
        self._status = int(code)
        for name, values in headers.getAllRawHeaders():
            if name.lower() not in _OURS:
                self._head.extend(b"%b: %b\r\n" % (name, value) for value in values)
        lengths = headers.getRawHeaders(b"content-length")
        if lengths and lengths[0].isdigit():
            self._announced = int(lengths[0])

    def write(self, data: bytes) -> None:
        """A part of the body."""
        self._size += len(data)
        if self._size <= MAX_OUTPUT_BYTES:
            self._output.append(data)
        else:
            self._fail(_OutputTooLarge(f"{self._asked.path!r} answered more than {MAX_OUTPUT_BYTES} bytes"))

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        """Several parts of the body."""
        for part in parts:
            self.write(part)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """A producer writes the body; one that is to be pulled is asked again and again."""
        self._producer = producer
        if not streaming:
            self._pull()

    def unregisterProducer(self) -> None:
        """The producer has written everything."""
        self._producer = None

    def requestDone(self, _: WebRequest) -> None:  # noqa: N802
        """The response is complete."""
        self._web_request = None
        if not self.answer.called:
            self.answer.callback(self._response())

    def loseConnection(self) -> None:
        """The site gives up in the middle of a response."""
        self._fail(ConnectionDone("the site closed its connection"))

    abortConnection = loseConnection

    # -- the end

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
        """twisted.web found the body malformed, before the site saw the request."""
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
        """Tell the site's request that nobody waits for it."""
        request, self._web_request = self._web_request, None
        if request is not None:
            try:
                request.connectionLost(Failure(ConnectionDone()))
            except Exception:
                _log.failure("a mounted site failed when its client had gone")


@frozen
class _UnsentBody:
    """The body of an answer to HEAD: only its length is known (a ``Body``)."""

    length: int

    def start(self, sink: Sink) -> None:
        """Never called for HEAD."""
        sink.abort()

    def resume(self) -> None:
        """Never called for HEAD."""

    def stop(self) -> None:
        """Nothing to release."""


def _address(host: str, port: int) -> IAddress:
    if not host:
        return UNIXAddress(None)
    if ":" in host:
        return IPv6Address("TCP", host, port)
    return IPv4Address("TCP", host, port)
