"""What is noted of requests, and who is told."""

from __future__ import annotations

import time

import pytest
from attrs import define, field, frozen
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from dstreams.http.http1.channel import HttpFactory
from dstreams.http.http2.connection import Http2Factory
from dstreams.http.messages import HeadCacheEntry, ObservedConnection, Request, Response
from dstreams.http.observing import ABANDONED, RequestObserver
from dstreams.http.routes import OPERATIONS, READ
from dstreams.http.transport.connections import Connections
from dstreams.http.transport.limits import WRITE_PIECE_BYTES
from tests.http.fakes import Connected
from tests.http.http2.client import Client as Http2Client
from tests.http.test_resource import Client
from tests.support.engine import DelayedStorage, Engine, FailingStorage

pytestmark = pytest.mark.usefixtures("failures")

PREFIX = b"/v1/stream/"


@frozen
class FakeSpeaker:
    """A connection (a ``ObservedConnection``)."""

    http_version: str = "1.1"
    peer: str = "192.0.2.9"


@define(eq=False)
class FakeWitness:
    """Notes what it is told."""

    least_status: int = 0
    told: list[tuple[str, int, str]] = field(factory=list)
    elapsed: list[float | None] = field(factory=list)
    error: Exception | None = None

    def report(
        self,
        request: Request | None,
        response: Response | None,
        operation: str,
        elapsed: float | None,
        connection: ObservedConnection,
    ) -> None:
        if self.error is not None:
            raise self.error
        self.told.append((operation, 0 if response is None else response.status, connection.http_version))
        self.elapsed.append(elapsed)


@define(eq=False)
class Server:
    """An engine behind channels, and what is observed."""

    engine: Engine = field(factory=Engine)
    reporter: FakeWitness = field(factory=FakeWitness)
    observer: RequestObserver = field(init=False)
    factory: HttpFactory = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.observer = RequestObserver((self.reporter,))
        self.factory = HttpFactory(self.engine.application, self.engine.wheel, connections=Connections(self.observer))

    def connect(self) -> Connected:
        return Connected(factory=self.factory)

    def ask(self, method: str, target: str, body: bytes = b"", version: str = "1.1") -> Connected:
        """Send one request on a connection of its own."""
        connected = self.connect()
        head = f"{method} {target} HTTP/{version}\r\nHost: a\r\nContent-Type: text/plain\r\n"
        connected.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return connected

    @property
    def counts(self) -> dict[tuple[str, int], int]:
        return {key: times.count for key, times in self.observer.times.items()}


class OperationTests:
    """What a request is counted as."""

    def test_every_operation(self) -> None:
        """Each request is told once, with its operation, status and version."""
        server = Server()
        server.ask("PUT", "/v1/stream/s", b"one")
        server.ask("POST", "/v1/stream/s", b"two")
        server.ask("HEAD", "/v1/stream/s")
        server.ask("GET", "/v1/stream/s")
        server.ask("GET", "/v1/stream/s?offset=-1", version="1.0")
        server.ask("GET", "/v1/stream/s?offset=-1&live=long-poll")
        server.ask("GET", "/v1/stream/s?offset=-1&live=sse")
        server.ask("GET", "/v1/stream/s?live=%73se&offset=-1")
        server.ask("OPTIONS", "/v1/stream/s")
        server.ask("DELETE", "/v1/stream/s")
        assert server.reporter.told == [
            ("create", 201, "1.1"),
            ("append", 204, "1.1"),
            ("head", 200, "1.1"),
            ("read", 200, "1.1"),
            ("read", 200, "1.0"),
            ("poll", 200, "1.1"),
            ("subscribe", 200, "1.1"),
            ("subscribe", 200, "1.1"),
            ("preflight", 204, "1.1"),
            ("delete", 204, "1.1"),
        ]
        assert server.counts == {
            ("create", 201): 1,
            ("append", 204): 1,
            ("head", 200): 1,
            ("read", 200): 2,
            ("poll", 200): 1,
            ("subscribe", 200): 2,
            ("preflight", 204): 1,
            ("delete", 204): 1,
        }

    @pytest.mark.parametrize(
        ("method", "target", "told"),
        [
            ("GET", "/v1/stream/none", ("read", 404, "1.1")),
            ("GET", "/v1/stream/none?offset=x", ("read", 400, "1.1")),
            ("GET", "/v1/stream/none?offset=0&live=never", ("read", 400, "1.1")),
            ("GET", "/v1/stream/none?offset=-1&live=sse", ("subscribe", 404, "1.1")),
            ("PATCH", "/v1/stream/none", ("request", 405, "1.1")),
            ("GET", "/elsewhere", ("request", 404, "1.1")),
            ("GET", "/healthz", ("health", 404, "1.1")),
            ("GET", "/readyz", ("readiness", 404, "1.1")),
            ("GET", "/metrics", ("metrics", 404, "1.1")),
            ("GET", "/v1/stream/a//b", ("read", 400, "1.1")),
            ("GET", "nonsense", ("request", 400, "1.1")),
            ("G\x00T", "/", ("request", 400, "1.1")),
        ],
    )
    def test_refused(self, method: str, target: str, told: tuple[str, int, str]) -> None:
        """Requests that get no more than an error are told, too."""
        server = Server()
        server.ask(method, target)
        assert server.reporter.told == [told]
        assert told[0] in OPERATIONS

    def test_judged_early(self) -> None:
        """An answer before the body is told once."""
        server = Server()
        connected = server.connect()
        connected.send(b"POST /v1/stream/s HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\n")
        connected.send(b"12345")
        assert server.reporter.told == [("append", 404, "1.1")]

    def test_errors(self) -> None:
        """Problems are counted by their codes."""
        server = Server()
        server.ask("GET", "/v1/stream/none")
        server.ask("HEAD", "/v1/stream/none")
        server.ask("GET", "/v1/stream/none?offset=x")
        assert server.observer.errors == {"NOT_FOUND": 2, "INVALID_OFFSET": 1}


