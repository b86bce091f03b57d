"""The application as a twisted.web resource, to be mounted in another site.

twisted.web reads the whole body before it calls the resource, so requests are validated only when they are complete.
Everything else is the same as on the server's own channel.
"""

from __future__ import annotations

import time

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as WebRequest
from zope.interface import implementer

from dstreams.http.messages import Application, Body, Frame, Observer, Request, Response
from dstreams.http.transport.exchange import Exchange
from dstreams.protocol.headers import SINGLETONS
from dstreams.runtime.pending import Pending, as_deferred
from dstreams.storage.interface import FileRange
from dstreams.streams.streams import Streams

_log = Logger()


class StreamsResource(Resource):
    """Answers all requests below the path where it is mounted.

    :param application: answers the requests.
    :param streams: the engine of the application.
    :param observer: called for every request.
    """

    isLeaf = True

    def __init__(self, application: Application, streams: Streams, observer: Observer | None = None) -> None:
        super().__init__()
        self._exchange = Exchange(application)
        self._observer = observer
        self.streams = streams

    def render(self, request: WebRequest) -> int:
        """Answer a request; the application handles all methods."""
        asked_at = time.perf_counter()
        asked = read_request(request)
        assert asked.body is not None
        response: Pending[Response]
        repeated = repeated_singletons(request)
        if repeated:
            response = self._exchange.refuse(asked, 400, f"Headers that must not be repeated: {repeated}")
        elif len(asked.body) > self._exchange.application.max_body_bytes:
            response = self._exchange.validate_head(asked) or self._exchange.refuse_too_large(asked)
        else:
            response = self._exchange.respond(asked)
        if isinstance(response, Response):
            self._answer(request, asked, asked_at, response)
            return NOT_DONE_YET
        answering: Deferred[Response] = as_deferred(response)
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addCallback(lambda answered: self._answer(request, asked, asked_at, answered))
        answering.addErrback(_not_written)
        return NOT_DONE_YET

    def _answer(self, request: WebRequest, asked: Request, asked_at: float, response: Response) -> None:
        if self._observer is not None:
            connection = _Speaker(request.clientproto.decode("latin-1").removeprefix("HTTP/"), asked.peer)
            if has_gone(request):
                self._observer.abandoned(asked, asked_at, connection)
            else:
                self._observer.answered(asked, response, asked_at, connection)
        write_response(request, response)


@frozen
class _Speaker:
    """A connection of twisted.web (a ``ObservedConnection``)."""

    http_version: str
    peer: str


def has_gone(request: WebRequest) -> bool:
    """Whether the client has disconnected, so that no response can be sent."""
    # twisted.web removes the channel when the client has disconnected, although its types do not show that.
    return getattr(request, "channel", None) is None or bool(request.finished)


def _not_written(failure: Failure) -> None:
    if not failure.check(CancelledError):  # cancelled because the client has disconnected
        _log.failure("writing an answer failed", failure)


def repeated_singletons(request: WebRequest) -> str:
    """Return the names of headers that must not be repeated but are, separated by commas; usually empty."""
    return ", ".join(
        sorted(
            name.lower().decode("ascii")
            for name, values in request.requestHeaders.getAllRawHeaders()
            if len(values) > 1 and name.lower() in SINGLETONS
        )
    )


def read_request(request: WebRequest) -> Request:
    """Convert a twisted.web request to a :class:`Request`."""
    headers = {
        name.lower(): b", ".join(value.strip(b" \t") for value in values)
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    # postpath is already unquoted; the path as sent is the last len(postpath) segments of request.path.
    segments = request.path.split(b"/")
    mounted_at = len(segments) - len(request.postpath or [])
    assert request.content is not None
    body = request.content.read()
    return Request(
        method=request.method,
        path=b"/" + b"/".join(segments[mounted_at:]),
        query=request.uri.partition(b"?")[2],
        headers=headers,
        content_length=len(body),
        scheme=b"https" if request.isSecure() else b"http",
        peer=getattr(request.getClientAddress(), "host", ""),
        root=b"/".join(segments[:mounted_at]),
        body=body,
    )


def write_response(request: WebRequest, response: Response) -> None:
    """Send a response through twisted.web."""
    if has_gone(request):
        if not isinstance(response.body, bytes):
            response.body.stop()
        return
    request.defaultContentType = None
    request.setResponseCode(response.status)
    for line in response.head.splitlines():
        name, _, value = line.partition(b": ")
        request.responseHeaders.addRawHeader(name, value)
    body = response.body
    if isinstance(body, bytes):
        if response.status not in (204, 304) and (body or request.method != b"HEAD"):
            request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()
    elif request.method == b"HEAD":
        body.stop()
        request.finish()
    else:
        if body.length is not None:
            request.setHeader(b"content-length", b"%d" % body.length)
        _RequestSink(request, body).begin()


@implementer(IPushProducer)
@define(eq=False)
class _RequestSink:
    """Writes a streamed body to a twisted.web request (a ``Sink``)."""

    _request: WebRequest
    _body: Body | None
    _paused: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Send the head immediately, because a live body may have no data for a while, and start the body."""
        body = self._body
        assert body is not None
        self._request.notifyFinish().addErrback(self._gone)
        self._request.registerProducer(self, True)
        self._request.write(b"")
        body.start(self)

    def write(self, data: bytes) -> bool:
        """Send ``data``; return ``False`` if the client is slower than the body."""
        self._request.write(data)
        return not self._paused

    def write_frame(self, frame: Frame) -> bool:
        """Send bytes that are shared with other readers."""
        return self.write(frame.data)

    sends_files = False

    def send_file(self, part: FileRange) -> int:  # noqa: ARG002 (the interface's)
        """See :meth:`Sink.send_file`."""
        return 0

    def finish(self) -> None:
        """End the body."""
        self._body = None
        self._request.unregisterProducer()
        self._request.finish()

    def abort(self) -> None:
        """Abort the connection because the body cannot be completed."""
        self._body = None
        self._request.loseConnection()

    def pauseProducing(self) -> None:
        """Pause the body, because the client is slower."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Resume the body, because the client has caught up."""
        self._paused = False
        if self._body is not None:
            self._body.resume()

    def stopProducing(self) -> None:
        """Stop the body, because the connection is lost."""
        self._gone(None)

    def _gone(self, _: Failure | None) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.stop()
