"""The HTTP/2 connection: requests, responses, windows, limits, the end, and what hostile clients do."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any, cast

import pytest
from attrs import define
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from dstreams.http.http2 import connection as http2_connection
from dstreams.http.http2.connection import (
    CONTROL_FRAMES_AT_ONCE,
    CONTROL_FRAMES_PER_ANSWER,
    CONTROL_FRAMES_PER_SECOND,
    RESETS_AT_ONCE,
    Http2Factory,
)
from dstreams.http.http2.conversation import MAX_STREAMS
from dstreams.http.http2.stream import Http2Stream
from dstreams.http.messages import Frame, Request, Response, Sink
from dstreams.http.transport.connections import Connections
from dstreams.http.transport.limits import HttpLimits
from dstreams.http.transport.upload_budget import UploadBudget
from dstreams.runtime.timers import TimerWheel
from tests.http.fakes import LARGE, FakeApplication, FakeTransport, LiveBody
from tests.http.http2.client import Client, Fields

ANY_STREAM = 2**31 - 1

CONTROL_FRAMES: dict[str, Callable[[int], bytes]] = {
    "PING": lambda _: PingFrame(0, opaque_data=b"12345678").serialize(),
    "SETTINGS": lambda _: SettingsFrame(0, settings={4: 65_535}).serialize(),
    "empty SETTINGS": lambda _: SettingsFrame(0).serialize(),
    "empty DATA": lambda number: DataFrame(number).serialize(),
    "padded empty DATA": lambda number: DataFrame(number, pad_length=3, flags=["PADDED"]).serialize(),
    "PRIORITY": lambda number: PriorityFrame(number + 2).serialize(),
    "WINDOW_UPDATE": lambda _: WindowUpdateFrame(0, window_increment=1).serialize(),
    "WINDOW_UPDATE of a stream": lambda number: WindowUpdateFrame(number, window_increment=1).serialize(),
    "RST_STREAM": lambda number: RstStreamFrame(number).serialize(),
    "an unknown kind": lambda _: b"\0\0\0\xbb\0\0\0\0\0",
    "GOAWAY": lambda _: GoAwayFrame(0).serialize(),
}
"""A frame of each kind that asks for nothing, for a stream that is open."""


@define(eq=False)
class EndlessBody(LiveBody):
    """Writes as long as it may, and counts."""

    written: int = 0
    piece: bytes = b"x" * 10_000

    def start(self, sink: Sink) -> None:
        super().start(sink)
        self._write()

    def resume(self) -> None:
        super().resume()
        self._write()

    def _write(self) -> None:
        assert self.sink is not None
        goes_on = True
        while goes_on:
            self.written += len(self.piece)
            goes_on = self.sink.write(self.piece)


def live(client: Client, body: LiveBody | None = None) -> tuple[int, LiveBody]:
    """Ask for a live body: the stream's number, and the body."""
    client.application.next_body = body
    number = client.ask(b"GET", b"/live")
    return number, client.application.bodies[-1]


