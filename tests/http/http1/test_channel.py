"""The HTTP/1.1 channel, on a fake transport."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.internet.task import Clock
from twisted.logger import LogEvent
from zope.interface.verify import verifyObject

from dstreams.http.http1.channel import HttpFactory
from dstreams.http.messages import Request, Response, Sink
from dstreams.http.transport.limits import MAX_BLANK_LINES, WRITE_PIECE_BYTES, HttpLimits
from dstreams.runtime.timers import CALLS_PER_TURN, TimerWheel
from tests.http.fakes import (
    DATE,
    LARGE,
    Connected,
    FakeApplication,
    LiveBody,
    announce,
    chunked,
    describe,
    errors_logged,
    frame,
    get,
    post,
    read_answers,
)


@pytest.fixture(autouse=True)
def errors() -> Iterator[list[LogEvent]]:
    """What was logged as an error. A test that provokes errors takes them out."""
    with errors_logged() as found:
        yield found
    assert not found


class ResponseTests:
    """How a response is written."""

    def test_a_small_response(self) -> None:
        """Status line, the application's lines, ours, and the body leave in one write."""
        connected = Connected()
        connected.send(get(b"/missing"))
        head = b"HTTP/1.1 404 Not Found\r\nX-Why: missing\r\n" + DATE
        assert connected.transport.writes == [head + b"Content-Length: 13\r\n\r\nno such thing"]

    def test_an_empty_body(self) -> None:
        """An empty body has a length."""
        assert b"Content-Length: 0\r\n\r\n" in Connected().send(get(b"/silent"))

    @pytest.mark.parametrize("path", [b"/nothing", b"/unchanged"])
    def test_statuses_without_a_body(self, path: bytes) -> None:
        """204 and 304 have neither a length nor a body."""
        sent = Connected().send(get(path))
        assert sent.endswith(b"\r\n\r\n")
        assert b"Content-Length" not in sent

    def test_the_answer_to_head(self) -> None:
        """HEAD gets the length that GET would get, and no body."""
        sent = Connected().send(get(b"/missing", method=b"HEAD"))
        assert sent.endswith(b"Content-Length: 13\r\n\r\n")

    def test_the_answer_to_head_of_unknown_length(self) -> None:
        """Nothing is said of a body that is empty, or of unknown length."""
        connected = Connected()
        assert b"Content-Length" not in connected.send(get(b"/silent", method=b"HEAD"))
        sent = connected.send(get(b"/live", method=b"HEAD"))
        assert b"Content-Length" not in sent
        assert b"Transfer-Encoding" not in sent
        assert connected.application.bodies[0].calls == ["stop"]
        assert connected.send(get(b"/nothing")).startswith(b"HTTP/1.1 204 ")

    def test_an_unregistered_status(self) -> None:
        """A status that nobody registered has a line, too."""
        connected = Connected()
        connected.send(get(b"/later"))
        connected.application.waiting.pop().callback(Response(299))
        assert connected.sent().startswith(b"HTTP/1.1 299 ")

    def test_the_date_follows_the_clock(self) -> None:
        """The Date header is the wall clock's, second by second."""
        now = [0.0]
        application = FakeApplication()
        factory = HttpFactory(application, TimerWheel(Clock()), now=lambda: now[0])
        connected = Connected(application, factory=factory)
        assert DATE in connected.send(get())
        now[0] = 1.5
        assert b"Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n" in connected.send(get())

    def test_a_large_response_in_pieces(self) -> None:
        """Large bodies go out in pieces, and wait for a client that doesn't keep up."""
        connected = Connected()
        connected.transport.full = True
        connected.send(get(b"/large"))
        first = sum(map(len, connected.transport.writes))
        assert first < 2 * WRITE_PIECE_BYTES
        while connected.transport.full:
            connected.transport.drained()
        [answer] = read_answers(b"".join(connected.transport.writes))
        assert answer.body == LARGE
        assert answer.headers[b"content-length"] == b"256000"
        assert max(map(len, connected.transport.writes)) < 2 * WRITE_PIECE_BYTES
        connected.sent()
        assert connected.send(get(b"/nothing")).startswith(b"HTTP/1.1 204 ")

    def test_a_large_response_to_head(self) -> None:
        """HEAD gets the length of a large body, and nothing of it."""
        sent = Connected().send(get(b"/large", method=b"HEAD"))
        assert sent.endswith(b"Content-Length: 256000\r\n\r\n")


class RequestTests:
    """What the application is asked."""

    def test_a_request_without_a_body(self) -> None:
        """Everything a head says is in the request."""
        connected = Connected()
        connected.send(get(b"/echo/a%20b?c=d", b"X-Y: z"))
        [request] = connected.application.requests
        assert (request.method, request.path, request.query) == (b"GET", b"/echo/a%20b", b"c=d")
        assert request.headers == {b"host": b"example.org", b"x-y": b"z"}
        assert (request.content_length, request.body) == (0, b"")
        assert (request.scheme, request.peer, request.root) == (b"http", "192.168.1.1", b"")

    def test_the_scheme_of_tls(self) -> None:
        """A request over TLS says so."""
        connected = Connected(tls=True)
        connected.send(get())
        assert connected.application.requests[0].scheme == b"https"

    def test_a_body_in_one_segment(self) -> None:
        """A short body that comes with its head is answered without being judged."""
        connected = Connected()
        [answer] = read_answers(connected.send(post(b"hello")))
        assert answer.body.endswith(b"\nhello")
        assert connected.application.judged == []

    def test_a_body_in_many_segments(self) -> None:
        """A body that comes later is judged by its head first, once."""
        connected = Connected()
        assert connected.send(announce(5), b"he", b"ll") == b""
        [answer] = read_answers(connected.send(b"o"))
        assert answer.body.endswith(b"\nhello")
        assert connected.application.judged == [b"/echo"]

    def test_a_chunked_body(self) -> None:
        """Chunks are joined."""
        connected = Connected()
        connected.send(chunked(b"he", b"llo"))
        [request] = connected.application.requests
        assert (request.content_length, request.body) == (None, b"hello")

    def test_an_upgrade_offer_with_a_body(self) -> None:
        """An offer to upgrade is ignored, its body read, and the next request answered."""
        connected = Connected()
        offer = post(b"hello", b"/echo", b"Connection: Upgrade", b"Upgrade: h2c")
        answers = read_answers(connected.send(offer + get(b"/nothing")))
        assert [answer.status for answer in answers] == [200, 204]
        assert connected.application.requests[0].body == b"hello"

    def test_blank_lines_before_a_request(self) -> None:
        """A few empty lines are skipped, many are refused."""
        connected = Connected()
        assert connected.send(b"\r\n" * MAX_BLANK_LINES + get(b"/nothing")).startswith(b"HTTP/1.1 204")
        for _ in range(MAX_BLANK_LINES):
            assert connected.send(b"\r", b"\n") == b""
        assert connected.send(b"\r\n").startswith(b"HTTP/1.1 400")

    def test_blank_lines_after_requests(self) -> None:
        """An empty line after each body, as old clients send it, is skipped however many requests come."""
        connected = Connected()
        for _ in range(MAX_BLANK_LINES + 2):
            assert connected.send(get(b"/nothing")).startswith(b"HTTP/1.1 204")
            assert connected.send(b"\r\n") == b""

    def test_provides_its_interfaces(self) -> None:
        """The channel is what Twisted takes it for."""
        channel = Connected().channel
        for interface in (IProtocol, IHalfCloseableProtocol, IPushProducer):
            assert verifyObject(interface, channel)

    def test_small_packets_are_not_delayed(self) -> None:
        """TCP's delay for small packets is off, where there is TCP."""
        assert "setTcpNoDelay(True)" in Connected().transport.calls
        assert Connected(tcp=False).transport.calls == []


