"""What the channel's tests share: an application, bodies, a transport, and a reader of responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import directlyProvides, implementer, providedBy

from dstreams.http.http1.channel import HttpChannel, HttpFactory
from dstreams.http.messages import Frame, Request, Response, Sink
from dstreams.http.transport.limits import HttpLimits
from dstreams.runtime.timers import TimerWheel
from tests.support.logs import at_least, logged

DATE = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
LARGE = bytes(range(256)) * 1000


@define(eq=False)
class LiveBody:
    """A body that a test writes by hand, and that notes what it is told."""

    length: int | None = None
    on_start: Callable[[Sink], object] | None = None
    sink: Sink | None = None
    calls: list[str] = field(factory=list)

    def start(self, sink: Sink) -> None:
        self.calls.append("start")
        self.sink = sink
        if self.on_start is not None:
            self.on_start(sink)

    def resume(self) -> None:
        self.calls.append("resume")

    def stop(self) -> None:
        self.calls.append("stop")


@define(eq=False)
class FakeApplication:
    """Answers by path; see :meth:`respond`."""

    max_body_bytes: int = 1000
    requests: list[Request] = field(factory=list)
    judged: list[bytes] = field(factory=list)
    answered: list[bytes] = field(factory=list)
    """The methods of the requests that got an answer, GET where there is none."""
    waiting: list[Deferred[Response]] = field(factory=list)
    bodies: list[LiveBody] = field(factory=list)
    next_body: LiveBody | None = None

    def validate_head(self, request: Request) -> Response | None:
        assert request.body is None
        self.judged.append(request.path)
        if request.path == b"/broken-judge":
            raise ZeroDivisionError
        early = self._by_head(request)
        if early is not None:
            self.answered.append(request.method)
        return early

    def _by_head(self, request: Request) -> Response | None:
        if request.path == b"/missing":
            return Response(404, b"X-Why: missing\r\n", b"no such thing")
        return None

    def respond(self, request: Request) -> Response | Deferred[Response]:
        assert request.body is not None
        self.requests.append(request)
        self.answered.append(request.method)
        path = request.path
        if path == b"/broken":
            raise ZeroDivisionError
        if path == b"/later":
            deferred: Deferred[Response] = Deferred()
            self.waiting.append(deferred)
            return deferred
        if path == b"/live":
            body = self.next_body or LiveBody()
            self.next_body = None
            self.bodies.append(body)
            return Response(200, b"X-Live: yes\r\n", body)
        if path == b"/nothing":
            return Response(204, b"X-Next: 1\r\n")
        if path == b"/unchanged":
            return Response(304, b"", b"ignored")
        if path == b"/large":
            return Response(200, b"", LARGE)
        if path == b"/silent":
            return Response(200, b"X-Empty: yes\r\n")
        return self._by_head(request) or Response(200, b"X-Echo: yes\r\n", describe(request))

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        known = b"" if request is None else request.path
        self.answered.append(b"GET" if request is None else request.method)
        return Response(status, b"X-Refused: %b\r\n" % known, detail.encode())


def describe(request: Request) -> bytes:
    """All that a request says, as one line per part."""
    headers = b"\n".join(b"%b=%b" % pair for pair in sorted(request.headers.items()))
    parts = (request.method, request.path, request.query, headers, request.body or b"")
    return b"\n".join(parts)


class FakeTransport(StringTransport):
    """Records each write; may be full, or hasty (full and empty again in every write), and TCP or TLS."""

    def __init__(self, *, tcp: bool = True, tls: bool = False) -> None:
        super().__init__()
        interfaces = [ITCPTransport] * tcp + [ISSLTransport] * tls
        directlyProvides(self, *interfaces, *providedBy(self))
        self.writes: list[bytes] = []
        self.calls: list[str] = []
        self.full = False
        self.hasty = False
        self.writing = False

    def write(self, data: bytes) -> None:
        assert not self.disconnecting, "written after the connection was closed"
        assert "loseWriteConnection" not in self.calls, "written after the half-close"
        self.writes.append(data)
        super().write(data)
        self.writing = True
        if (self.full or self.hasty) and self.producer is not None:
            self.producer.pauseProducing()
            if self.hasty:
                self.producer.resumeProducing()
        self.writing = False

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        self.calls.append(f"setTcpNoDelay({enabled})")

    def loseWriteConnection(self) -> None:
        assert not self.writing
        self.calls.append("loseWriteConnection")

    def loseConnection(self) -> None:
        assert not self.writing, "TLS would lose the rest of what is being written"
        assert self.producer is None, "a transport with a producer doesn't close"
        super().loseConnection()

    def abortConnection(self) -> None:
        self.calls.append("abortConnection")
        self.producer = None
        super().abortConnection()

    @property
    def aborted(self) -> bool:
        return "abortConnection" in self.calls

    @property
    def half_closed(self) -> bool:
        return "loseWriteConnection" in self.calls

    def drained(self) -> None:
        """The client has taken everything."""
        self.full = False
        if self.producer is not None:
            self.producer.resumeProducing()


class BusyWheel(TimerWheel):
    """The timers of a server so busy that a connection may take one step in a turn."""

    def turn_is_over(self) -> bool:
        return True


class Connected:
    """A channel on a fake transport.

    :param busy: whether everything that can wait has to.
    """

    def __init__(
        self,
        application: FakeApplication | None = None,
        limits: HttpLimits | None = None,
        *,
        tcp: bool = True,
        tls: bool = False,
        factory: HttpFactory | None = None,
        busy: bool = False,
    ) -> None:
        self.application = FakeApplication() if application is None else application
        self.clock = Clock()
        self.wheel = BusyWheel(self.clock) if busy else TimerWheel(self.clock, stopwatch=self.clock.seconds)
        self.factory = factory or HttpFactory(self.application, self.wheel, limits, now=lambda: 0.0)
        self.transport = FakeTransport(tcp=tcp, tls=tls)
        channel = self.factory.buildProtocol(None)
        assert channel is not None
        self.channel: HttpChannel = channel
        channel.makeConnection(self.transport)

    def send(self, *segments: bytes) -> bytes:
        """Give the channel segments of input; what it has written since the last look."""
        for segment in segments:
            self.channel.dataReceived(segment)
        return self.sent()

    def turns(self) -> None:
        """Let as many turns of the reactor pass as the channel has postponed work for."""
        for _ in range(100_000):
            if not self.channel._postponed:
                return
            self.clock.advance(0)
        raise AssertionError("the channel never ends what it has postponed")

    def sent(self) -> bytes:
        """What the channel has written since the last look."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def lose(self) -> None:
        """The connection is lost."""
        if self.transport.producer is not None:
            self.transport.producer.stopProducing()
            self.transport.producer = None
        self.channel.connectionLost()