class RequestTests:
    """What the application sees of a request."""

    def test_values(self) -> None:
        """All parts of a request arrive as on HTTP/1.1; the scheme is what was spoken, not what was claimed."""
        client = Client()
        number = client.ask(b"POST", b"/p/%20x?q=1&r", (b"x-a", b"b"), (b"content-length", b"4"), body=b"body")
        (request,) = client.application.requests
        assert (request.method, request.path, request.query) == (b"POST", b"/p/%20x", b"q=1&r")
        assert request.headers == {b"host": b"a.example", b"x-a": b"b", b"content-length": b"4"}
        assert (request.content_length, request.body) == (4, b"body")
        assert (request.scheme, request.peer, request.root) == (b"https", "192.168.1.1", b"")
        assert client.reply(number).status == 200

    def test_without_body(self) -> None:
        """A request whose head is its end has an empty body."""
        client = Client()
        client.get(b"/a")
        (request,) = client.application.requests
        assert (request.content_length, request.body) == (0, b"")
        assert client.application.judged == []

    def test_unknown_length(self) -> None:
        """A body may come without its length."""
        client = Client()
        number = client.begin(b"PUT", b"/a")
        client.send(number, b"one ")
        assert client.server.is_reading
        client.send(number, b"two", ends=True)
        (request,) = client.application.requests
        assert (request.content_length, request.body) == (None, b"one two")
        assert not client.server.is_reading

    def test_repeated_headers(self) -> None:
        """Values of repeated headers are joined, and cookies' crumbs by their own separator."""
        client = Client()
        client.get(b"/a", (b"x-a", b"1"), (b"cookie", b"a=1"), (b"x-a", b"2"), (b"cookie", b"b=2"))
        (request,) = client.application.requests
        assert (request.headers[b"x-a"], request.headers[b"cookie"]) == (b"1, 2", b"a=1; b=2")

    def test_trailers(self) -> None:
        """Trailers end a body, and are dropped."""
        client = Client()
        number = client.begin(b"POST", b"/a")
        client.send(number, b"body")
        client.h2.send_headers(number, [(b"x-sum", b"1")], end_stream=True)
        client.turn()
        (request,) = client.application.requests
        assert request.body == b"body"
        assert b"x-sum" not in request.headers

    def test_continue(self) -> None:
        """A client that waits to be asked for its body is asked."""
        client = Client()
        number = client.begin(b"POST", b"/a", (b"expect", b"100-continue"))
        assert client.reply(number).informational == [100]
        client.send(number, b"body", ends=True)
        assert client.reply(number).status == 200

    def test_options_of_everything(self) -> None:
        """OPTIONS may ask for the server as a whole."""
        client = Client()
        client.ask(b"OPTIONS", b"*")
        assert client.application.requests[0].path == b"*"

    @pytest.mark.parametrize(
        ("path", "headers", "status"),
        [
            (b"relative", [], 400),
            (b"http://a.example/a", [], 400),
            (b"/a#b", [], 400),
            (b"/a b", [], 400),
            (b"/\xc3\xa4", [], 400),
            (b"*", [], 400),
            (b"/" + b"a" * 8192, [], 414),
            (b"/a", [(b"x-%d" % number, b"") for number in range(101)], 431),
            (b"/a", [(b"expect", b"200-ok")], 417),
            (b"/a", [(b"content-type", b"a/b"), (b"content-type", b"c/d")], 400),
        ],
    )
    def test_refused(self, path: bytes, headers: Fields, status: int) -> None:
        """What no version of HTTP allows is refused, and the connection goes on."""
        client = Client()
        reply = client.get(path, *headers)
        assert (reply.status, reply.ended) == (status, True)
        assert b"x-refused" in reply.headers
        assert client.application.requests == []
        assert client.get(b"/a").status == 200

    @pytest.mark.parametrize("host", [b"a b", b"user@a.example", b"a.example:x", b"a/b"])
    def test_bad_authority(self, host: bytes) -> None:
        """An authority that is no host is refused: it would get into URLs."""
        client = Client()
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", host), (b":path", b"/")]
        assert client.reply(client.begin_raw(fields)).status == 400

    @pytest.mark.parametrize(
        "fields",
        [
            [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")],
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/"), (b"host", b"b")],
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/"), (b"X", b"y")],
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/"), (b"x", b"a\nb")],
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":authority", b"a"),
                (b":path", b"/"),
                (b"transfer-encoding", b"chunked"),
            ],
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/"), (b"x", b" a")],
            [(b":method", b"GET"), (b":authority", b"a"), (b":path", b"/")],
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"")],
        ],
    )
    def test_malformed(self, fields: Fields) -> None:
        """A request that HTTP/2 itself doesn't allow ends the connection, with a reason."""
        client = Client()
        client.begin_raw(fields)
        assert client.application.requests == []
        assert client.farewell == [(ErrorCodes.PROTOCOL_ERROR, client.farewell[0][1])]
        assert client.transport.disconnecting

    def test_large_head(self) -> None:
        """A head beyond the limit of its size ends the connection before it is kept."""
        client = Client()
        client.begin(b"GET", b"/a", *[(b"x-%d" % number, b"v" * 1000) for number in range(40)])
        assert client.application.requests == []
        assert client.transport.disconnecting

    def test_not_http2(self) -> None:
        """Whoever speaks something else is closed."""
        clock = Clock()
        connection = Http2Factory(FakeApplication(), TimerWheel(clock, stopwatch=clock.seconds)).buildProtocol(None)
        assert connection is not None
        transport = FakeTransport(tls=True)
        connection.makeConnection(transport)
        connection.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert transport.disconnecting

    def test_overlong_frame(self) -> None:
        """A frame beyond what was agreed on is refused by its first bytes, not when 16 MiB of it are there."""
        client = Client()
        client.server.dataReceived((16_385).to_bytes(3, "big"))
        assert client.transport.disconnecting