class KeepAliveTests:
    """Whether a connection outlives its answer."""

    def test_goes_on(self) -> None:
        """An HTTP/1.1 connection goes on, and nothing is said of it."""
        connected = Connected()
        assert b"Connection" not in connected.send(get())
        assert not connected.transport.disconnecting

    def test_close(self) -> None:
        """A client that asks for it gets the end, and is told."""
        connected = Connected()
        assert b"\r\nConnection: close\r\n" in connected.send(get(b"/echo", b"Connection: close"))
        assert connected.transport.disconnecting

    def test_1_0(self) -> None:
        """HTTP/1.0 ends."""
        connected = Connected()
        assert b"\r\nConnection: close\r\n" in connected.send(get(version=b"1.0"))
        assert connected.transport.disconnecting

    def test_1_0_keep_alive(self) -> None:
        """HTTP/1.0 goes on when asked, and says so."""
        connected = Connected()
        asked = get(b"/echo", b"Connection: keep-alive", version=b"1.0")
        assert b"\r\nConnection: keep-alive\r\n" in connected.send(asked)
        assert not connected.transport.disconnecting

    def test_nothing_after_close(self) -> None:
        """What follows a request that ends the connection isn't answered; it is read, lest it resets."""
        connected = Connected()
        sent = connected.send(get(b"/nothing", b"Connection: close") + get())
        assert len(read_answers(sent)) == 1
        assert connected.transport.half_closed
        assert len(connected.application.requests) == 1


class PipelineTests:
    """Several requests at once."""

    def test_answers_leave_in_one_write(self) -> None:
        """What is answered in one turn is written once, in order."""
        connected = Connected()
        connected.send(get(b"/missing") + get(b"/nothing") + post(b"hello") + get(b"/silent"))
        [written] = connected.transport.writes
        assert [answer.status for answer in read_answers(written)] == [404, 204, 200, 200]

    def test_thousands(self) -> None:
        """Thousands of requests in a segment need no recursion."""
        connected = Connected()
        sent = connected.send(get(b"/nothing") * 5000)
        assert sent.count(b"HTTP/1.1 204 No Content\r\n") == 5000
        assert max(map(len, connected.transport.writes)) < 2 * WRITE_PIECE_BYTES

    def test_order(self) -> None:
        """A later request isn't asked before the earlier one is answered."""
        connected = Connected()
        assert connected.send(get(b"/later") + get(b"/missing") + get(b"/later")) == b""
        assert len(connected.application.requests) == 1
        connected.application.waiting.pop().callback(Response(200, b"", b"first"))
        assert [answer.status for answer in read_answers(connected.sent())] == [200, 404]
        connected.application.waiting.pop().callback(Response(200, b"", b"third"))
        assert [answer.body for answer in read_answers(connected.sent())] == [b"third"]

    def test_thousands_that_wait(self) -> None:
        """Thousands of requests that are answered later need no recursion either."""
        connected = Connected()
        connected.send(get(b"/later") * 1500)
        for _ in range(1500):
            connected.application.waiting.pop().callback(Response(204))
        assert connected.sent().count(b"HTTP/1.1 204 No Content\r\n") == 1500

    def test_answered_at_once_through_deferreds(self) -> None:
        """Deferreds that have fired already are answers like others."""

        class Prompt(FakeApplication):
            def respond(self, request: Request) -> Deferred[Response]:
                fired: Deferred[Response] = Deferred()
                fired.callback(Response(204))
                return fired

        connected = Connected(Prompt())
        assert connected.send(get() * 3000).count(b"HTTP/1.1 204 No Content\r\n") == 3000
        assert len(connected.transport.writes) < 10

    def test_input_is_bounded_while_an_answer_is_awaited(self) -> None:
        """Reading pauses beyond the bound and goes on when the answers have been given."""
        limits = HttpLimits(read_ahead_bytes=100)
        connected = Connected(limits=limits)
        connected.send(get(b"/later"))
        assert connected.transport.producerState == "producing"
        connected.send(get(b"/nothing"))
        assert connected.transport.producerState == "producing"
        connected.send(get(b"/nothing") * 3)
        assert connected.transport.producerState == "paused"
        connected.application.waiting.pop().callback(Response(204))
        assert connected.transport.producerState == "producing"
        assert len(read_answers(connected.sent())) == 5

    def test_a_body_that_was_begun_meanwhile_is_read_on(self) -> None:
        """Reading goes on, too, when what waited ends in the middle of a body."""
        connected = Connected(limits=HttpLimits(read_ahead_bytes=100))
        connected.send(get(b"/later") + announce(500) + b"x" * 400)
        assert connected.transport.producerState == "paused"
        connected.application.waiting.pop().callback(Response(204))
        assert connected.transport.producerState == "producing"
        answers = read_answers(connected.sent() + connected.send(b"x" * 100))
        assert [answer.status for answer in answers] == [204, 200]

    def test_no_requests_are_served_to_a_client_that_reads_nothing(self) -> None:
        """While answers pile up in the transport, no further requests are read or answered."""
        connected = Connected(limits=HttpLimits(read_ahead_bytes=1000))
        connected.transport.full = True
        connected.send(get(b"/nothing"))
        assert len(connected.application.requests) == 1
        connected.send(get(b"/nothing") * 100)
        assert len(connected.application.requests) == 1
        assert connected.transport.producerState == "paused"
        connected.transport.drained()
        assert len(connected.application.requests) == 101
        assert connected.transport.producerState == "producing"