@define
class Answer:
    """One response as a client reads it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def read_answers(data: bytes, methods: Sequence[bytes] = ()) -> list[Answer]:
    """Read the responses in ``data`` strictly; they must fill it.

    :param methods: those of the requests; GET where there is none.
    """
    answers: list[Answer] = []
    finals = 0
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"an incomplete head: {head!r}"
        line, *fields = head.split(b"\r\n")
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers: dict[bytes, bytes] = {}
        for one in fields:
            name, colon, value = one.partition(b": ")
            assert colon
            assert name.lower() not in headers, f"{name!r} is repeated"
            headers[name.lower()] = value
        method = methods[finals] if finals < len(methods) else b"GET"
        body, data = _read_body(int(status), method, headers, data)
        finals += int(status) >= 200
        answers.append(Answer(int(status), headers, body))
    return answers


def _read_body(status: int, method: bytes, headers: dict[bytes, bytes], data: bytes) -> tuple[bytes, bytes]:
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return b"", data
    if headers.get(b"transfer-encoding") == b"chunked":
        assert b"content-length" not in headers
        body = b""
        while True:
            size, _, data = data.partition(b"\r\n")
            count = int(size, 16)
            assert data[count : count + 2] == b"\r\n"
            body, data = body + data[:count], data[count + 2 :]
            if not count:
                return body, data
    if b"content-length" not in headers:
        assert headers.get(b"connection") == b"close"
        return data, b""
    length = int(headers[b"content-length"])
    assert len(data) >= length
    return data[:length], data[length:]


def get(path: bytes = b"/echo", *headers: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request without a body."""
    lines = [b"%b %b HTTP/%b" % (method, path, version), b"Host: example.org", *headers, b"", b""]
    return b"\r\n".join(lines)


def post(body: bytes, path: bytes = b"/echo", *headers: bytes) -> bytes:
    """A request with a body of announced length."""
    return get(path, b"Content-Length: %d" % len(body), *headers, method=b"POST") + body


def chunked(*chunks: bytes, path: bytes = b"/echo", headers: Sequence[bytes] = ()) -> bytes:
    """A request with a chunked body."""
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return get(path, b"Transfer-Encoding: chunked", *headers, method=b"POST") + coded + b"0\r\n\r\n"


def announce(length: int, path: bytes = b"/echo", *headers: bytes) -> bytes:
    """The head of a request with a body of ``length`` bytes."""
    return get(path, b"Content-Length: %d" % length, *headers, method=b"POST")


def frame(data: bytes) -> Frame:
    """A shared frame."""
    return Frame(data)


@implementer(ILogObserver)
def errors_logged() -> AbstractContextManager[list[LogEvent]]:
    """The errors that are logged meanwhile."""
    return logged(at_least(LogLevel.error))