class ResponseTests:
    """What the client gets."""

    def test_small(self) -> None:
        """A small response has its head, its length and its date, in few writes."""
        client = Client()
        client.transport.writes.clear()
        reply = client.get(b"/a")
        assert reply.ended
        assert reply.headers[b"x-echo"] == b"yes"
        assert reply.headers[b"content-length"] == b"%d" % len(reply.body)
        assert reply.headers[b"date"] == b"Thu, 01 Jan 1970 00:00:00 GMT"
        assert len(client.transport.writes) == 1

    @pytest.mark.parametrize(
        ("method", "path", "status", "length"),
        [
            (b"GET", b"/nothing", 204, None),
            (b"GET", b"/unchanged", 304, None),
            (b"GET", b"/silent", 200, b"0"),
            (b"HEAD", b"/large", 200, b"%d" % len(LARGE)),
            (b"HEAD", b"/live", 200, None),
            (b"HEAD", b"/silent", 200, None),
        ],
    )
    def test_without_body(self, method: bytes, path: bytes, status: int, length: bytes | None) -> None:
        """Where there is no body the head ends the response."""
        client = Client()
        reply = client.reply(client.ask(method, path))
        assert (reply.status, reply.body, reply.ended) == (status, b"", True)
        assert reply.headers.get(b"content-length") == length
        assert all(body.calls == ["stop"] for body in client.application.bodies)

    def test_large(self) -> None:
        """A large response arrives whole, in frames."""
        reply = Client().get(b"/large")
        assert reply.body == LARGE
        assert reply.ended

    def test_connection_headers(self) -> None:
        """What concerns a connection of HTTP/1.1 isn't sent: clients would refuse the response."""

        class Closing(FakeApplication):
            def respond(self, request: Request) -> Response:
                return Response(200, b"Connection: close\r\nKeep-Alive: 1\r\nX-A:b\r\n", b"ok")

        assert set(Client(Closing()).get(b"/a").headers) == {b":status", b"x-a", b"date", b"content-length"}

    def test_later(self) -> None:
        """An answer may come later, and others overtake it."""
        client = Client()
        number = client.ask(b"GET", b"/later")
        assert client.server.is_responding
        assert client.get(b"/a").ended
        client.application.waiting[0].callback(Response(200, b"", b"at last"))
        client.turn()
        assert client.reply(number).body == b"at last"
        assert not client.server.is_responding

    def test_broken_application(self, failures: list[str]) -> None:
        """An application that raises, now or later, or in its judgement, gives a 500, and the connection goes on."""
        client = Client()
        assert client.get(b"/broken").status == 500
        number = client.ask(b"GET", b"/later")
        client.application.waiting[0].errback(ZeroDivisionError())
        client.turn()
        assert client.reply(number).status == 500
        assert client.reply(client.begin(b"POST", b"/broken-judge")).status == 500
        assert len(failures) == 3
        failures.clear()

    def test_live(self) -> None:
        """A live body's head leaves at once, and each of its frames at once."""
        client = Client()
        number, body = live(client)
        reply = client.reply(number)
        assert (reply.status, reply.headers[b"x-live"], b"content-length" in reply.headers) == (200, b"yes", False)
        assert client.server.is_streaming
        assert body.sink is not None
        assert body.sink.write(b"one ")
        client.turn()
        assert reply.body == b"one "
        assert body.sink.write_frame(Frame(b"two"))
        body.sink.finish()
        client.turn()
        assert (reply.body, reply.ended) == (b"one two", True)
        assert body.calls == ["start"]
        assert not client.server.is_streaming

    def test_broken_body(self, failures: list[str]) -> None:
        """A body that can't be completed resets its stream: the client must not take it for whole."""
        client = Client()
        number, body = live(client)
        assert body.sink is not None
        body.sink.write(b"half")
        body.sink.abort()
        client.turn()
        assert (client.reply(number).ended, client.reply(number).reset) == (False, ErrorCodes.INTERNAL_ERROR)

        def fail(sink: Sink) -> None:
            raise ZeroDivisionError

        number, _ = live(client, LiveBody(on_start=fail))
        assert client.reply(number).reset == ErrorCodes.INTERNAL_ERROR
        assert client.get(b"/a").status == 200
        failures.clear()

    @pytest.mark.parametrize("data", [b"short", b"much too long"])
    def test_wrong_length(self, data: bytes, failures: list[str]) -> None:
        """A body that isn't as long as it said resets its stream."""

        def write(sink: Sink) -> None:
            sink.write(data)
            sink.finish()

        client = Client()
        number, _ = live(client, LiveBody(length=8, on_start=write))
        assert (client.reply(number).ended, client.reply(number).reset) == (False, ErrorCodes.INTERNAL_ERROR)
        failures.clear()

    def test_deaf_after_end(self) -> None:
        """What a body writes after its end is dropped."""
        client = Client()
        number, body = live(client)
        assert body.sink is not None
        body.sink.finish()
        assert not body.sink.write(b"late")
        body.sink.finish()
        body.sink.abort()
        client.turn()
        reply = client.reply(number)
        assert (reply.body, reply.ended, reply.reset) == (b"", True, None)