class EarlyAnswerTests:
    """Requests that are answered by their head."""

    def test_a_short_body_is_dropped(self) -> None:
        """The body is read and dropped, and the connection goes on."""
        connected = Connected()
        [answer] = read_answers(connected.send(announce(10, b"/missing")))
        assert answer.status == 404
        assert b"connection" not in answer.headers
        assert connected.send(b"01234", b"56789") == b""
        assert connected.application.requests == []
        assert connected.send(get(b"/nothing")).startswith(b"HTTP/1.1 204")

    def test_what_follows_the_dropped_body(self) -> None:
        """The next request begins where the dropped body ends."""
        connected = Connected()
        sent = connected.send(announce(10, b"/missing") + b"01234", b"56789" + get(b"/nothing"))
        assert [answer.status for answer in read_answers(sent)] == [404, 204]

    def test_a_long_body_ends_the_connection(self) -> None:
        """The client is told, and what it sends is read until it stops."""
        connected = Connected(limits=HttpLimits(drain_bytes=100))
        [answer] = read_answers(connected.send(announce(101, b"/missing")))
        assert (answer.status, answer.headers[b"connection"]) == (404, b"close")
        assert connected.transport.half_closed
        assert connected.send(b"x" * 101) == b""
        assert not connected.transport.disconnecting
        connected.channel.readConnectionLost()
        assert connected.transport.disconnecting

    def test_the_same_when_all_comes_at_once(self) -> None:
        """A long body that came with its head makes no difference."""
        connected = Connected(limits=HttpLimits(drain_bytes=100))
        [answer] = read_answers(connected.send(announce(101, b"/missing") + b"x" * 101))
        assert (answer.status, answer.headers[b"connection"]) == (404, b"close")
        assert connected.application.judged == [b"/missing"]

    def test_a_chunked_body_ends_the_connection(self) -> None:
        """Nobody knows how long a chunked body goes on."""
        connected = Connected()
        [answer] = read_answers(connected.send(chunked(b"hello", path=b"/missing")))
        assert (answer.status, answer.headers[b"connection"]) == (404, b"close")

    def test_lingering_is_bounded_in_bytes(self) -> None:
        """A client that sends without end has to wait for the end."""
        connected = Connected(limits=HttpLimits(drain_bytes=1, linger_bytes=100))
        connected.send(announce(10**6, b"/missing") + b"x" * 50, b"x" * 50)
        assert connected.transport.producerState == "producing"
        connected.send(b"x")
        assert connected.transport.producerState == "paused"
        connected.clock.advance(5.2)
        assert connected.transport.disconnecting

    def test_lingering_goes_on_reading(self) -> None:
        """Input that was held up is read to its end before the connection is closed."""
        connected = Connected(limits=HttpLimits(read_ahead_bytes=10))
        connected.send(get(b"/later", b"Connection: close") + b"x" * 11)
        assert connected.transport.producerState == "paused"
        connected.application.waiting.pop().callback(Response(204))
        assert connected.transport.half_closed
        assert connected.transport.producerState == "producing"

    def test_lingering_is_bounded_in_time(self) -> None:
        """A client that trickles is closed on after five seconds."""
        connected = Connected(limits=HttpLimits(drain_bytes=1))
        connected.send(announce(10**6, b"/missing"))
        for _ in range(4):
            connected.clock.advance(1)
            connected.send(b"x")
        assert not connected.transport.disconnecting
        connected.clock.advance(1.2)
        assert connected.transport.disconnecting

    def test_dropping_is_bounded_in_time(self) -> None:
        """A short body that doesn't come ends the connection after all."""
        connected = Connected()
        connected.send(announce(10, b"/missing"))
        connected.clock.advance(4)
        connected.send(b"x")
        assert not connected.transport.disconnecting
        connected.clock.advance(1.2)
        assert connected.transport.disconnecting

    def test_tls_has_no_half_close(self) -> None:
        """Over TLS what the client sends is read as well, but nothing is closed by halves."""
        connected = Connected(limits=HttpLimits(drain_bytes=1), tls=True)
        connected.send(announce(10**6, b"/missing"))
        assert not connected.transport.half_closed
        assert not connected.transport.disconnecting
        connected.clock.advance(5.2)
        assert connected.transport.disconnecting


class BodyRoomTests:
    """Large bodies on all connections share the room that there is."""

    def crowd(self, count: int) -> list[Connected]:
        """Connections of one listener with room for 300,000 bytes."""
        application = FakeApplication(max_body_bytes=10**6)
        factory = HttpFactory(application, TimerWheel(Clock()), HttpLimits(max_buffered_bytes=300_000))
        return [Connected(application, factory=factory) for _ in range(count)]

    def used(self, connected: Connected) -> int:
        return connected.factory.statistics().body_bytes

    def test_announced(self) -> None:
        """A body that has no room is refused by its head; the connection goes on when the body is short enough."""
        one, two, three = self.crowd(3)
        one.send(announce(250_000, b"/echo"), b"x" * 200_000)
        assert self.used(one) == 200_000
        [answer] = read_answers(two.send(announce(200_000, b"/echo")))
        assert (answer.status, answer.headers[b"x-refused"]) == (503, b"/echo")
        assert answer.body == b"Too many large request bodies are being received; try again later"
        assert read_answers(two.send(b"x" * 200_000 + get(b"/echo")))[0].status == 200
        [answer] = read_answers(three.send(announce(200_000, b"/echo", ExpectationTests.EXPECT)))
        assert (answer.status, answer.headers[b"connection"]) == (503, b"close")
        assert one.send(b"x" * 50_000).startswith(b"HTTP/1.1 200")
        assert self.used(one) == 0
        assert one.factory.statistics().refused_bodies == 2
        assert one.factory.statistics().refused == 0

    def test_small(self) -> None:
        """Small ones, and those that come whole, always have room."""
        one, two = self.crowd(2)
        one.send(announce(300_000, b"/echo"), b"x" * 299_999)
        assert two.send(announce(60_000, b"/echo"), b"x" * 30_000, b"x" * 30_000).startswith(b"HTTP/1.1 200")
        assert two.send(announce(200_000, b"/echo") + b"x" * 200_000).startswith(b"HTTP/1.1 200")
        assert self.used(one) == 299_999

    def test_in_the_middle(self) -> None:
        """A body that outgrows the room is answered before its end, and what has come of it is let go of at once."""
        one, two = self.crowd(2)
        one.send(announce(200_000, b"/echo"), b"x" * 150_000)
        head = get(b"/echo", b"Transfer-Encoding: chunked", method=b"POST")
        assert two.send(head, b"30d40\r\n", b"x" * 100_000, b"x" * 40_000) == b""
        [answer] = read_answers(two.send(b"x" * 20_000))
        assert (answer.status, answer.headers[b"connection"]) == (503, b"close")
        assert self.used(one) == 150_000
        two.send(b"x" * 30_000)
        assert one.send(b"x" * 50_000).startswith(b"HTTP/1.1 200")

    def test_larger_than_all_the_room(self) -> None:
        """A chunked body for which there is never room gets no answer that asks for it again."""
        head = get(b"/echo", b"Transfer-Encoding: chunked", method=b"POST")
        [one] = self.crowd(1)
        [answer] = read_answers(one.send(head, b"493e1\r\n", b"x" * 200_000, b"x" * 100_001))
        assert answer.status == 413
        assert self.used(one) == 0

    def test_given_up(self) -> None:
        """What came of a body that is never completed counts no longer: lost, timed out, or malformed."""
        one, two, three = self.crowd(3)
        one.send(announce(200_000, b"/echo"), b"x" * 90_000)
        two.send(announce(200_000, b"/echo"), b"x" * 90_000)
        three.send(get(b"/echo", b"Transfer-Encoding: chunked", method=b"POST"), b"15f90\r\n", b"x" * 90_000)
        assert self.used(one) == 270_000 + 7  # the chunk's size counts as well
        one.lose()
        assert self.used(one) == 180_007
        two.channel._time_out("too slow")
        assert self.used(one) == 90_007
        assert three.send(b"!!").startswith(b"HTTP/1.1 400")
        assert self.used(one) == 0


