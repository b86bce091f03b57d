"""HTTP/2 connections that have more to do than their share of a reactor turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hyperframe.frame import DataFrame, PingFrame
from twisted.internet.task import Clock

from dstreams.http.http2 import connection as http2_connection
from dstreams.http.http2.connection import Http2Factory
from dstreams.http.transport.limits import HttpLimits
from tests.http.fakes import LARGE, BusyWheel, FakeApplication
from tests.http.http2.client import Client

PING = PingFrame(0, opaque_data=b"12345678").serialize()


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection does as little in a step as it can."""
    monkeypatch.setattr(http2_connection, "STEP_SECONDS", 0)


def busy_client(limits: HttpLimits | None = None, **options: object) -> Client:
    """A client of a server so busy that a connection may take one step in a turn."""
    clock, application = Clock(), FakeApplication()
    factory = Http2Factory(application, BusyWheel(clock), limits, now=lambda: 0.0)
    client = Client(application, limits, clock=clock, factory=factory, **options)  # type: ignore[arg-type]
    turns(client)
    return client


def turns(client: Client, until: Callable[[], bool] = lambda: False) -> None:
    """Let turns of the reactor pass until nothing is postponed."""
    for _ in range(100_000):
        client.turn()
        if not client.server._postponed or until():
            return
        client.clock.advance(0)
    raise AssertionError("the connection never ends what it has postponed")


class PostponingTests:
    """Frames that are left when the turn is over are read in the next turns."""

    def test_reading_pauses(self) -> None:
        """Nothing more is read until every frame that arrived was read."""
        client = busy_client()
        client.server.dataReceived(PING * 500)
        assert client.transport.value().count(b"12345678") == 1
        assert client.transport.producerState == "paused"
        turns(client)
        assert client.transport.producerState == "producing"
        assert client.server._connections.postponed >= 1

    def test_one_frame_is_never_postponed(self) -> None:
        """A request in one frame is answered at once, however busy the server is."""
        client = busy_client()
        before = client.server._connections.postponed
        assert client.get(b"/a").status == 200
        assert client.server._connections.postponed == before

    def test_many_requests(self) -> None:
        """Requests that come in one segment are all answered."""
        client = busy_client()
        numbers = []
        for _ in range(50):
            numbers.append(client.h2.get_next_available_stream_id())
            fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/a")]
            client.h2.send_headers(numbers[-1], fields, end_stream=True)
        turns(client)
        assert [client.reply(number).status for number in numbers] == [200] * 50
        assert all(client.reply(number).ended for number in numbers)

    def test_large_answers(self) -> None:
        """Large answers are sent in steps, too, and completely."""
        client = busy_client(window=1 << 20)
        client.h2.increment_flow_control_window(1 << 24)
        numbers = [client.ask(b"GET", b"/large") for _ in range(5)]
        turns(client)
        assert [client.reply(number).body for number in numbers] == [LARGE] * 5

    def test_a_client_that_does_not_read(self) -> None:
        """What is to be sent waits for the client, without using any turns."""
        client = busy_client(window=1 << 20)
        client.transport.full = True
        number = client.ask(b"GET", b"/large")
        turns(client)
        assert not client.reply(number).ended
        assert client.transport.producerState == "paused"
        client.transport.drained()
        turns(client)
        assert client.reply(number).body == LARGE
        assert client.transport.producerState == "producing"

    def test_lost(self) -> None:
        """Nothing is left of a connection that is lost."""
        client = busy_client()
        client.server.dataReceived(PING * 500)
        client.server.connectionLost()
        client.clock.advance(10)
        assert client.clock.getDelayedCalls() == []

    def test_stop(self) -> None:
        """Requests that had arrived when the server stops are answered."""
        client = busy_client()
        numbers = []
        for _ in range(20):
            numbers.append(client.h2.get_next_available_stream_id())
            fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/a")]
            client.h2.send_headers(numbers[-1], fields, end_stream=True)
        client.server.dataReceived(client.h2.data_to_send())
        client.server.finish()
        turns(client)
        client.clock.advance(2)
        client.turn()
        assert [client.reply(number).status for number in numbers] == [200] * 20
        assert client.transport.disconnecting

    def test_time(self) -> None:
        """The time that a connection waits for its next turn isn't the client's."""
        client = busy_client(HttpLimits(body_timeout=30))
        number = client.begin(b"POST", b"/a")
        client.server.dataReceived(DataFrame(number, data=b"x").serialize() + PING * 100)
        client.clock.advance(1000)
        turns(client)
        client.send(number, b"y", ends=True)
        turns(client)
        assert client.reply(number).status == 200