class RememberingTests:
    """Requests with the same head are answered alike, mostly."""

    HEAD = b"POST /v1/stream/s HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n"

    def test_other_answers(self) -> None:
        """When the same request is answered otherwise, that is counted as what it is."""
        server = Server()
        connected = server.connect()
        connected.send(self.HEAD + b"x")
        server.engine.put("s")
        for _ in range(3):
            connected.send(self.HEAD + b"x")
        server.engine.close("s")
        connected.send(self.HEAD + b"x")
        assert server.counts == {("append", 404): 1, ("append", 204): 3, ("append", 409): 1}
        assert server.observer.errors == {"NOT_FOUND": 1, "STREAM_CLOSED": 1}
        assert [status for _, status, _ in server.reporter.told] == [404, 204, 204, 204, 409]

    def test_quiet(self) -> None:
        """What isn't told the first time isn't told later, and errors are still told."""
        server = Server(reporter=FakeWitness(400))
        server.engine.put("s")
        connected = server.connect()
        connected.send(self.HEAD + b"x", self.HEAD + b"x")
        server.engine.delete("s")
        connected.send(self.HEAD + b"x")
        assert [status for _, status, _ in server.reporter.told] == [404]


class TimingTests:
    """How long, and when it is told."""

    def test_durations(self) -> None:
        """A request takes some time, from its complete head on."""
        server = Server()
        before = time.perf_counter()
        server.ask("GET", "/v1/stream/none")
        most = time.perf_counter() - before
        (elapsed,) = server.reporter.elapsed
        assert elapsed is not None
        assert 0 < elapsed < most
        assert server.observer.times[("read", 404)].total == pytest.approx(elapsed)

    def test_unreadable(self) -> None:
        """Of a request without a head nobody knows how long it took."""
        server = Server()
        server.connect().send(b"\x00")
        assert server.reporter.elapsed == [None]

    def test_told_when_durable(self) -> None:
        """An append is told when its answer is, not before its commit."""
        storage = DelayedStorage()
        server = Server(Engine(storage))
        server.ask("PUT", "/v1/stream/s")
        assert server.reporter.told == []
        storage.finish()
        assert server.reporter.told == [("create", 201, "1.1")]

    def test_failed_commit(self) -> None:
        """A commit that fails is told as the error that the client gets."""
        storage = DelayedStorage()
        server = Server(Engine(storage))
        server.ask("PUT", "/v1/stream/s")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dstreams.streams.commits._log.failure", lambda *_: None)
            storage.fail()
        assert server.reporter.told == [("create", 503, "1.1")]

    def test_abandoned(self) -> None:
        """A client that goes before the answer is told of as such, once."""
        server = Server()
        server.engine.put("s")
        connected = server.ask("GET", "/v1/stream/s?offset=now&live=long-poll")
        connected.lose()
        assert server.reporter.told == [("poll", ABANDONED, "1.1")]
        assert server.counts == {("poll", ABANDONED): 1}

    def test_gone_after_the_answer(self) -> None:
        """A client that goes later, in the middle of a stream too, has been told of already."""
        server = Server()
        server.engine.put("s")
        server.ask("GET", "/v1/stream/s?offset=now&live=sse").lose()
        server.ask("GET", "/v1/stream/s").lose()
        assert [status for _, status, _ in server.reporter.told] == [200, 200]