class ExpectationTests:
    """``Expect: 100-continue``."""

    EXPECT = b"Expect: 100-continue"

    def test_continue(self) -> None:
        """A client that waits is told to go on once its head has been judged."""
        connected = Connected()
        assert connected.send(announce(5, b"/echo", self.EXPECT)) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connected.application.judged == [b"/echo"]
        assert connected.send(b"hello").startswith(b"HTTP/1.1 200")

    def test_a_client_that_does_not_wait(self) -> None:
        """A body that has begun to arrive needs no invitation."""
        connected = Connected()
        assert connected.send(announce(5, b"/echo", self.EXPECT) + b"h") == b""
        assert connected.send(b"ello").startswith(b"HTTP/1.1 200")

    def test_an_early_answer_instead(self) -> None:
        """An answer takes the place of the 100 and, as the body may or may not come, ends the connection."""
        connected = Connected()
        [answer] = read_answers(connected.send(announce(5, b"/missing", self.EXPECT)))
        assert (answer.status, answer.headers[b"connection"]) == (404, b"close")

    def test_too_large(self) -> None:
        """A body that is too large isn't asked for."""
        [answer] = read_answers(Connected().send(announce(1001, b"/echo", self.EXPECT)))
        assert answer.status == 413

    def test_chunks(self) -> None:
        """Chunked bodies are invited as well."""
        connected = Connected()
        head, separator, rest = chunked(b"hello", headers=[self.EXPECT]).partition(b"\r\n\r\n")
        assert connected.send(head + separator) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connected.send(rest).startswith(b"HTTP/1.1 200")

    def test_1_0(self) -> None:
        """HTTP/1.0 knows no 100."""
        connected = Connected()
        head = get(b"/echo", b"Content-Length: 5", self.EXPECT, method=b"POST", version=b"1.0")
        assert connected.send(head) == b""
        assert connected.send(b"hello").startswith(b"HTTP/1.1 200")

    def test_another_expectation(self) -> None:
        """Nothing else is met."""
        assert Connected().send(announce(5, b"/echo", b"Expect: more")).startswith(b"HTTP/1.1 417")


class RefusalTests:
    """What HTTP doesn't allow."""

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (get(b"/" + b"x" * 8192), 414),
            (get(b"/", b"X: " + b"x" * 32768), 431),
            (get(b"/", *[b"X: y"] * 101), 431),
            (b"GET / HTTP/1.1\n\n", 400),
            (b"\x16\x03\x01\x02\x00\x01", 400),
            (get(version=b"2.0"), 505),
            (get(method=b"BREW"), 501),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (announce(1001), 413),
            (chunked(b"x" * 600, b"x" * 600), 413),
            (chunked(b"x").replace(b"1\r\nx", b"x\r\nx"), 400),
        ],
    )
    def test_is_refused_and_ends(self, data: bytes, status: int) -> None:
        """The application words the answer; the connection ends, gently."""
        connected = Connected()
        [answer] = read_answers(connected.send(data))
        assert (answer.status, answer.headers[b"connection"]) == (status, b"close")
        assert b"x-refused" in answer.headers
        assert connected.application.requests == []
        assert connected.transport.half_closed
        assert connected.factory.statistics().refused == 1
        connected.channel.readConnectionLost()
        assert connected.transport.disconnecting

    @pytest.mark.parametrize(
        "data",
        [
            announce(1001, b"/missing"),
            chunked(b"x" * 600, b"x" * 600, path=b"/missing"),
            chunked(b"x", path=b"/missing").replace(b"1\r\nx", b"x\r\nx"),
        ],
    )
    def test_the_judgment_comes_first(self, data: bytes) -> None:
        """A 404 isn't hidden by a body that is too large or malformed."""
        assert Connected().send(data).startswith(b"HTTP/1.1 404")

    def test_earlier_requests_are_answered(self) -> None:
        """What came before the fault is answered first."""
        sent = Connected().send(get(b"/nothing") + b"\x00")
        assert [answer.status for answer in read_answers(sent)] == [204, 400]

    def test_the_answer_to_a_refused_head_request(self) -> None:
        """A refusal of HEAD has no body where the method is known."""
        connected = Connected()
        sent = connected.send(get(b"/echo", b"Content-Length: 1001", method=b"HEAD"))
        [answer] = read_answers(sent, [b"HEAD"])
        assert answer.status == 413

    def test_after_a_head_request(self) -> None:
        """What can't be read isn't a HEAD request, even after one."""
        connected = Connected()
        assert connected.send(get(b"/missing", method=b"HEAD")).endswith(b"\r\n\r\n")
        assert len(read_answers(connected.send(b"\x00"))[0].body) > 0

    def test_a_limit_that_is_less_than_what_is_drained(self) -> None:
        """A body beyond the application's limit is refused although it has arrived."""
        application = FakeApplication(max_body_bytes=3)
        assert Connected(application).send(post(b"1234")).startswith(b"HTTP/1.1 413")
        assert Connected(application).send(post(b"123")).startswith(b"HTTP/1.1 200")
        assert application.judged == [b"/echo"]


