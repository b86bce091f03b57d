"""Connections that have more to do than their share of a reactor turn."""

from __future__ import annotations

import pytest

from dstreams.http.http1 import channel, framing
from dstreams.http.http1.channel import HttpFactory
from dstreams.http.http1.reader import RequestReader
from dstreams.http.messages import Response
from dstreams.http.transport.limits import HttpLimits
from tests.http.fakes import (
    BusyWheel,
    Connected,
    FakeApplication,
    announce,
    chunked,
    errors_logged,
    get,
    post,
    read_answers,
)

FLOOD = 2000


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel does as little in a step as it can."""
    monkeypatch.setattr(channel, "STEP_SECONDS", 0)


def statuses(data: bytes) -> list[int]:
    """Those of the answers."""
    return [answer.status for answer in read_answers(data)]


def closes(data: bytes) -> list[bool]:
    """For each answer, whether it is the last one."""
    return [answer.headers.get(b"connection") == b"close" for answer in read_answers(data)]


class PostponingTests:
    """What is left when the turn is over is done in the next turns."""

    def test_reading_pauses(self) -> None:
        """Nothing more is read until everything that was read is answered."""
        connected = Connected(busy=True)
        assert statuses(connected.send(get(b"/nothing") * FLOOD)) == [204]
        assert connected.transport.producerState == "paused"
        assert connected.channel.is_reading
        connected.turns()
        assert statuses(connected.sent()) == [204] * (FLOOD - 1)
        assert connected.transport.producerState == "producing"
        assert connected.factory.statistics().postponed == 1

    def test_one_request_is_never_postponed(self) -> None:
        """A request that comes alone is answered at once, whole or in pieces, however busy the server is."""
        connected = Connected(busy=True)
        for data in (get(), post(b"hello"), chunked(b"hello"), post(b"hello", b"/missing")):
            assert len(statuses(connected.send(data))) == 1
            assert len(statuses(connected.send(*(data[at : at + 1] for at in range(len(data)))))) == 1
        assert connected.factory.statistics().postponed == 0

    def test_connections_take_turns(self) -> None:
        """Connections that wait continue alternately."""
        wheel = BusyWheel(Connected().clock)
        application = FakeApplication()
        factory = HttpFactory(application, wheel, now=lambda: 0.0)
        several = [Connected(application, factory=factory) for _ in range(3)]
        for number, connected in enumerate(several):
            connected.channel.dataReceived(get(b"/%d" % number) * 50)
        while any(connected.channel._postponed for connected in several):
            wheel._scheduler.advance(0)  # type: ignore[attr-defined]
        order = [int(request.path[1:]) for request in application.requests]
        assert sorted(order) == [0] * 50 + [1] * 50 + [2] * 50
        assert all(set(order[start : start + 3]) == {0, 1, 2} for start in range(0, 140, 3))

    def test_small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A body of many small chunks is read in steps, and the request behind it is answered."""
        monkeypatch.setattr(framing, "MAX_LINES_AT_ONCE", 2)
        connected = Connected(busy=True)
        data = chunked(*[b"a"] * 500) + get(b"/nothing")
        assert connected.send(data) == b""
        connected.turns()
        assert statuses(connected.sent()) == [200, 204]
        assert connected.application.requests[0].body == b"a" * 500

    @pytest.mark.parametrize("path", [b"/echo", b"/missing"])
    def test_large_segments(self, path: bytes) -> None:
        """Of a body that comes in large segments no more is read in a turn than there is time for."""
        limits = HttpLimits(drain_bytes=1_000_000)
        connected = Connected(FakeApplication(max_body_bytes=1_000_000), limits, busy=True)
        data = post(b"x" * 999_000, path)
        for start in range(0, len(data), 250_000):
            assert connected.transport.producerState == "producing"
            connected.channel.dataReceived(data[start : start + 250_000])
            assert connected.transport.producerState == "paused"
            connected.turns()
        assert len(statuses(connected.sent())) == 1
        assert statuses(connected.send(get(b"/nothing"))) == [204]

    def test_large_segments_while_lingering(self) -> None:
        """The rest of a refused body is dropped at the same pace, and only as much of it as before."""
        connected = Connected(None, HttpLimits(linger_bytes=400_000), busy=True)
        assert statuses(connected.send(announce(10_000_000))) == [413]
        for _ in range(4):
            assert connected.transport.producerState == "producing"
            connected.channel.dataReceived(b"x" * 100_000)
            assert connected.transport.producerState == "paused"
            connected.turns()
        connected.channel.dataReceived(b"x" * 100_000)
        connected.turns()
        assert connected.transport.producerState == "paused"
        connected.clock.advance(6)
        assert connected.transport.disconnecting

    def test_more_arrives(self) -> None:
        """What TLS hands over although reading is paused keeps its place."""
        connected = Connected(busy=True, tls=True)
        data = b"".join(get(b"/%d" % number) for number in range(100))
        connected.send(*(data[start : start + 300] for start in range(0, len(data), 300)))
        connected.turns()
        assert [request.path for request in connected.application.requests] == [b"/%d" % at for at in range(100)]

    def test_answers_that_come_later(self) -> None:
        """A request that waits for its answer holds up those behind it, as always."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 2 + get(b"/later") + get(b"/nothing") * 2)
        connected.turns()
        assert len(connected.application.requests) == 3
        connected.application.waiting.pop().callback(Response(200, b"", b"at last"))
        connected.turns()
        assert statuses(b"".join(connected.transport.writes)) == [204, 204, 200, 204, 204]

    def test_a_client_that_does_not_read(self) -> None:
        """A postponed connection whose client takes nothing waits for the client, without using any turns."""
        connected = Connected(busy=True)
        connected.transport.full = True
        connected.send(get(b"/nothing") * FLOOD)
        connected.turns()
        assert len(connected.application.requests) < FLOOD
        connected.clock.advance(0)
        before = len(connected.application.requests)
        connected.clock.advance(1)
        assert len(connected.application.requests) == before
        connected.transport.drained()
        connected.turns()
        assert statuses(b"".join(connected.transport.writes)) == [204] * FLOOD

    def test_a_client_that_never_reads(self) -> None:
        """It is cut like any other that takes nothing."""
        connected = Connected(busy=True)
        connected.transport.full = True
        connected.send(get(b"/nothing") * FLOOD)
        connected.clock.pump([1] * 130)
        assert connected.transport.aborted

    def test_a_failure_ends_the_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A fault of the server's own doesn't leave a client waiting for ever."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 3)
        monkeypatch.setattr(RequestReader, "head", lambda _: 1 / 0)
        with errors_logged() as found:
            connected.clock.advance(0)
        assert len(found) == 1
        assert connected.transport.aborted


class EndTests:
    """A connection that waits for its next turn when something ends."""

    @pytest.mark.parametrize("count", [2, 50])
    @pytest.mark.parametrize("request_bytes", [get(b"/nothing"), post(b"a\r\n\r\nb"), chunked(b"a", b"b")])
    def test_stop(self, count: int, request_bytes: bytes) -> None:
        """When the server stops, all that had arrived is answered, and the last answer says that it is the last."""
        connected = Connected(busy=True)
        connected.send(request_bytes * count)
        done = connected.factory.drain()
        connected.turns()
        assert closes(b"".join(connected.transport.writes)) == [False] * (count - 1) + [True]
        assert connected.transport.disconnecting
        connected.lose()
        assert done.called

    def test_stop_in_the_middle_of_a_body(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A body that was being read is completed, and what follows it is answered."""
        monkeypatch.setattr(framing, "MAX_LINES_AT_ONCE", 1)
        connected = Connected(busy=True)
        connected.send(chunked(*[b"a"] * 100) + get(b"/nothing"))
        connected.factory.drain()
        connected.turns()
        assert closes(connected.sent()) == [False, True]

    def test_stop_before_an_incomplete_head(self) -> None:
        """The beginning of a head doesn't hold up the end."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 10 + b"GET ")
        connected.factory.drain()
        connected.turns()
        assert closes(b"".join(connected.transport.writes)) == [False] * 9 + [True]

    def test_retire(self) -> None:
        """A listener that retires answers what had arrived."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 10)
        connected.factory.retire()
        connected.turns()
        assert closes(b"".join(connected.transport.writes)) == [False] * 9 + [True]

    def test_the_client_closes_its_side(self) -> None:
        """All that had arrived is answered before the connection is closed."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 50)
        connected.channel.readConnectionLost()
        connected.turns()
        assert statuses(b"".join(connected.transport.writes)) == [204] * 50
        assert connected.transport.disconnecting

    def test_the_connection_is_lost(self) -> None:
        """Nothing is left of a connection that is lost."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 50)
        connected.lose()
        connected.clock.advance(100)
        assert len(connected.application.requests) < 50
        assert connected.clock.getDelayedCalls() == []

    def test_abort(self) -> None:
        """A connection may be cut at any time."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 50)
        connected.factory.abort()
        connected.lose()
        connected.clock.advance(100)
        assert connected.clock.getDelayedCalls() == []


class TimeTests:
    """The time that a connection waits for its next turn isn't the client's."""

    def test_head(self) -> None:
        """A head has as long to arrive as it would have otherwise."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 5 + b"GET /nothing HTTP/1.1\r\n")
        connected.clock.advance(60)
        connected.clock.advance(29)
        connected.send(b"Host: h\r\n\r\n")
        assert statuses(b"".join(connected.transport.writes)) == [204] * 6
        connected.send(get(b"/nothing") * 5 + b"GET ")
        connected.clock.advance(60)
        connected.sent()
        connected.clock.pump([1] * 32)
        assert statuses(connected.sent()) == [408]

    def test_body(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A body needn't be quicker than it was read."""
        monkeypatch.setattr(framing, "MAX_LINES_AT_ONCE", 1)
        connected = Connected(busy=True)
        data = chunked(*[b"a"] * 100)
        connected.send(data[:-5])
        connected.clock.advance(1000)
        connected.turns()
        connected.channel.dataReceived(data[-5:])
        connected.turns()
        assert statuses(connected.sent()) == [200]
        connected.send(data[:-5])
        connected.clock.advance(1000)
        connected.turns()
        connected.clock.pump([1] * 32)
        assert statuses(connected.sent()) == [408]

    def test_idle(self) -> None:
        """A connection becomes idle when it has answered everything."""
        connected = Connected(busy=True)
        connected.send(get(b"/nothing") * 5)
        connected.clock.advance(100)
        assert not connected.transport.disconnecting
        connected.clock.pump([1] * 77)
        assert connected.transport.disconnecting