class EarlyAnswerTests:
    """Requests that are answered before their body has come."""

    def test_judged(self) -> None:
        """A request that its head decides is answered at once, and the rest of its body is dropped."""
        client = Client()
        number = client.begin(b"POST", b"/missing")
        reply = client.reply(number)
        assert (reply.status, reply.ended, reply.reset) == (404, True, None)
        client.send(number, bytes(5000))
        client.send(number, bytes(5000), ends=True)
        assert reply.reset is None
        assert client.application.requests == []
        assert client.get(b"/a").status == 200

    def test_endless_rest(self) -> None:
        """A client that doesn't stop sending such a body is told to, after a while or beyond a bound."""
        client = Client(limits=HttpLimits(drain_timeout=5, linger_bytes=10_000))
        slow, much = client.begin(b"POST", b"/missing"), client.begin(b"POST", b"/missing")
        client.send(much, bytes(10_000))
        assert client.reply(much).reset is None
        client.send(much, b"1")
        assert client.reply(much).reset == ErrorCodes.NO_ERROR
        client.advance(4)
        assert client.reply(slow).reset is None
        client.advance(7)
        assert client.reply(slow).reset == ErrorCodes.NO_ERROR

    def test_end_waits_for_the_rest(self) -> None:
        """The end waits for the rest of such a body, for a while: a reset connection would destroy the answer."""
        client = Client(limits=HttpLimits(drain_timeout=5))
        client.begin(b"POST", b"/missing")
        client.server.finish()
        client.advance(3)
        assert not client.transport.disconnecting
        client.advance(8)
        assert client.transport.disconnecting

    def test_expecting(self) -> None:
        """A client that asks first isn't told to go on when it is answered already."""
        client = Client()
        number = client.begin(b"POST", b"/missing", (b"expect", b"100-continue"))
        assert client.reply(number).informational == []
        assert client.reply(number).status == 404

    def test_the_rest(self) -> None:
        """What is still under way of such a body is dropped, and its room in the window given back."""
        client = Client()
        for _ in range(100):
            number = client.h2.get_next_available_stream_id()
            fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/missing")]
            client.h2.send_headers(number, fields)
            client.h2.send_data(number, bytes(16_384))
            client.turn()
            assert client.reply(number).status == 404
            client.send(number, b"", ends=True)
        assert client.get(b"/a").status == 200

    @pytest.mark.parametrize("announced", [True, False])
    def test_too_large(self, announced: bool) -> None:
        """A body beyond the limit is refused: when it is announced, else when it is there."""
        client = Client()
        length = [(b"content-length", b"2000")] if announced else []
        number = client.begin(b"POST", b"/a", *length)
        assert client.reply(number).status == (413 if announced else 0)
        if not announced:
            client.send(number, bytes(1000))
            assert client.reply(number).status == 0
            client.send(number, b"1")
        assert (client.reply(number).status, client.reply(number).ended) == (413, True)
        assert client.application.requests == []

    def test_missing_before_too_large(self) -> None:
        """That there is no such thing is told before that the body is too large."""
        client = Client()
        assert client.reply(client.begin(b"POST", b"/missing", (b"content-length", b"2000"))).status == 404