class EndOfInputTests:
    """A client that closes its side, or vanishes."""

    @pytest.mark.parametrize("data", [announce(5) + b"hell", chunked(b"hello")[:-4], b"GET / HT", b"\r"])
    def test_in_the_middle_of_a_request(self, data: bytes) -> None:
        """Half a request isn't passed on; the client is told."""
        connected = Connected()
        connected.send(data)
        connected.channel.readConnectionLost()
        [answer] = read_answers(connected.sent())
        assert (answer.status, answer.headers[b"connection"]) == (400, b"close")
        assert connected.application.requests == []
        assert connected.transport.disconnecting

    def test_between_requests(self) -> None:
        """An idle connection is closed."""
        connected = Connected()
        connected.send(get())
        connected.channel.readConnectionLost()
        assert connected.transport.disconnecting
        assert connected.sent() == b""

    def test_while_an_append_is_answered(self) -> None:
        """A client that has changed something still gets its answer, and those to what it had sent."""
        connected = Connected()
        connected.send(post(b"x", b"/later") + get(b"/missing"))
        connected.channel.readConnectionLost()
        assert not connected.transport.disconnecting
        connected.application.waiting.pop().callback(Response(204))
        assert [answer.status for answer in read_answers(connected.sent())] == [204, 404]
        assert connected.transport.disconnecting

    def test_while_reading_is_paused(self) -> None:
        """After the end there is nothing to go on reading."""
        connected = Connected(limits=HttpLimits(read_ahead_bytes=60))
        connected.send(post(b"x", b"/later") * 2 + get(b"/nothing"))
        assert connected.transport.producerState == "paused"
        connected.channel.readConnectionLost()
        for _ in range(2):
            connected.application.waiting.pop().callback(Response(204))
        assert len(read_answers(connected.sent())) == 3
        assert connected.transport.producerState == "paused"
        assert connected.transport.disconnecting

    def test_while_news_are_awaited(self) -> None:
        """A wait for news is cancelled at once."""
        connected = Connected()
        connected.send(get(b"/later"))
        assert connected.factory.statistics().responding == 1
        connected.channel.readConnectionLost()
        assert connected.factory.statistics().responding == 0
        assert connected.transport.disconnecting
        assert connected.sent() == b""

    def test_while_news_are_awaited_and_there_is_an_answer(self) -> None:
        """What a cancelled wait yields is sent."""

        class Obliging(FakeApplication):
            def respond(self, request: Request) -> Deferred[Response]:
                return Deferred(lambda waiting: waiting.callback(Response(204)))

        connected = Connected(Obliging())
        connected.send(get(b"/later"))
        connected.channel.readConnectionLost()
        assert connected.sent().startswith(b"HTTP/1.1 204")
        assert connected.transport.disconnecting

    def test_while_a_live_body_is_sent(self) -> None:
        """A live body is stopped at once."""
        connected = Connected()
        connected.send(get(b"/live"))
        connected.channel.readConnectionLost()
        assert connected.application.bodies[0].calls == ["start", "stop"]
        assert connected.transport.disconnecting

    def test_while_a_body_of_known_length_is_sent(self) -> None:
        """A download goes on."""
        connected = Connected()
        connected.application.next_body = LiveBody(length=5)
        connected.send(get(b"/live"))
        connected.channel.readConnectionLost()
        [body] = connected.application.bodies
        assert body.sink is not None
        body.sink.write(b"hello")
        body.sink.finish()
        assert connected.sent().endswith(b"hello")
        assert connected.transport.disconnecting

    def test_while_a_body_is_dropped(self) -> None:
        """There is nothing to wait for."""
        connected = Connected()
        connected.send(announce(10, b"/missing") + b"x")
        connected.channel.readConnectionLost()
        assert connected.transport.disconnecting

    def test_a_lost_connection_cancels_the_answer(self) -> None:
        """The application learns of a lost connection by cancellation, which is no error."""
        cancelled: list[Deferred[Response]] = []

        class Waiting(FakeApplication):
            def respond(self, request: Request) -> Deferred[Response]:
                return Deferred(cancelled.append)

        connected = Connected(Waiting())
        connected.send(post(b"x") + get())
        assert cancelled == []
        connected.lose()
        assert len(cancelled) == 1

    def test_an_answer_after_the_connection_was_lost(self) -> None:
        """An answer that comes too late is let go, and its body stopped."""

        class Stubborn(FakeApplication):
            def respond(self, request: Request) -> Deferred[Response]:
                waiting: Deferred[Response] = Deferred(lambda _: waiting.callback(Response(200, b"", body)))
                return waiting

        body = LiveBody()
        connected = Connected(Stubborn())
        connected.send(get())
        connected.lose()
        assert body.calls == ["stop"]

    def test_a_lost_connection_stops_the_body(self) -> None:
        """A streamed body is stopped once, and what it writes after that goes nowhere."""
        connected = Connected()
        connected.send(get(b"/live"))
        [body] = connected.application.bodies
        connected.lose()
        connected.sent()
        assert body.calls == ["start", "stop"]
        assert body.sink is not None
        assert body.sink.write(b"x") is False
        assert body.sink.write_frame(frame(b"x")) is False
        body.sink.finish()
        body.sink.abort()
        assert connected.sent() == b""

    def test_nothing_keeps_a_lost_channel(self) -> None:
        """A channel that is lost is free: no timer and no registry holds it."""
        connected = Connected()
        connected.send(get(b"/live"))
        connected.lose()
        channel = weakref.ref(connected.channel)
        assert connected.factory.statistics().connections == 0
        connected.transport.producer = None
        wheel = connected.wheel
        del connected
        gc.collect()
        assert channel() is None
        wheel.stop()