class WitnessTests:
    """Who is told what."""

    @pytest.mark.parametrize(("least", "statuses"), [(0, [201, 404, 0]), (400, [404]), (500, []), (1000, [])])
    def test_least_status(self, least: int, statuses: list[int]) -> None:
        """A witness is told only of what it wants to know."""
        server = Server(reporter=FakeWitness(least))
        server.ask("PUT", "/v1/stream/s")
        server.ask("GET", "/v1/stream/none")
        server.ask("GET", "/v1/stream/s?offset=now&live=long-poll").lose()
        assert [status for _, status, _ in server.reporter.told] == statuses
        assert sum(server.counts.values()) == 3

    def test_several(self) -> None:
        """One witness's wish for silence doesn't silence another."""
        quiet, curious = FakeWitness(500), FakeWitness()
        observer = RequestObserver((quiet, curious))
        asked = Request(b"GET", b"/v1/stream/s", b"", {}, facts=HeadCacheEntry(READ))
        observer.answered(asked, Response(200), 0.0, FakeSpeaker())
        assert (quiet.told, curious.told) == ([], [("read", 200, "1.1")])

    def test_a_witness_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A witness's fault is logged and reaches nobody else: the client has its answer."""
        failures: list[str] = []
        monkeypatch.setattr("dstreams.http.observing._log.failure", failures.append)
        server = Server(reporter=FakeWitness(error=ZeroDivisionError()))
        connected = server.connect()
        assert connected.send(b"GET /v1/stream/s HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 404")
        assert failures == ["telling of a request failed"]


class Http2Tests:
    """The same over HTTP/2."""

    def connect(self, engine: Engine) -> tuple[Http2Client, FakeWitness]:
        reporter = FakeWitness()
        connections = Connections(RequestObserver((reporter,)))
        factory = Http2Factory(engine.application, engine.wheel, connections=connections)
        return Http2Client(factory=factory, clock=engine.clock), reporter

    def test_told(self) -> None:
        """Answers are told with their version, and take some time."""
        engine = Engine()
        client, reporter = self.connect(engine)
        client.ask(b"PUT", b"/v1/stream/s", (b"content-type", b"text/plain"), body=b"one")
        client.ask(b"GET", b"/v1/stream/none")
        client.ask(b"GET", b"/v1/stream/s?offset=-1&live=sse")
        assert reporter.told == [("create", 201, "2"), ("read", 404, "2"), ("subscribe", 200, "2")]
        assert all(elapsed is not None and 0 < elapsed < 10 for elapsed in reporter.elapsed)

    @pytest.mark.parametrize("leaves", ["stream", "connection"])
    def test_abandoned(self, leaves: str) -> None:
        """A request that is taken back, or whose connection is lost, is told of as such, once."""
        engine = Engine()
        engine.put("s")
        client, reporter = self.connect(engine)
        number = client.ask(b"GET", b"/v1/stream/s?offset=now&live=long-poll")
        assert reporter.told == []
        if leaves == "stream":
            client.h2.reset_stream(number)
            client.turn()
        else:
            client.server.connectionLost(Failure(ConnectionDone()))
        assert reporter.told == [("poll", ABANDONED, "2")]

    def test_statistics(self) -> None:
        """A client that makes no room shows as stalled, with the bytes that wait for it."""
        engine = Engine()
        engine.put("s", bytes(100_000))
        factory = Http2Factory(engine.application, engine.wheel, connections=Connections())
        client = Http2Client(factory=factory, clock=engine.clock, window=1000, roomy=False)
        client.ask(b"GET", b"/v1/stream/s?offset=-1")
        assert client.server.is_stalled
        assert client.server.unsent_bytes == WRITE_PIECE_BYTES - 1000


class ResourceTests:
    """The same over twisted.web."""

    def observed(self, engine: Engine | None = None) -> tuple[Client, FakeWitness]:
        client, reporter = Client(engine or Engine()), FakeWitness()
        client.channel.site.resource._observer = RequestObserver((reporter,))
        return client, reporter

    def test_told(self) -> None:
        """Answers are told with their version."""
        client, reporter = self.observed()
        client.ask("PUT", "/v1/stream/s", content_type="text/plain")
        client.ask("GET", "/v1/stream/none", version="1.0")
        assert reporter.told == [("create", 201, "1.1"), ("read", 404, "1.0")]

    def test_abandoned(self) -> None:
        """A client that goes before its answer is told of as such."""
        client, reporter = self.observed()
        client.engine.put("s")
        client.send("GET", "/v1/stream/s?offset=now&live=long-poll")
        assert reporter.told == []
        client.channel.connectionLost(Failure(ConnectionDone()))
        assert reporter.told == [("poll", ABANDONED, "1.1")]

    def test_failed_commit(self) -> None:
        """A refusal carries what clients aren't told."""
        client, reporter = self.observed(Engine(FailingStorage(error=OSError(5, "broken /dev/sda"))))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dstreams.streams.commits._log.failure", lambda *_: None)
            answer = client.ask("PUT", "/v1/stream/s", content_type="text/plain")
        assert reporter.told == [("create", 503, "1.1")]
        assert b"sda" not in answer.body