class WindowTests:
    """How fast a client takes a response, and what that means for the server's memory."""

    def test_closed_window(self) -> None:
        """Without room nothing is sent, a body is told to wait, and room lets it go on."""
        client = Client(window=10, roomy=False)
        number, body = live(client, EndlessBody())
        assert isinstance(body, EndlessBody)
        assert client.reply(number).body == b"x" * 10
        assert 64 * 1024 <= body.written <= 80_000
        client.make_room(number, 60_000)
        assert len(client.reply(number).body) == 60_010
        assert body.calls == ["start"]
        client.make_room(number, 5_500)  # the connection's own window, 65,535 bytes, ends here
        assert len(client.reply(number).body) == 65_510
        assert body.written <= 160_000

    def test_no_spinning(self) -> None:
        """A client that leaves no room costs nothing while it does."""
        client = Client(window=10, roomy=False)
        client.ask(b"GET", b"/large")
        writes = len(client.transport.writes)
        client.advance(30)
        assert len(client.transport.writes) == writes
        assert len(client.clock.getDelayedCalls()) <= 1

    def test_window_of_the_connection(self) -> None:
        """The connection's window holds back all streams, and lets all go on."""
        client = Client(roomy=False)
        one, two = client.ask(b"GET", b"/large"), client.ask(b"GET", b"/large")
        assert len(client.reply(one).body) + len(client.reply(two).body) == 65_535
        client.h2.increment_flow_control_window(1_000_000)
        client.make_room(one, 1_000_000)
        client.make_room(two, 1_000_000)
        assert (client.reply(one).body, client.reply(two).body) == (LARGE, LARGE)

    def test_settings(self) -> None:
        """A client may make room by its settings, too."""
        client = Client(window=10, roomy=False)
        number = client.ask(b"GET", b"/large")
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.turn()
        assert len(client.reply(number).body) == 1000

    def test_fairness(self) -> None:
        """A small answer doesn't wait for a large one to be sent."""
        client = Client()
        client.transport.full = True
        large = client.ask(b"GET", b"/large")
        assert not client.reply(large).ended
        client.transport.full = False
        # While the transport is full nothing is read; what the client has asked meanwhile comes first afterwards.
        small = client.ask(b"GET", b"/a")
        client.server.resumeProducing()
        client.turn()
        assert client.reply(small).ended

    def test_full_transport(self) -> None:
        """While the transport takes nothing, nothing is sent and nothing read; a body waits."""
        client = Client()
        client.transport.full = True
        number, body = live(client, EndlessBody())
        assert isinstance(body, EndlessBody)
        assert body.written <= 80_000
        assert client.transport.producerState == "paused"
        client.transport.full = False
        client.h2.increment_flow_control_window(10_000_000)
        client.application.next_body = None
        client.server.resumeProducing()
        assert client.transport.producerState == "producing"
        assert "resume" in body.calls
        assert number

    def test_wide_window(self) -> None:
        """However wide a client's window is, what is queued for it is what the transport takes, and a little more."""
        client = Client(window=2**31 - 1)
        client.h2.increment_flow_control_window(2**31 - 1 - 65_535)
        client.turn()
        client.transport.full = True
        _, body = live(client, EndlessBody())
        assert isinstance(body, EndlessBody)
        assert body.written <= 2 * 80_000

    def test_stalled_stream(self) -> None:
        """A client that makes no room for a response loses its stream after a while."""
        client = Client(window=10, roomy=False, limits=HttpLimits(stall_timeout=20, idle_timeout=100))
        number, body = live(client, EndlessBody())
        client.advance(15)
        assert client.reply(number).reset is None
        client.advance(11)
        assert client.reply(number).reset == ErrorCodes.CANCEL
        assert body.calls[-1] == "stop"
        assert client.get(b"/nothing").status == 204

    def test_stalled_transport(self) -> None:
        """A client that reads nothing at all is cut after a while."""
        client = Client(limits=HttpLimits(stall_timeout=20))
        client.transport.full = True
        client.ask(b"GET", b"/large")
        for _ in range(26):
            client.clock.advance(1)
        assert client.transport.aborted


class TimeTests:
    """What may take how long."""

    def test_idle(self) -> None:
        """A connection without requests is closed after a while, with a goodbye; pings don't count."""
        client = Client(limits=HttpLimits(idle_timeout=30))
        client.get(b"/a")
        client.advance(20)
        client.h2.ping(b"12345678")
        client.turn()
        client.advance(9)
        assert not client.transport.disconnecting
        client.advance(6)
        assert client.transport.disconnecting
        assert client.farewell == [(ErrorCodes.NO_ERROR, 1)]

    def test_not_idle(self) -> None:
        """A connection that waits for an answer isn't idle."""
        client = Client(limits=HttpLimits(idle_timeout=30))
        client.ask(b"GET", b"/later")
        client.advance(100)
        assert not client.transport.disconnecting

    def test_silent_body(self) -> None:
        """A body of which nothing comes is refused after a while."""
        client = Client(limits=HttpLimits(body_timeout=10))
        number = client.begin(b"POST", b"/a")
        client.send(number, b"x")
        client.advance(9)
        assert client.reply(number).status == 0
        client.advance(6)
        assert (client.reply(number).status, client.reply(number).ended) == (408, True)

    def test_trickling_body(self) -> None:
        """A body that only trickles is refused, too."""
        client = Client(limits=HttpLimits(body_timeout=10, min_body_rate=100))
        number = client.begin(b"POST", b"/a")
        for _ in range(16):
            if not client.reply(number).status:
                client.send(number, b"x" * 9)
            client.advance(1)
        assert client.reply(number).status == 408

    def test_slow_goodbye(self) -> None:
        """A connection that is closed, and isn't gone some seconds later, is cut."""
        client = Client(limits=HttpLimits(drain_timeout=5))
        client.server.finish()
        client.advance(1.2)
        assert client.transport.disconnecting
        client.clock.advance(4)
        assert not client.transport.aborted
        client.clock.advance(6)
        assert client.transport.aborted