class StreamTests:
    """Streamed bodies."""

    def start(self, connected: Connected, request: bytes = b"", length: int | None = None) -> LiveBody:
        """Ask for a body that the test writes."""
        connected.application.next_body = LiveBody(length)
        connected.send(request or get(b"/live"))
        return connected.application.bodies[-1]

    def sink(self, body: LiveBody) -> Sink:
        """Where a started body goes."""
        assert body.sink is not None
        return body.sink

    def test_the_head_is_sent_at_once(self) -> None:
        """A live body may have nothing to say for a while; its head doesn't wait."""
        connected = Connected()
        connected.application.next_body = LiveBody()
        sent = connected.send(get(b"/live"))
        assert sent == b"HTTP/1.1 200 OK\r\nX-Live: yes\r\n" + DATE + b"Transfer-Encoding: chunked\r\n\r\n"

    def test_the_head_is_joined_with_what_is_written_at_once(self) -> None:
        """A body that writes when it is started needs no second packet."""
        connected = Connected()
        connected.application.next_body = LiveBody(on_start=lambda sink: sink.write(b"hello"))
        connected.send(get(b"/live"))
        assert len(connected.transport.writes) == 1

    def test_chunks(self) -> None:
        """Each write is a chunk, shared frames included; the end is an empty one."""
        connected = Connected()
        sink = self.sink(self.start(connected))
        connected.sent()
        assert sink.write(b"hello") is True
        assert sink.write_frame(frame(b"x" * 16)) is True
        assert sink.write(b"") is True
        assert sink.write_frame(frame(b"")) is True
        sink.finish()
        assert connected.sent() == b"5\r\nhello\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"
        assert connected.send(get(b"/nothing")).startswith(b"HTTP/1.1 204")

    def test_known_length(self) -> None:
        """A body that knows its length is sent as it is."""
        connected = Connected()
        sink = self.sink(self.start(connected, length=10))
        sink.write(b"hello")
        sink.write_frame(frame(b"world"))
        sink.finish()
        [answer] = read_answers(b"".join(connected.transport.writes))
        assert answer.body == b"helloworld"
        assert answer.headers[b"content-length"] == b"10"

    def test_1_0(self) -> None:
        """HTTP/1.0 has no chunks: the end of the connection is the end of the body."""
        connected = Connected()
        request = get(b"/live", b"Connection: keep-alive", version=b"1.0")
        sink = self.sink(self.start(connected, request))
        sink.write(b"hello")
        sink.write_frame(frame(b"world"))
        sink.finish()
        [answer] = read_answers(b"".join(connected.transport.writes))
        assert answer.body == b"helloworld"
        assert connected.transport.disconnecting

    def test_finished_when_it_is_started(self) -> None:
        """A body may write everything at once; pipelined ones don't recurse."""

        def at_once(sink: Sink) -> None:
            sink.write(b"hello")
            sink.finish()

        class Prompt(FakeApplication):
            def respond(self, request: Request) -> Response:
                return Response(200, b"", LiveBody(on_start=at_once))

        connected = Connected(Prompt())
        answers = read_answers(connected.send(get() * 2000))
        assert [answer.body for answer in answers] == [b"hello"] * 2000

    def test_the_next_request_waits_for_the_end(self) -> None:
        """A pipelined request is asked when the body has ended."""
        connected = Connected()
        body = self.start(connected, get(b"/live") + get(b"/nothing"))
        assert len(connected.application.requests) == 1
        connected.sent()
        self.sink(body).finish()
        assert connected.sent().startswith(b"0\r\n\r\nHTTP/1.1 204")

    def test_back_pressure(self) -> None:
        """A client that doesn't keep up is reported, and so is that it has caught up."""
        connected = Connected()
        body = self.start(connected)
        sink = self.sink(body)
        connected.transport.full = True
        assert sink.write(b"x") is False
        assert sink.write_frame(frame(b"y")) is False
        assert body.calls == ["start"]
        connected.transport.drained()
        assert body.calls == ["start", "resume"]
        assert sink.write(b"z") is True
        assert connected.sent().endswith(b"1\r\nx\r\n1\r\ny\r\n1\r\nz\r\n")

    def test_back_pressure_at_the_start(self) -> None:
        """A body that writes much when it is started meets the pressure, too."""
        connected = Connected()
        connected.transport.full = True
        taken: list[bool] = []

        def much(sink: Sink) -> None:
            while not taken or taken[-1]:
                taken.append(sink.write(b"x" * 1000))

        connected.application.next_body = LiveBody(on_start=much)
        connected.send(get(b"/live"))
        assert len(taken) <= WRITE_PIECE_BYTES // 1000 + 1

    def test_a_pause_within_a_write(self) -> None:
        """A transport that pauses and resumes within a write holds up nobody, and resumes no body twice."""
        connected = Connected()
        connected.transport.hasty = True
        sent = connected.send(get(b"/nothing") * 2000 + get(b"/large") + get(b"/nothing"))
        answers = read_answers(sent)
        assert len(answers) == 2002
        assert answers[2000].body == LARGE
        body = self.start(connected)
        assert self.sink(body).write(b"x") is True
        assert body.calls == ["start"]

    @pytest.mark.parametrize("tls", [False, True])
    def test_a_pause_within_the_last_write(self, tls: bool) -> None:
        """A connection isn't closed in the middle of a write."""
        connected = Connected(tls=tls)
        connected.transport.full = True
        assert connected.send(get(b"/nothing", b"Connection: close")).startswith(b"HTTP/1.1 204")
        assert connected.transport.disconnecting
        refused = Connected(tls=tls)
        refused.transport.full = True
        assert refused.send(b"\x00").startswith(b"HTTP/1.1 400")
        refused.clock.advance(5.2)
        assert refused.transport.disconnecting

    def test_a_client_that_takes_nothing_is_cut(self) -> None:
        """After the stall time-out the connection is cut; each pause has its own."""
        connected = Connected()
        body = self.start(connected)
        for _ in range(2):
            connected.transport.full = True
            self.sink(body).write(b"x")
            connected.clock.advance(119)
            assert not connected.transport.aborted
            connected.transport.drained()
        connected.transport.full = True
        self.sink(body).write(b"x")
        connected.clock.advance(120.2)
        assert connected.transport.aborted
        assert connected.factory.statistics().cut_stalled == 1
        connected.lose()
        assert body.calls[-1] == "stop"

    def test_a_live_body_may_last(self) -> None:
        """No time-out ends a live body whose client keeps up."""
        connected = Connected()
        body = self.start(connected)
        connected.clock.pump([100] * 100)
        assert self.sink(body).write(b"x") is True
        assert not connected.transport.disconnecting

    def test_the_request_is_let_go(self) -> None:
        """A live body may last for hours: what the request held doesn't."""
        connected = Connected()
        self.start(connected)
        request = weakref.ref(connected.application.requests.pop())
        gc.collect()
        assert request() is None

    def test_abort(self) -> None:
        """A body that can't be completed cuts the connection; it isn't told to stop."""
        connected = Connected()
        body = self.start(connected, length=10)
        self.sink(body).abort()
        assert connected.transport.aborted
        connected.lose()
        assert body.calls == ["start"]

    @pytest.mark.parametrize("data", [b"1234", b"123456"])
    def test_a_wrong_length(self, data: bytes, errors: list[LogEvent]) -> None:
        """A body that isn't as long as it said is cut: the client must not take it for complete."""
        connected = Connected()
        sink = self.sink(self.start(connected, length=5))
        sink.write(data)
        sink.finish()
        assert connected.transport.aborted
        assert len(errors) == 1
        errors.clear()

    def test_input_during_a_live_body(self) -> None:
        """What the client sends meanwhile is kept within its bound."""
        connected = Connected(limits=HttpLimits(read_ahead_bytes=10))
        self.start(connected)
        connected.send(b"x" * 11)
        assert connected.transport.producerState == "paused"

    def test_a_status_without_a_body(self) -> None:
        """A streamed body of a 204 is stopped before it starts."""
        connected = Connected()
        connected.send(get(b"/later"))
        body = LiveBody()
        connected.application.waiting.pop().callback(Response(204, b"", body))
        assert body.calls == ["stop"]
        assert connected.sent().endswith(b"\r\n\r\n")


