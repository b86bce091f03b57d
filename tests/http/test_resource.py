"""The application as a twisted.web resource."""

from __future__ import annotations

import json

import pytest
from attrs import define, field
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from dstreams.http.context import HttpSettings
from dstreams.http.resource import StreamsResource, _RequestSink
from dstreams.streams.limits import StoreLimits
from tests.support.engine import Engine, FakeSink, FetchingStorage, controls, offset, payloads

pytestmark = pytest.mark.usefixtures("failures")

HUGE = StoreLimits(total_bytes=1 << 30, stream_bytes=1 << 30)


class Transport(StringTransport):
    """A connection that may be full, and that knows whether it was cut."""

    def abortConnection(self) -> None:
        self.disconnecting = True


class Home(Resource):
    """What else the site has."""

    def render_GET(self, request: object) -> bytes:  # noqa: N802 (Twisted's name)
        return b"welcome"


@define
class Answer:
    """One response, as it came over the connection."""

    status: int
    headers: dict[str, list[str]]
    body: bytes
    rest: bytes

    def __getitem__(self, name: str) -> str:
        (value,) = self.headers[name]
        return value


@define
class Client:
    """A connection to a site with the resource in it.

    :param mounted: where the resource is mounted; empty: it is the whole site.
    """

    engine: Engine = field(factory=Engine)
    mounted: bytes = b""
    transport: Transport = field(factory=Transport)
    channel: HTTPChannel = field(init=False)

    def __attrs_post_init__(self) -> None:
        root: Resource = StreamsResource(self.engine.application, self.engine.streams)
        for segment in reversed([part for part in self.mounted.split(b"/") if part]):
            below, root = root, Resource()
            root.putChild(segment, below)
            root.putChild(b"home", Home())
        site = Site(root, reactor=self.engine.clock)
        protocol = site.buildProtocol(None)
        protocol.makeConnection(self.transport)
        self.channel = protocol._channel

    def send(self, method: str, target: str, body: bytes = b"", version: str = "1.1", **headers: str) -> None:
        lines = [f"{method} {target} HTTP/{version}", "Host: example.org"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.channel.dataReceived("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        self.transport.clear()
        self.send(method, target, body, **headers)
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """What has come; a chunked body is put together."""
        head, _, rest = self.transport.value().partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers.setdefault(name.lower(), []).append(value)
        if "transfer-encoding" in headers:
            body, rest = unchunk(rest)
        else:
            length = 0 if method == "HEAD" else int(headers.get("content-length", ["0"])[0])
            body, rest = rest[:length], rest[length:]
        return Answer(int(status.split()[1]), headers, body, rest)


def unchunk(data: bytes) -> tuple[bytes, bytes]:
    """The chunks that are there, joined; and what is left, ``b""`` while the body goes on."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return body, data.removeprefix(b"\r\n")
        body, data = body + data[:length], data[length + 2 :]
    return body, b""


class RequestTests:
    """twisted.web's requests as ours."""

    def test_life_of_a_stream(self) -> None:
        """Create, append, read, close, describe, delete."""
        client = Client()
        made = client.ask("PUT", "/v1/stream/a/b", b"[1]", content_type="application/json")
        assert made.status == 201
        assert made["location"] == "http://example.org/v1/stream/a/b"
        assert client.ask("POST", "/v1/stream/a/b", b"[2,3]", content_type="application/json").status == 204
        read = client.ask("GET", "/v1/stream/a/b?offset=-1")
        assert (read.status, read.body, read["content-type"]) == (200, b"[1,2,3]", "application/json")
        assert read["content-length"] == "7"
        closed = client.ask("POST", "/v1/stream/a/b", stream_closed="true")
        assert (closed.status, closed["stream-closed"]) == (204, "true")
        head = client.ask("HEAD", "/v1/stream/a/b")
        assert (head.status, head["stream-next-offset"], head.rest) == (200, offset(6), b"")
        assert client.ask("DELETE", "/v1/stream/a/b").status == 204
        assert client.ask("GET", "/v1/stream/a/b").status == 404

    def test_nothing_is_added(self) -> None:
        """No type where there is no body, no length where none may be."""
        client = Client()
        for answer in [
            client.ask("PUT", "/v1/stream/s", b"x", content_type="text/plain"),
            client.ask("POST", "/v1/stream/s", b"x", content_type="text/plain"),
            client.ask("GET", "/v1/stream/s"),
            client.ask("HEAD", "/v1/stream/s"),
            client.ask("GET", "/v1/stream/s", if_none_match="*"),
            client.ask("DELETE", "/v1/stream/s"),
        ]:
            assert all(len(values) == 1 for values in answer.headers.values())
            if answer.status in {204, 304}:
                assert not {"content-length", "content-type", "transfer-encoding"} & set(answer.headers)
                assert answer.rest == b""

    def test_errors(self) -> None:
        """Errors come with their documents."""
        client = Client()
        answer = client.ask("GET", "/v1/stream/missing?x=1")
        assert (answer.status, answer["content-type"]) == (404, "application/problem+json")
        assert json.loads(answer.body)["instance"] == "/v1/stream/missing?x=1"
        assert client.ask("GET", "/elsewhere").status == 404
        head = client.ask("HEAD", "/v1/stream/missing")
        assert (head.status, head.rest) == (404, b"")
        assert int(head["content-length"]) > 50

    @pytest.mark.parametrize("method", ["PATCH", "TRACE", "PROPFIND"])
    def test_unknown_method(self, method: str) -> None:
        """The methods are the application's concern."""
        answer = Client().ask(method, "/v1/stream/s")
        assert (answer.status, answer["allow"]) == (405, "GET, HEAD, PUT, POST, DELETE, OPTIONS")

    def test_preflight(self) -> None:
        """So is OPTIONS."""
        answer = Client().ask("OPTIONS", "/v1/stream/s", origin="http://a.example")
        assert (answer.status, answer["access-control-allow-origin"]) == (204, "*")

    def test_repeated_headers(self) -> None:
        """Repeated fields are one list, as RFC 9110 has it."""
        client = Client()
        client.ask("PUT", "/v1/stream/s", b"x", content_type="text/plain")
        etag = client.ask("GET", "/v1/stream/s")["etag"]
        client.transport.clear()
        client.channel.dataReceived(
            b'GET /v1/stream/s HTTP/1.1\r\nHost: h\r\nIf-None-Match: "x"\r\nif-none-match: %b\r\n\r\n' % etag.encode()
        )
        assert client.answer().status == 304

    @pytest.mark.parametrize("name", ["a%20b", "caf%C3%A9", "a%2Fb", "a+b", "a;b=c", "%41"])
    def test_names_as_sent(self, name: str) -> None:
        """Names are decoded once, by us."""
        client = Client()
        location = client.ask("PUT", f"/v1/stream/{name}", b"x")["location"]
        assert client.ask("GET", f"/v1/stream/{name}").body == b"x"
        assert client.ask("GET", location.removeprefix("http://example.org")).body == b"x"

    @pytest.mark.parametrize("name", ["a//b", "..", "a/../b", "%2e%2e", "a/", "%zz", "a%00b"])
    def test_bad_names(self, name: str) -> None:
        """And refused by us: twisted.web takes no segment away."""
        answer = Client().ask("PUT", f"/v1/stream/{name}")
        assert json.loads(answer.body)["code"] == "INVALID_STREAM_NAME"

    def test_large_body(self) -> None:
        """A body over the limit is refused, after the answers that come before 413."""
        client = Client(Engine(settings=HttpSettings(max_body_bytes=100)))
        client.ask("PUT", "/v1/stream/s", content_type="text/plain")
        post = {"content_type": "text/plain"}
        assert client.ask("POST", "/v1/stream/s", b"x" * 101, **post).status == 413
        assert client.ask("POST", "/v1/stream/missing", b"x" * 101, **post).status == 404
        assert client.ask("POST", "/v1/stream/s", b"x" * 101, content_type="image/png").status == 409
        assert client.ask("POST", "/v1/stream/s", b"x" * 100, **post).status == 204
        assert client.ask("GET", "/v1/stream/s").body == b"x" * 100

    def test_pipelined(self) -> None:
        """Requests in one segment are answered in order."""
        client = Client()
        client.send("PUT", "/v1/stream/s", b"x")
        client.transport.clear()
        request = b"GET /v1/stream/s?offset=%b HTTP/1.1\r\nHost: h\r\n\r\n"
        client.channel.dataReceived(request % b"-1" + request % b"now" + request % b"zz")
        first = client.answer()
        assert (first.status, first.body) == (200, b"x")
        assert first.rest.count(b"HTTP/1.1 200") == first.rest.count(b"HTTP/1.1 400") == 1


class MountTests:
    """A place in another site."""

    @pytest.mark.parametrize("mounted", [b"", b"/api", b"/a/b"])
    def test_location_and_forks(self, mounted: bytes) -> None:
        """Location holds the mount point; a source may be named by that path, or below it."""
        client = Client(mounted=mounted)
        base = mounted.decode() + "/v1/stream"
        location = client.ask("PUT", f"{base}/s", b"x")["location"]
        assert location == f"http://example.org{base}/s"
        for name, source in [("f", f"{base}/s"), ("g", "/v1/stream/s"), ("h", "s")]:
            assert client.ask("PUT", f"{base}/{name}", stream_forked_from=source).status == 201
            assert client.ask("GET", f"{base}/{name}").body == b"x"
        problem = json.loads(client.ask("GET", f"{base}/missing?a=b").body)
        assert problem["instance"] == f"{base}/missing?a=b"

    def test_beside_the_mount_point(self) -> None:
        """What lies beside it is the site's."""
        client = Client(mounted=b"/api")
        assert client.ask("GET", "/home").body == b"welcome"

    def test_root_base_path(self) -> None:
        """With streams at the root of a mount point names begin right below it."""
        client = Client(Engine(settings=HttpSettings(base_path=b"/")), mounted=b"/streams")
        assert client.ask("PUT", "/streams/s", b"x")["location"] == "http://example.org/streams/s"
        assert client.ask("GET", "/streams/s").body == b"x"


class LiveTests:
    """Answers that take their time."""

    def test_long_poll(self) -> None:
        """The answer comes when there is one."""
        client = Client()
        client.engine.put("s")
        client.send("GET", "/v1/stream/s?offset=now&live=long-poll")
        assert client.transport.value() == b""
        client.engine.post("s", b"x")
        client.engine.turn()
        assert (client.answer().status, client.answer().body) == (200, b"x")

    def test_long_poll_client_leaves(self) -> None:
        """A client that leaves stops waiting."""
        client = Client()
        client.engine.put("s")
        client.send("GET", "/v1/stream/s?offset=now&live=long-poll")
        assert client.engine.streams.statistics().live_readers == 1
        client.channel.connectionLost(Failure(ConnectionDone()))
        assert client.engine.streams.statistics().live_readers == 0
        client.engine.post("s", b"x")
        client.engine.turn()

    def test_sse(self) -> None:
        """Events are sent as they come, chunked, until the stream closes."""
        client = Client()
        client.engine.put("s", b"a")
        client.send("GET", "/v1/stream/s?offset=-1&live=sse")
        answer = client.answer()
        assert (answer.status, answer["content-type"]) == (200, "text/event-stream")
        assert payloads(answer.body) == b"a"
        client.engine.post("s", b"b")
        client.engine.turn()
        assert payloads(client.answer().body) == b"ab"
        client.engine.close("s")
        client.engine.turn()
        assert controls(client.answer().body)[-1]["streamClosed"] is True
        assert client.transport.value().endswith(b"0\r\n\r\n")
        assert client.ask("HEAD", "/v1/stream/s").status == 200

    def test_sse_client_leaves(self) -> None:
        """A reader that leaves leaves nothing behind."""
        client = Client()
        client.engine.put("s")
        client.send("GET", "/v1/stream/s?offset=-1&live=sse")
        client.channel.connectionLost(Failure(ConnectionDone()))
        assert client.engine.streams.statistics().live_readers == 0
        client.engine.post("s", b"x")
        client.engine.pass_time(100)

    def test_sse_to_an_old_client(self) -> None:
        """HTTP/1.0 knows no chunks: the end of the connection is the end of the events."""
        client = Client()
        client.engine.put("s", b"a")
        client.send("GET", "/v1/stream/s?offset=-1&live=sse", version="1.0")
        client.engine.close("s")
        client.engine.turn()
        _, _, body = client.transport.value().partition(b"\r\n\r\n")
        assert payloads(body) == b"a"
        assert client.transport.disconnecting

    def test_head_has_no_live_body(self) -> None:
        """HEAD with a live query describes the stream and waits for nothing."""
        client = Client()
        client.engine.put("s", b"abc")
        answer = client.ask("HEAD", "/v1/stream/s?offset=-1&live=sse")
        assert (answer.status, answer.rest) == (200, b"")
        assert client.engine.streams.statistics().live_readers == 0

    def test_slow_reader(self) -> None:
        """While the connection is full nothing is written to it; then what was missed."""
        client = Client()
        client.engine.put("s")
        client.send("GET", "/v1/stream/s?offset=-1&live=sse")
        client.channel.pauseProducing()
        before = client.transport.value()
        client.engine.post("s", b"y")  # the frame that is written may still go
        client.engine.turn()
        for number in range(50):
            client.engine.post("s", b"%02d" % number)
            client.engine.turn()
        written = client.transport.value()[len(before) :]
        assert len(written) < 400
        client.channel.resumeProducing()
        assert payloads(client.answer().body) == b"y" + b"".join(b"%02d" % number for number in range(50))

    @pytest.mark.parametrize("at_once", [True, False])
    def test_large_answer(self, at_once: bool) -> None:
        """A large read is sent in pieces, with its length beforehand, as fast as the client takes it."""
        storage = FetchingStorage(at_once=at_once)
        client = Client(Engine(storage, HUGE))
        client.engine.put("s", b"x" * 2_000_000)
        client.send("GET", "/v1/stream/s")
        while not client.transport.value():
            storage.fetch()
        client.channel.pauseProducing()
        storage.fetch_all()
        assert len(client.transport.value()) < 2_000_000 or at_once
        client.channel.resumeProducing()
        storage.fetch_all()
        answer = client.answer()
        assert answer["content-length"] == "2000000"
        assert answer.body == b"x" * 2_000_000

    def test_broken_storage(self, failures: list[str]) -> None:
        """An answer that can't be completed is cut."""
        storage = FetchingStorage()
        client = Client(Engine(storage, HUGE))
        client.engine.put("s", b"x" * 2_000_000)
        client.send("GET", "/v1/stream/s")
        while not client.transport.value():
            storage.fetch()
        storage.failing = True
        storage.fetch_all()
        assert client.transport.disconnecting
        assert len(client.answer().body) < 2_000_000
        failures.clear()

    @pytest.mark.parametrize("at_once", [True, False])
    def test_storage_that_was_broken_before(self, at_once: bool, failures: list[str]) -> None:
        """As long as the head hasn't left, an error is an error response."""
        storage = FetchingStorage(at_once=at_once)
        client = Client(Engine(storage, HUGE))
        client.engine.put("s", b"x" * 2_000_000)
        storage.failing = True
        client.send("GET", "/v1/stream/s")
        storage.fetch_all()
        assert client.answer().status == 500
        failures.clear()

    def test_shutdown(self) -> None:
        """When the server stops, readers get their ends."""
        client, other = Client(), Client()
        other.engine = client.engine
        client.engine.put("s")
        client.send("GET", "/v1/stream/s?offset=-1&live=sse")
        client.engine.streams.end_live()
        client.engine.turn()
        assert client.transport.value().endswith(b"0\r\n\r\n")


class SinkTests:
    """The adapter itself."""

    def test_interface(self) -> None:
        """It is the push producer that it says it is."""
        engine = Engine()
        engine.put("s")
        client = Client(engine)
        client.send("GET", "/v1/stream/s?offset=-1&live=sse")
        sink = client.channel._requestProducer
        assert isinstance(sink, _RequestSink)
        assert verifyObject(IPushProducer, sink)

    def test_same_events_as_without_a_site(self) -> None:
        """A reader gets the same bytes as from any other transport."""
        engine = Engine()
        engine.put("s", b"abc")
        client = Client(engine)
        client.send("GET", "/v1/stream/s?offset=-1&live=sse")
        sink = FakeSink()
        engine.sse("s").live.start(sink)
        assert client.answer().body == sink.data