class ResetTests:
    """Clients that take requests back, or go."""

    def test_live(self) -> None:
        """A live body is stopped when its stream is reset."""
        client = Client()
        number, body = live(client)
        client.take_back(number)
        assert body.calls == ["start", "stop"]
        assert body.sink is not None
        body.sink.write(b"late")
        client.turn()
        assert client.reply(number).body == b""
        assert client.get(b"/a").status == 200

    def test_waiting(self) -> None:
        """An answer that is waited for is cancelled."""
        client = Client()
        number = client.ask(b"GET", b"/later")
        client.take_back(number)
        assert not client.server.is_responding
        assert client.get(b"/a").status == 200

    def test_in_one_segment(self) -> None:
        """A request and its reset may arrive together, at any stage of the request."""
        client = Client()
        for path in (b"/a", b"/large", b"/live", b"/later", b"/missing", b"/nothing"):
            for ends in (True, False):
                number = client.h2.get_next_available_stream_id()
                fields = [(b":method", b"PUT"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", path)]
                client.h2.send_headers(number, fields, end_stream=ends)
                client.h2.reset_stream(number)
                client.turn()
        assert client.get(b"/a").status == 200
        server = client.server
        assert (server.is_reading, server.is_responding, server.is_streaming) == (False, False, False)

    def test_flood(self) -> None:
        """A client that asks and takes back all the time is cut off (CVE-2023-44487)."""
        client = Client()
        for _ in range(RESETS_AT_ONCE):
            client.take_back(client.begin(b"POST", b"/a"))
        assert not client.transport.disconnecting
        client.take_back(client.begin(b"POST", b"/a"))
        assert client.transport.disconnecting
        assert client.farewell[-1][0] == ErrorCodes.ENHANCE_YOUR_CALM

    def test_flood_of_answered(self) -> None:
        """It is cut off, too, when every request arrives together with its reset, and is answered at once."""
        client = Client()
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/a")]
        for _ in range(10):
            for _ in range((RESETS_AT_ONCE + 10) // 10):
                number = client.h2.get_next_available_stream_id()
                client.h2.send_headers(number, fields, end_stream=True)
                client.h2.reset_stream(number)
            client.turn()
        assert client.transport.disconnecting
        assert client.farewell[-1][0] == ErrorCodes.ENHANCE_YOUR_CALM

    @pytest.mark.parametrize("kind", CONTROL_FRAMES)
    def test_flood_of_control_frames(self, kind: str) -> None:
        """A client that sends nothing but control frames is cut off, whatever their kind."""
        client = Client()
        number = client.begin(b"POST", b"/a")
        data = CONTROL_FRAMES[kind](number) * 100
        for _ in range(CONTROL_FRAMES_AT_ONCE // 100 - 1):
            client.server.dataReceived(data)
        client.transport.clear()
        assert not client.transport.disconnecting
        for _ in range(2):
            client.server.dataReceived(data)
        assert client.transport.disconnecting
        client.turn()
        assert client.farewell[-1][0] == ErrorCodes.ENHANCE_YOUR_CALM
        assert client.factory is not None
        assert client.server._connections.calmed == 1

    def test_control_frames_at_a_moderate_rate(self) -> None:
        """A client may send some every second, and more for what it is sent."""
        client = Client()
        for _ in range(CONTROL_FRAMES_AT_ONCE // CONTROL_FRAMES_PER_SECOND + 2):
            client.server.dataReceived(PingFrame(0, opaque_data=b"12345678").serialize() * CONTROL_FRAMES_PER_SECOND)
            client.transport.clear()
            client.clock.advance(1)

    def test_control_frames_of_a_busy_client(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client may send more of them for what it is sent, as it has to make room."""
        monkeypatch.setattr(http2_connection, "CONTROL_FRAMES_AT_ONCE", 50)
        client = Client()
        update = WindowUpdateFrame(0, window_increment=1).serialize()
        for _ in range(100):
            assert client.get(b"/a").status == 200
            client.server.dataReceived(update * CONTROL_FRAMES_PER_ANSWER)
        assert not client.transport.disconnecting

    def test_moderate(self) -> None:
        """A client that takes some back every second isn't."""
        client = Client()
        for _ in range(50):
            for _ in range(10):
                client.take_back(client.begin(b"POST", b"/a"))
            client.advance(1)
        assert not client.transport.disconnecting

    def test_too_many_streams(self) -> None:
        """A client that asks for more at a time than it may is cut off."""
        client = Client()
        client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = MAX_STREAMS + 1
        client.h2.remote_settings.acknowledge()
        for _ in range(MAX_STREAMS):
            client.begin(b"GET", b"/later", ends=True)
        assert not client.transport.disconnecting
        client.begin(b"GET", b"/later", ends=True)
        assert client.transport.disconnecting

    def test_lost(self) -> None:
        """When the connection is lost everything is let go of."""
        connections = Connections()
        clock = Clock()
        application = FakeApplication()
        factory = Http2Factory(application, TimerWheel(clock, stopwatch=clock.seconds), connections=connections)
        client = Client(application, clock=clock, factory=factory)
        _, body = live(client)
        client.ask(b"GET", b"/later")
        client.begin(b"POST", b"/a")
        assert connections.live == {client.server}
        client.lose()
        assert connections.live == set()
        assert body.calls == ["start", "stop"]
        clock.advance(1000)
        assert clock.getDelayedCalls() == []
        assert body.sink is not None
        body.sink.write(b"late")
        body.sink.finish()


class EndTests:
    """How the server ends connections, and how clients do."""

    @pytest.mark.parametrize("how", ["finish", "retire"])
    def test_goodbye(self, how: str) -> None:
        """The client is asked to go elsewhere; requests that were under way are answered all the same."""
        client = Client()
        later = client.ask(b"GET", b"/later")
        getattr(client.server, how)()
        client.turn()
        assert client.farewell == [(ErrorCodes.NO_ERROR, ANY_STREAM)]
        assert not client.transport.disconnecting
        client.application.waiting[0].callback(Response(200, b"", b"at last"))
        client.turn()
        assert client.reply(later).body == b"at last"

    def test_idle(self) -> None:
        """An idle connection gets a second for a request that is on its way, then it is closed."""
        client = Client()
        client.server.finish()
        client.advance(0.5)
        assert not client.transport.disconnecting
        client.advance(0.8)
        assert client.transport.disconnecting
        assert [code for code, _ in client.farewell] == [0, 0]

    def test_in_flight(self) -> None:
        """It is closed when the last answer has been sent."""
        client = Client()
        number, body = live(client)
        client.server.finish()
        client.advance(30)
        assert not client.transport.disconnecting
        assert client.farewell == [(0, ANY_STREAM), (0, number)]
        assert body.sink is not None
        body.sink.write(b"end")
        body.sink.finish()
        client.turn()
        assert client.reply(number).ended
        assert client.transport.disconnecting

    def test_too_late(self) -> None:
        """A request that comes after that second is given back, to be tried again elsewhere."""
        client = Client()
        live(client)
        client.server.finish()
        client.clock.advance(1.5)
        # The client hasn't seen the goodbye yet.
        client.transport.clear()
        number = client.ask(b"POST", b"/a")
        assert client.reply(number).reset == ErrorCodes.REFUSED_STREAM
        assert len(client.application.requests) == 1

    def test_twice(self) -> None:
        """Being told again changes nothing."""
        client = Client()
        for _ in range(3):
            client.server.finish()
        client.advance(2)
        client.server.finish()
        assert client.transport.disconnecting

    def test_client_goes(self) -> None:
        """A client that opens no more streams gets what it has asked for; then the connection is closed."""
        client = Client()
        number = client.ask(b"GET", b"/later")
        client.h2.close_connection()
        said = client.h2.data_to_send()
        client.server.dataReceived(said)
        assert not client.transport.disconnecting
        client.application.waiting[0].callback(Response(200, b"", b"at last"))
        assert b"at last" in client.transport.value()
        assert client.transport.disconnecting
        assert number == 1

    def test_client_complains(self) -> None:
        """A client that says what is wrong is closed at once."""
        client = Client()
        _, body = live(client)
        client.h2.close_connection(ErrorCodes.PROTOCOL_ERROR)
        client.server.dataReceived(client.h2.data_to_send())
        assert client.transport.disconnecting
        assert body.calls == ["start", "stop"]

    def test_factory(self) -> None:
        """A retiring factory greets with a goodbye; one that refuses makes no connections."""
        clock = Clock()
        factory = Http2Factory(FakeApplication(), TimerWheel(clock, stopwatch=clock.seconds))
        factory.retire()
        client = Client(clock=clock, factory=factory)
        assert client.farewell == [(0, ANY_STREAM)]
        factory.refuse_connections()
        assert factory.buildProtocol(None) is None

    def test_abort(self) -> None:
        """A connection can be cut."""
        client = Client()
        client.server.abort()
        assert client.transport.aborted


class RobustnessTests:
    """Any bytes, cut anywhere."""

    def test_byte_by_byte(self) -> None:
        """Answers don't depend on how the bytes were cut."""
        whole, cut = Client(), Client()
        for client, step in ((whole, 10_000), (cut, 1)):
            deliver: Callable[[bytes], None] = client.server.dataReceived

            def pieces(data: bytes, deliver: Callable[[bytes], None] = deliver, step: int = step) -> None:
                for position in range(0, len(data), step):
                    deliver(data[position : position + step])

            client.h2.send_headers(
                1, [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/a")]
            )
            client.h2.send_data(1, b"some body", end_stream=True)
            pieces(client.h2.data_to_send())
            client.turn()
        assert whole.reply(1) is not cut.reply(1)
        assert (whole.reply(1).headers, whole.reply(1).body) == (cut.reply(1).headers, cut.reply(1).body)

    @pytest.mark.parametrize("kind", range(11))
    def test_rubbish_frames(self, kind: int) -> None:
        """A frame of any kind with senseless content ends the connection, or is ignored, and raises nothing."""
        for flags in (0, 1, 4, 8, 0x20, 0xFF):
            for stream in (0, 1, 2, ANY_STREAM):
                for payload in (b"", b"\xff" * 4, b"\xff" * 8, b"\0" * 9, b"\xff" * 40):
                    client = Client()
                    client.begin(b"POST", b"/a")
                    frame = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
                    with capturedLogs() as events:
                        client.server.dataReceived(frame)
                    assert [event for event in events if "log_failure" in event] == []

    def test_blocked_flood(self) -> None:
        """A client that reads nothing isn't read either, so that answers to its pings don't pile up."""
        client = Client()
        client.transport.full = True
        client.ask(b"GET", b"/a")
        assert client.transport.producerState == "paused"


class BodyRoomTests:
    """Large bodies on all streams and connections share the room that there is."""

    def client(self, room: int) -> Client:
        """A client of a server with so much room."""
        clock, application = Clock(), FakeApplication(max_body_bytes=10**6)
        self.connections = Connections(bodies=UploadBudget(room))
        factory = Http2Factory(application, TimerWheel(clock, stopwatch=clock.seconds), connections=self.connections)
        return Client(application, clock=clock, factory=factory)

    def test_announced(self) -> None:
        """A body that has no room is refused by its head, and small ones aren't."""
        client = self.client(100_000)
        one = client.begin(b"POST", b"/echo", (b"content-length", b"90000"))
        client.send(one, b"x" * 80_000)
        assert self.connections.bodies.used == 80_000
        two = client.begin(b"POST", b"/echo", (b"content-length", b"70000"))
        assert client.reply(two).status == 503
        assert client.reply(two).body == b"Too many large request bodies are being received; try again later"
        assert client.reply(client.ask(b"POST", b"/echo", (b"content-length", b"5"), body=b"hello")).status == 200
        client.send(one, b"x" * 10_000, ends=True)
        assert client.reply(one).status == 200
        assert self.connections.bodies.used == 0

    def test_short_frames(self) -> None:
        """A body takes about as much memory as is counted of it, however short its frames are."""
        body = Http2Stream(cast("Any", None), 1, 0.0, UploadBudget())
        tracemalloc.start()
        try:
            for number in range(50_000):
                body.receive(b"%02d" % (number % 100), 0.0)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert body.bodies.used == 100_000
        assert taken < 200_000

    def test_in_the_middle(self) -> None:
        """One that outgrows the room is answered before its end; what came of it, and of lost ones, is let go of."""
        client = self.client(200_000)
        one, two = client.begin(b"POST", b"/echo"), client.begin(b"POST", b"/echo")
        client.send(one, b"x" * 100_000)
        client.send(two, b"x" * 90_000)
        assert self.connections.bodies.used == 190_000
        client.send(two, b"x" * 20_000)
        assert client.reply(two).status == 503
        assert self.connections.bodies.used == 100_000
        client.take_back(one)
        assert self.connections.bodies.used == 0
        three = client.begin(b"POST", b"/echo")
        client.send(three, b"x" * 100_000)
        client.lose()
        assert self.connections.bodies.used == 0