class TimeoutTests:
    """Slow clients."""

    def status(self, connected: Connected) -> int:
        """The status of the one response that was sent; 0 for none."""
        sent = connected.sent()
        return read_answers(sent)[0].status if sent else 0

    def test_an_idle_connection_is_closed_silently(self) -> None:
        """Without a request, and between requests, a connection lives for the idle time-out."""
        connected = Connected()
        connected.clock.advance(74)
        connected.send(get())
        connected.sent()
        connected.clock.advance(74)
        assert not connected.transport.disconnecting
        connected.clock.advance(1.2)
        assert connected.transport.disconnecting
        assert connected.sent() == b""

    def test_a_slow_head(self) -> None:
        """The time for a head runs from its first byte."""
        connected = Connected()
        connected.clock.advance(60)
        connected.send(b"GET / HTTP/1.1\r\n")
        for _ in range(29):
            connected.clock.advance(1)
            connected.send(b"X: y\r\n")
        assert self.status(connected) == 0
        connected.clock.advance(1.2)
        assert self.status(connected) == 408
        assert connected.factory.statistics().timed_out == 1

    def test_each_head_has_its_time(self) -> None:
        """A client whose segments always end within a head isn't slow."""
        connected = Connected()
        request = get(b"/nothing")
        connected.send(request[:10])
        for _ in range(10):
            connected.clock.advance(20)
            assert self.status_of_next(connected, request) == 204

    def status_of_next(self, connected: Connected, request: bytes) -> int:
        """Complete the head that is under way and begin the next."""
        return read_answers(connected.send(request[10:] + request[:10]))[0].status

    def test_a_head_after_a_wait(self) -> None:
        """The time for a pipelined head runs when its turn comes."""
        connected = Connected()
        connected.send(get(b"/later") + b"GET ")
        connected.clock.advance(1000)
        connected.application.waiting.pop().callback(Response(204))
        connected.clock.advance(29)
        assert self.status(connected) == 204
        connected.clock.advance(1.2)
        assert self.status(connected) == 408

    def test_a_silent_body(self) -> None:
        """A body may pause, but not for longer than the body time-out."""
        connected = Connected(FakeApplication(max_body_bytes=10**6))
        connected.send(announce(100_000))
        connected.clock.advance(29)
        connected.send(b"x" * 50_000)
        connected.clock.advance(29)
        assert self.status(connected) == 0
        connected.clock.advance(1.2)
        assert self.status(connected) == 408

    def test_a_trickling_body(self) -> None:
        """A body must bring its bytes at a minimum rate after a while."""
        connected = Connected(FakeApplication(max_body_bytes=10**6))
        connected.send(announce(100_000))
        for _ in range(30):
            connected.clock.advance(1)
            connected.send(b"x" * 900)
        assert connected.transport.writes == []
        connected.clock.advance(1)
        connected.channel.dataReceived(b"x" * 900)
        assert self.status(connected) == 408
        assert connected.factory.statistics().timed_out == 1

    def test_a_steady_body(self) -> None:
        """A body at the minimum rate may take as long as it takes."""
        connected = Connected(FakeApplication(max_body_bytes=10**6))
        connected.send(announce(200_000))
        for _ in range(199):
            connected.clock.advance(0.9)
            connected.send(b"x" * 1000)
        assert connected.send(b"x" * 1000).startswith(b"HTTP/1.1 200")

    def test_a_long_answer(self) -> None:
        """No time-out of ours ends a wait for the application."""
        connected = Connected()
        connected.send(get(b"/later"))
        connected.clock.advance(10_000)
        connected.application.waiting.pop().callback(Response(204))
        assert self.status(connected) == 204

    def test_a_client_that_does_not_take_the_last_answer(self) -> None:
        """A closed connection whose bytes aren't taken is cut in the end."""
        connected = Connected()
        connected.send(get(b"/echo", b"Connection: close"))
        assert connected.transport.disconnecting
        connected.clock.advance(120.2)
        assert connected.transport.aborted

    def test_small_answers_that_are_not_taken(self) -> None:
        """A client that reads none of its small answers is cut like any other."""
        connected = Connected()
        connected.transport.full = True
        connected.send(get(b"/nothing"))
        connected.clock.advance(120.2)
        assert connected.transport.aborted
        assert connected.factory.statistics().cut_stalled == 1

    def test_no_timer_is_left(self) -> None:
        """A connection that is lost leaves no deadline behind."""
        connected = Connected()
        connected.send(b"GET")
        connected.lose()
        connected.clock.advance(1000)
        assert connected.sent() == b""


class BugTests:
    """Mistakes of the application's."""

    @pytest.mark.parametrize(
        ("data", "methods"),
        [(get(b"/broken"), [b"GET"]), (announce(5, b"/broken-judge"), [b"POST"])],
    )
    def test_an_exception(self, data: bytes, methods: list[bytes], errors: list[LogEvent]) -> None:
        """It is logged, the client gets a 500, and the connection goes on."""
        connected = Connected()
        [answer] = read_answers(connected.send(data), methods)
        assert answer.status == 500
        assert b"x-refused" in answer.headers
        assert not connected.transport.disconnecting
        assert errors[0]["log_failure"].check(ZeroDivisionError)
        errors.clear()

    def test_a_deferred_that_fails(self, errors: list[LogEvent]) -> None:
        """It counts as an exception."""
        connected = Connected()
        connected.send(get(b"/later") + get(b"/nothing"))
        connected.application.waiting.pop().errback(ZeroDivisionError())
        assert [answer.status for answer in read_answers(connected.sent())] == [500, 204]
        assert len(errors) == 1
        errors.clear()

    @pytest.mark.parametrize("answer", [None, Response(200, None), Response(200, b"", 5)])  # type: ignore[arg-type]
    def test_an_answer_that_is_none(self, answer: Response, errors: list[LogEvent]) -> None:
        """What isn't a response is answered for with a 500."""
        connected = Connected()
        connected.send(get(b"/later") + get(b"/nothing"))
        connected.application.waiting.pop().callback(answer)
        assert [each.status for each in read_answers(connected.sent())] == [500, 204]
        assert len(errors) == 1
        errors.clear()

    def test_a_body_that_fails_at_once(self, errors: list[LogEvent]) -> None:
        """Nothing has been sent of it yet: the client gets a 500 instead."""
        connected = Connected()
        connected.application.next_body = LiveBody(on_start=lambda _: 1 / 0)
        answers = read_answers(connected.send(get(b"/nothing") + get(b"/live") + get(b"/nothing")))
        assert [answer.status for answer in answers] == [204, 500, 204]
        assert connected.factory.statistics().streaming == 0
        errors.clear()

    def test_a_body_that_fails_later(self, errors: list[LogEvent]) -> None:
        """Its head is on its way: the connection is cut."""
        connected = Connected()

        def fail(sink: Sink) -> None:
            sink.write(b"x" * WRITE_PIECE_BYTES)
            raise ZeroDivisionError

        connected.application.next_body = LiveBody(on_start=fail)
        connected.send(get(b"/live"))
        assert connected.transport.aborted
        assert len(errors) == 1
        errors.clear()

    def test_a_body_that_fails_after_its_end(self, errors: list[LogEvent]) -> None:
        """The response is complete: nothing is cut."""
        connected = Connected()

        def fail(sink: Sink) -> None:
            sink.finish()
            raise ZeroDivisionError

        connected.application.next_body = LiveBody(on_start=fail)
        answers = read_answers(connected.send(get(b"/live") + get(b"/nothing")))
        assert [answer.status for answer in answers] == [200, 204]
        errors.clear()

    def test_a_body_that_fails_when_it_is_resumed_or_stopped(self, errors: list[LogEvent]) -> None:
        """The connection is cut, and nothing is raised into the reactor."""

        class Broken(LiveBody):
            def resume(self) -> None:
                raise ZeroDivisionError

            def stop(self) -> None:
                raise ZeroDivisionError

        resumed = Connected()
        resumed.application.next_body = Broken()
        resumed.send(get(b"/live"))
        resumed.transport.full = True
        assert resumed.application.bodies[0].sink is not None
        resumed.application.bodies[0].sink.write(b"x")
        resumed.transport.drained()
        assert resumed.transport.aborted
        stopped = Connected()
        stopped.application.next_body = Broken()
        stopped.send(get(b"/live"))
        stopped.lose()
        assert len(errors) == 2
        errors.clear()

    def test_a_refusal_that_fails(self, errors: list[LogEvent]) -> None:
        """When the application can't even refuse, the client still gets an answer."""

        class Mute(FakeApplication):
            def refuse(self, request: Request | None, status: int, detail: str) -> Response:
                raise ZeroDivisionError

        assert Connected(Mute()).send(b"\x00").startswith(b"HTTP/1.1 500")
        assert Connected(Mute()).send(get(b"/broken")).startswith(b"HTTP/1.1 500")
        errors.clear()


