"""An HTTP/2 client without a socket, against a connection of the server's on a fake transport."""

from __future__ import annotations

from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame
from twisted.internet.task import Clock

from dstreams.http.http2.connection import Http2Connection, Http2Factory
from dstreams.http.transport.limits import HttpLimits
from dstreams.runtime.timers import TimerWheel
from tests.http.fakes import FakeApplication, FakeTransport

Fields = list[tuple[bytes, bytes]]


@define(eq=False)
class Reply:
    """What came back on one stream.

    :param ended: whether the response is complete.
    :param reset: the code that the stream was reset with.
    """

    informational: list[int] = field(factory=list)
    status: int = 0
    headers: dict[bytes, bytes] = field(factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None


class _Conversation(H2Connection):
    """h2's connection, which goes on when the server says that it takes no more requests, as other clients do."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


@define(eq=False)
class Client:
    """A client that has connected.

    :param limits: the server's.
    :param window: how many bytes of each response it takes before it makes room for more.
    :param roomy: whether it makes room by itself for what has arrived.
    """

    application: FakeApplication = field(factory=FakeApplication)
    limits: HttpLimits | None = None
    window: int | None = None
    roomy: bool = True
    clock: Clock = field(factory=Clock)
    factory: Http2Factory | None = None
    transport: FakeTransport = field(init=False)
    server: Http2Connection = field(init=False)
    h2: H2Connection = field(init=False)
    replies: dict[int, Reply] = field(factory=dict, init=False)
    farewell: list[tuple[int, int]] = field(factory=list, init=False)
    """The code and the last stream of each GOAWAY."""

    def __attrs_post_init__(self) -> None:
        if self.factory is None:
            self.factory = Http2Factory(
                self.application, TimerWheel(self.clock, stopwatch=self.clock.seconds), self.limits, now=lambda: 0.0
            )
        self.transport = FakeTransport(tls=True)
        server = self.factory.buildProtocol(None)
        assert server is not None
        self.server = server
        server.makeConnection(self.transport)
        config = H2Configuration(
            client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = _Conversation(config)
        if self.window is not None:
            self.h2.local_settings = Settings(
                client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: self.window}
            )
        self.h2.initiate_connection()
        self.turn()

    def ask(self, method: bytes, path: bytes, *headers: tuple[bytes, bytes], body: bytes | None = None) -> int:
        """Send a request; its stream's number."""
        number = self.begin(method, path, *headers, ends=body is None)
        if body is not None:
            self.send(number, body, ends=True)
        return number

    def begin(self, method: bytes, path: bytes, *headers: tuple[bytes, bytes], ends: bool = False) -> int:
        """Send a request's head; its stream's number."""
        fields: Fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", path)]
        return self.begin_raw([*fields, *headers], ends=ends)

    def begin_raw(self, fields: Fields, *, ends: bool = True) -> int:
        """Send a head as it is."""
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, fields, end_stream=ends)
        self.turn()
        return number

    def send(self, number: int, data: bytes, *, ends: bool = False) -> None:
        """Send a part of a body, in as many frames as it takes."""
        while len(data) > 16_384:
            self.h2.send_data(number, data[:16_384])
            data = data[16_384:]
            self.turn()
        self.h2.send_data(number, data, end_stream=ends)
        self.turn()

    def get(self, path: bytes, *headers: tuple[bytes, bytes]) -> Reply:
        """What a GET brings so far."""
        return self.reply(self.ask(b"GET", path, *headers))

    def reply(self, number: int) -> Reply:
        """What came back on a stream so far."""
        return self.replies.setdefault(number, Reply())

    def turn(self) -> None:
        """Carry what either side has to say to the other, until both are silent."""
        while True:
            said = self.h2.data_to_send()
            if said and not self.transport.disconnected:
                self.server.dataReceived(said)
            answer: bytes = self.transport.value()
            self.transport.clear()
            if not answer:
                if not said:
                    return
                continue
            for event in self.h2.receive_data(answer):
                self._note(event)

    def _note(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.farewell.append((int(event.error_code or 0), event.last_stream_id or 0))
            return
        reply = self.reply(getattr(event, "stream_id", 0) or 0)
        if isinstance(event, InformationalResponseReceived):
            reply.informational.append(int(dict(event.headers)[b":status"]))  # type: ignore[arg-type, call-overload]
        elif isinstance(event, ResponseReceived):
            reply.headers = dict(event.headers)  # type: ignore[arg-type]
            assert len(reply.headers) == len(event.headers)
            reply.status = int(reply.headers[b":status"])
        elif isinstance(event, DataReceived):
            reply.body += event.data or b""
            if self.roomy and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        elif isinstance(event, StreamEnded):
            reply.ended = True
        elif isinstance(event, StreamReset):
            reply.reset = int(event.error_code or 0)

    def make_room(self, number: int, count: int) -> None:
        """Take more of a response."""
        self.h2.increment_flow_control_window(count, number)
        self.turn()

    def take_back(self, number: int, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Reset a stream."""
        self.h2.reset_stream(number, code)
        self.turn()

    def advance(self, seconds: float) -> None:
        """Let time pass, a little at a time."""
        passed = 0.0
        while passed < seconds:
            step = min(1.0, seconds - passed)
            self.clock.advance(step)
            passed += step
        self.turn()

    def lose(self) -> None:
        """The connection is lost."""
        self.server.connectionLost()
