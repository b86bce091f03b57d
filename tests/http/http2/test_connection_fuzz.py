"""The HTTP/2 connection against what no client should send: conversations with bytes and frames changed."""

from __future__ import annotations

import itertools

from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from dstreams.http.http2.connection import Http2Factory
from dstreams.http.messages import Response
from dstreams.http.transport.connections import Connections
from dstreams.http.transport.limits import HttpLimits
from dstreams.runtime.timers import TimerWheel
from tests.http.fakes import BusyWheel, FakeApplication, FakeTransport, describe

PATHS = (b"/a", b"/live", b"/later", b"/large", b"/missing", b"/nothing")


def conversation(paths: list[bytes], bodies: list[bytes | None]) -> list[bytes]:
    """The frames of a client that asks for these paths, with these bodies."""
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    pieces = [client.data_to_send()]
    for path, body in zip(paths, bodies, strict=False):
        number = client.get_next_available_stream_id()
        method = b"GET" if body is None else b"POST"
        fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"a"), (b":path", path)]
        client.send_headers(number, fields, end_stream=body is None)
        pieces.append(client.data_to_send())
        if body is not None:
            client.send_data(number, body, end_stream=len(body) % 2 == 0)
            pieces.append(client.data_to_send())
    client.ping(b"12345678")
    pieces.append(client.data_to_send())
    return pieces


@st.composite
def attacks(draw: st.DrawFn) -> list[bytes]:
    """Pieces of input, in the order in which they arrive."""
    paths = draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=4))
    bodies = draw(st.lists(st.none() | st.binary(max_size=60), min_size=len(paths), max_size=len(paths)))
    pieces = conversation(paths, bodies)
    for _ in range(draw(st.integers(0, 4))):
        where = draw(st.integers(1, len(pieces) - 1))
        kind = draw(st.sampled_from(("change", "drop", "repeat", "insert")))
        if kind == "drop":
            pieces[where] = b""
        elif kind == "repeat":
            pieces.insert(where, pieces[where])
        elif kind == "insert":
            payload = draw(st.binary(max_size=20))
            head = bytes((draw(st.integers(0, 10)), draw(st.integers(0, 255))))
            stream = draw(st.integers(0, 9)).to_bytes(4, "big")
            pieces.insert(where, len(payload).to_bytes(3, "big") + head + stream + payload)
        elif pieces[where]:
            piece = bytearray(pieces[where])
            piece[draw(st.integers(0, len(piece) - 1))] = draw(st.integers(0, 255))
            pieces[where] = bytes(piece)
    return pieces


def asked(segments: list[bytes], turns: list[int] | None) -> tuple[list[bytes], bool]:
    """What the application is asked by a client that sends these segments, and whether its connection is closed.

    :param turns: how many turns of a busy reactor pass after each segment; ``None`` when the reactor isn't busy.
    """
    clock, application = Clock(), FakeApplication()
    wheel = TimerWheel(clock, stopwatch=clock.seconds) if turns is None else BusyWheel(clock)
    connection = Http2Factory(application, wheel).buildProtocol(None)
    assert connection is not None
    transport = FakeTransport(tls=True)
    connection.makeConnection(transport)
    passing = itertools.cycle(turns or [0])
    for segment in segments:
        if not transport.disconnecting and not transport.disconnected:
            connection.dataReceived(segment)
        for _ in range(next(passing)):
            clock.advance(0)
    while connection._postponed:
        clock.advance(0)
    closed = transport.disconnecting or transport.disconnected
    connection.connectionLost()
    return [describe(request) for request in application.requests], closed


class FuzzTests:
    """Whatever arrives, nothing is raised or logged as a failure, and nothing is left behind."""

    @given(attacks(), st.integers(1, 400), st.lists(st.integers(0, 3), min_size=1, max_size=5))
    def test_cuts_and_turns(self, pieces: list[bytes], size: int, turns: list[int]) -> None:
        """The same bytes ask the same of the application however they are cut, and however busy the server is."""
        data = b"".join(pieces)
        whole = asked([data], None)
        assert asked([data[start : start + size] for start in range(0, len(data), size)], None) == whole
        assert asked([data], [0]) == whole
        assert asked([data[start : start + size] for start in range(0, len(data), size)], turns) == whole

    @given(attacks(), st.integers(1, 100), st.booleans())
    def test_attack(self, pieces: list[bytes], size: int, full: bool) -> None:
        """Input is cut anywhere; answers come late; at the end every timer and every connection is gone."""
        clock, application, connections = Clock(), FakeApplication(), Connections()
        limits = HttpLimits(body_timeout=10, idle_timeout=20, stall_timeout=20)
        factory = Http2Factory(application, TimerWheel(clock, stopwatch=clock.seconds), limits, connections=connections)
        connection = factory.buildProtocol(None)
        assert connection is not None
        transport = FakeTransport(tls=True)
        with capturedLogs() as events:
            connection.makeConnection(transport)
            data = b"".join(pieces)
            for position in range(0, len(data), size):
                if not transport.disconnecting and not transport.disconnected:
                    connection.dataReceived(data[position : position + size])
            transport.full = full
            for waiting in application.waiting:
                if not waiting.called:
                    waiting.callback(Response(200, b"", b"late"))
            for body in application.bodies:
                if body.sink is not None:
                    body.sink.write(b"event")
                    body.sink.finish()
            if full:
                transport.drained()
            connection.finish()
            for _ in range(60):
                clock.advance(1)
            assert transport.disconnecting or transport.disconnected
            connection.connectionLost()
        clock.advance(10)
        assert [event for event in events if "log_failure" in event] == []
        assert connections.live == set()
        assert clock.getDelayedCalls() == []