class FactoryTests:
    """The connections of a listener."""

    def test_statistics(self) -> None:
        """A snapshot tells what each connection is doing."""
        first = Connected()
        others = [Connected(first.application, factory=first.factory) for _ in range(4)]
        for connected, data in zip(
            [first, *others], [b"", b"GET", announce(5), get(b"/later"), get(b"/live")], strict=True
        ):
            connected.send(data)
        found = first.factory.statistics()
        assert (found.connections, found.reading, found.responding, found.streaming) == (5, 2, 1, 1)
        first.lose()
        assert first.factory.statistics().connections == 4

    def test_drain(self) -> None:
        """Idle connections close after a moment, the others after their answer, which says so."""
        idle = Connected()
        application = idle.application
        waiting, live, reading, between = (Connected(application, factory=idle.factory) for _ in range(4))
        waiting.send(get(b"/later") + get(b"/nothing"))
        live.send(get(b"/live"))
        reading.send(announce(5) + b"hell")
        between.send(b"GET / HTTP/1.1\r\n")
        done: list[None] = []
        idle.factory.drain().addCallback(done.append)
        connections = [idle, waiting, live, reading, between]
        assert not any(connected.transport.disconnecting for connected in connections)
        application.waiting.pop().callback(Response(204))
        assert b"\r\nConnection: close\r\n" in waiting.sent()
        assert len(application.requests) == 2
        assert application.bodies[0].sink is not None
        application.bodies[0].sink.finish()
        assert b"\r\nConnection: close\r\n" in reading.send(b"o")
        assert b"\r\nConnection: close\r\n" in between.send(b"Host: h\r\n\r\n")
        assert live.transport.disconnecting
        assert not idle.transport.disconnecting
        idle.clock.advance(HttpLimits().last_head_timeout + 0.2)
        assert idle.transport.disconnecting
        for connected in [idle, waiting, live, reading]:
            connected.lose()
        assert done == []
        between.lose()
        assert done == [None]

    def test_drain_answers_what_has_crossed_it(self) -> None:
        """A request that was on its way to an idle connection is answered, as the last one; a byte wins no time."""
        asking, teasing = Connected(), Connected()
        for connected in (asking, teasing):
            connected.send(get(b"/nothing"))
            connected.factory.drain()
            connected.clock.advance(HttpLimits().last_head_timeout - 0.3)
        assert b"\r\nConnection: close\r\n" in asking.send(get(b"/nothing"))
        assert asking.transport.disconnecting
        teasing.send(b"\r\n")
        teasing.clock.advance(0.5)
        assert teasing.transport.disconnecting

    @pytest.mark.parametrize("action", ["drain", "retire", "abort"])
    def test_many_connections_in_many_turns(self, action: str) -> None:
        """What is done to all connections is done to a bounded number in each turn of the reactor, and to all."""
        first = Connected()
        application, factory = first.application, first.factory
        others = [Connected(application, factory=factory) for _ in range(2 * CALLS_PER_TURN)]
        for connected in (first, *others):
            connected.send(get(b"/later"))

        def count() -> int:
            return sum(each.transport.aborted or each.channel._retiring for each in (first, *others))

        soon: list[Callable[[], object]] = []
        first.wheel.soon = soon.append
        done: list[object] = []
        if action == "drain":
            factory.drain().addCallback(done.append)
        else:
            getattr(factory, action)()
        for turns in (1, 2):
            assert count() == turns * CALLS_PER_TURN
            due, soon[:] = soon[:], []
            for each in due:
                each()
        assert count() == 2 * CALLS_PER_TURN + 1
        assert done == []
        for connected in (first, *others):
            connected.lose()
        assert done == [None] * (action == "drain")

    @pytest.mark.parametrize(
        "asked", [b"", get(b"/nothing"), b"GET", get(b"/later"), get(b"/live"), announce(5) + b"x"]
    )
    def test_a_closed_connection_is_freed(self, asked: bytes) -> None:
        """No cycle of references keeps a closed connection in memory until the garbage collector comes."""
        connected = Connected()
        connected.send(asked)
        parts = [connected.channel, connected.channel._writer, connected.channel._output, connected.channel._deadline]
        left = [weakref.ref(part) for part in parts if hasattr(type(part), "__weakref__")]
        assert left
        gc.disable()
        try:
            connected.lose()
            connected.application.bodies.clear()
            parts.clear()
            del connected.channel
            assert [each() for each in left if each() is not None] == []
        finally:
            gc.enable()

    def test_retire(self) -> None:
        """The answer under way is the last one, else the next; connections that ask nothing stay, new ones come."""
        idle = Connected()
        application, factory = idle.application, idle.factory
        waiting, reading = Connected(application, factory=factory), Connected(application, factory=factory)
        waiting.send(get(b"/later"))
        reading.send(announce(5) + b"hell")
        factory.retire()
        new = Connected(application, factory=factory)
        application.waiting.pop().callback(Response(204))
        assert b"\r\nConnection: close\r\n" in waiting.sent()
        assert b"\r\nConnection: close\r\n" in reading.send(b"o")
        idle.clock.advance(10)
        for connected in (idle, new):
            assert not connected.transport.disconnecting
            assert b"\r\nConnection: close\r\n" in connected.send(get(b"/nothing"))
            assert connected.transport.disconnecting

    def test_drain_in_the_middle_of_a_head(self) -> None:
        """The beginning of a head holds up the end for a second, not for as long as heads usually may take."""
        connected = Connected()
        connected.send(b"G")
        connected.factory.drain()
        connected.clock.advance(HttpLimits().last_head_timeout - 0.1)
        assert not connected.transport.disconnecting
        connected.clock.advance(0.3)
        assert connected.sent().startswith(b"HTTP/1.1 408 ")

    def test_drain_without_connections(self) -> None:
        """There is nothing to wait for; and no new connection is taken."""
        factory = HttpFactory(FakeApplication(), TimerWheel(Clock()))
        done: list[None] = []
        factory.drain().addCallback(done.append)
        assert done == [None]
        assert factory.buildProtocol(None) is None

    def test_drain_of_a_client_that_reads_nothing(self) -> None:
        """An answer that isn't taken yet isn't lost."""
        connected = Connected()
        connected.transport.full = True
        connected.send(get(b"/nothing"))
        connected.factory.drain()
        connected.clock.advance(HttpLimits().last_head_timeout + 0.2)
        assert not connected.transport.disconnecting
        connected.transport.drained()
        connected.clock.advance(HttpLimits().last_head_timeout + 0.2)
        assert connected.transport.disconnecting

    def test_drain_can_be_cancelled_and_repeated(self) -> None:
        """Nobody has to wait to the end, and several may."""
        connected = Connected()
        connected.send(get(b"/later"))
        given_up = connected.factory.drain()
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        done: list[int] = []
        for number in range(2):
            connected.factory.drain().addCallback(lambda _, waiter: done.append(waiter), number)
        connected.lose()
        assert done == [0, 1]

    def test_abort(self) -> None:
        """What is left is cut."""
        connected = Connected()
        connected.send(get(b"/later"))
        connected.factory.abort()
        assert connected.transport.aborted

    def test_describe(self) -> None:
        """The fake application echoes what it was asked, so that other tests can compare."""
        connected = Connected()
        [answer] = read_answers(connected.send(get(b"/echo?x")))
        assert answer.body == describe(connected.application.requests[0])
