"""Hostile requests, straight to the server and through proxies: nobody gets a second request past a proxy.

Where two programs in a row disagree about the end of a request, a client can hide one in another's body, past
whatever the proxy checks, or in front of another client's. Each case hides the creation of a stream in what can be
read in two ways, or says something that only a proxy may. Whatever the answer is: the stream must not be there.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from attrs import frozen
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from tests.integration.proxies import CLIENT_ADDRESS, EXAMPLES, KINDS, PLAIN, START, Certificates, upstream_of
from tests.support.servers import twistd_server

pytestmark = pytest.mark.slow

HIDDEN = b"PUT /v1/stream/HIDDEN HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
"""What is hidden. ``HIDDEN`` becomes the name of a stream that no other case has."""

AFTER_CHUNKS = b"0\r\n\r\n" + HIDDEN
"""A body whose end is found before it by those who read chunks, and behind it by those who count bytes."""

COUNTED = b"Content-Length: %d\r\n" % len(AFTER_CHUNKS)


def post(*lines: bytes, body: bytes = AFTER_CHUNKS, version: bytes = b"1.1", end: bytes = b"\r\n") -> bytes:
    """A request to append, with header lines that shouldn't be."""
    head = [
        b"POST /v1/stream/victim HTTP/" + version,
        b"Host: localhost",
        b"Content-Type: text/plain",
        *lines,
        b"",
        b"",
    ]
    return end.join(head) + body


CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = COUNTED.strip()

TWO_FRAMINGS = {
    "both": post(LENGTH, CHUNKED),
    "both, the other way round": post(CHUNKED, LENGTH),
    "a blank before the colon": post(LENGTH, b"Transfer-Encoding : chunked"),
    "a blank before the name": post(LENGTH, b"X-A: b", b" Transfer-Encoding: chunked"),
    "a tab before the value": post(LENGTH, b"Transfer-Encoding:\tchunked"),
    "a vertical tab before the value": post(LENGTH, b"Transfer-Encoding:\x0bchunked"),
    "a null in the name": post(LENGTH, b"Transfer\x00-Encoding: chunked"),
    "a null in the value": post(LENGTH, b"Transfer-Encoding: chunked\x00"),
    "a folded value": post(LENGTH, b"Transfer-Encoding:\r\n chunked"),
    "a folded other header": post(LENGTH, b"X-A: b\r\n Transfer-Encoding: chunked"),
    "quoted": post(LENGTH, b'Transfer-Encoding: "chunked"'),
    "another coding": post(LENGTH, b"Transfer-Encoding: xchunked"),
    "identity": post(LENGTH, b"Transfer-Encoding: identity"),
    "a list": post(LENGTH, b"Transfer-Encoding: identity, chunked"),
    "a list the other way round": post(LENGTH, b"Transfer-Encoding: chunked, identity"),
    "two lines": post(LENGTH, CHUNKED, b"Transfer-Encoding: identity"),
    "an empty one first": post(LENGTH, b"Transfer-Encoding:", CHUNKED),
    "in HTTP/1.0": post(LENGTH, CHUNKED, b"Connection: keep-alive", version=b"1.0"),
    "with an underscore": post(LENGTH, b"Transfer_Encoding: chunked"),
    "after a bare line feed": post(LENGTH, b"X-A: b\nTransfer-Encoding: chunked"),
    "after a bare carriage return": post(LENGTH, b"X-A: b\rTransfer-Encoding: chunked"),
    "bare line feeds everywhere": post(LENGTH, CHUNKED, end=b"\n"),
    "called the connection's": post(LENGTH, CHUNKED, b"Connection: Content-Length"),
    "called the connection's, the other": post(LENGTH, CHUNKED, b"Connection: Transfer-Encoding"),
    "an upgrade": post(LENGTH, CHUNKED, b"Connection: Upgrade", b"Upgrade: websocket"),
}
"""Content-Length and something like Transfer-Encoding."""

LENGTHS = {
    "two lengths": post(b"Content-Length: 5", LENGTH),
    "two lengths, the other way round": post(LENGTH, b"Content-Length: 5"),
    "a list of two": post(b"Content-Length: 5, %d" % len(AFTER_CHUNKS)),
    "negative": post(b"Content-Length: -5"),
    "with a plus": post(b"Content-Length: +5"),
    "hexadecimal": post(b"Content-Length: 0x5"),
    "with an exponent": post(b"Content-Length: 5e0"),
    "with a fraction": post(b"Content-Length: 5.0"),
    "with an underscore": post(b"Content-Length: 1_0"),
    "with a blank inside": post(b"Content-Length: 5 0"),
    "with a blank before the colon": post(b"Content-Length : 5"),
    "more than 64 bits hold": post(b"Content-Length: %d" % (2**64 + 5)),
    "empty": post(b"Content-Length: "),
    "other digits": post("Content-Length: \u0665".encode()),
}
"""Lengths that are read in more than one way. Where one is taken for 5, what follows those bytes is a request."""

CHUNKS = {
    "an extension with a line feed": post(CHUNKED, body=b"5;a=\nhello\r\n" + AFTER_CHUNKS),
    "a chunk that ends in a line feed": post(CHUNKED, body=b"5\nhello\n" + AFTER_CHUNKS),
    "a chunk that doesn't end": post(CHUNKED, body=b"5\r\nhelloXX" + AFTER_CHUNKS),
    "a size with a prefix": post(CHUNKED, body=b"0x5\r\nhello\r\n" + AFTER_CHUNKS),
    "a size with a sign": post(CHUNKED, body=b"+5\r\nhello\r\n" + AFTER_CHUNKS),
    "a negative size": post(CHUNKED, body=b"-5\r\nhello\r\n" + AFTER_CHUNKS),
    "a size with a blank before it": post(CHUNKED, body=b" 5\r\nhello\r\n" + AFTER_CHUNKS),
    "a size with an underscore": post(CHUNKED, body=b"0_5\r\nhello\r\n" + AFTER_CHUNKS),
    "a size beyond 64 bits": post(CHUNKED, body=b"10000000000000005\r\nhello\r\n" + AFTER_CHUNKS),
    "no size": post(CHUNKED, body=b"\r\nhello\r\n" + AFTER_CHUNKS),
    "a carriage return in the size's line": post(CHUNKED, body=b"5\rX\nhello\r\n" + AFTER_CHUNKS),
}
"""Chunks that are malformed, with a request behind them."""

OTHERS = {
    "two hosts": post(b"Host: evil.example", LENGTH),
    "no body announced": b"GET /v1/stream/victim HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n \r\n" + HIDDEN,
    "a space in the target": b"GET /v1/stream/victim HTTP/1.1\rX HTTP/1.1\r\nHost: localhost\r\nX: \n\n" + HIDDEN,
    "a line feed in the target": b"GET /v1/stream/a\n HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n"
    + HIDDEN,
    "version 1.2": post(LENGTH, version=b"1.2"),
    "version 0.9": b"GET /v1/stream/victim\r\nContent-Length: 90\r\n\r\n" + HIDDEN,
    "version 2.0": post(LENGTH, version=b"2.0"),
}
"""Other heads that are read in more than one way."""

CASES = TWO_FRAMINGS | LENGTHS | CHUNKS | OTHERS

NGINX_IS_LENIENT = {"an extension with a line feed", "a chunk that ends in a line feed"}
"""Where nginx (1.22) takes a bare line feed for the end of a line. Then the second request isn't hidden from it: it
passes on two."""

Connect = Callable[..., "socket.socket | ssl.SSLSocket"]


@frozen
class Way:
    """A way to the server.

    :param connect: gives a connection, with TLS if it is through a proxy.
    :param kind: ``direct``, or the kind of the proxy.
    """

    connect: Connect
    kind: str
    numbers: Iterator[int] = count()  # noqa: RUF009 (shared on purpose: no two cases have the same names)

    def exchange(self, data: bytes) -> bytes:
        """All that comes back; the client says nothing more, but leaves its side open for a while."""
        with self.connect() as connection:
            connection.settimeout(0.4)
            received = b""
            with contextlib.suppress(TimeoutError, OSError):
                connection.sendall(data)
                while piece := connection.recv(65_536):
                    received += piece
        return received

    def ask(self, method: bytes, name: bytes, *lines: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """An ordinary request on a connection of its own: the status, and the head of the answer."""
        own = [b"Host: localhost", b"Connection: close", b"Content-Length: %d" % len(body), *lines]
        head = b"\r\n".join([b"%b /v1/stream/%b HTTP/1.1" % (method, name), *own, b"", b""])
        answer = b""
        with self.connect() as connection:
            connection.settimeout(20)
            connection.sendall(head + body)
            while b"\r\n\r\n" not in answer and (piece := connection.recv(65_536)):
                answer += piece
        return int(answer.split()[1]), answer


@pytest.fixture(scope="module", params=["direct", *KINDS])
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """To the server itself, and through each proxy."""
    if sys.platform != "linux":
        pytest.skip("the client needs a loopback address of its own")
    directory: Path = tmp_path_factory.mktemp(request.param)
    config = str(EXAMPLES / "plain.toml")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(twistd_server(directory, "--config", config))
        if request.param == "direct":
            address = ("127.0.0.1", server.port)
            found = Way(lambda *_: socket.create_connection(address, 20, (CLIENT_ADDRESS, 0)), "direct")
        else:
            certificates = Certificates.issue(directory)
            start = START[request.param]
            edge = stack.enter_context(start(directory, PLAIN[request.param], upstream_of(server), certificates))
            found = Way(edge.socket, request.param)
        assert found.ask(b"PUT", b"victim", b"Content-Type: text/plain")[0] == 201
        yield found


class SmugglingTests:
    """Requests that two programs may read in two ways."""

    @pytest.mark.parametrize("case", CASES)
    def test_hidden(self, way: Way, case: str) -> None:
        """What is hidden in a request isn't done, and the server goes on."""
        name = b"H%05d" % next(way.numbers)
        answer = way.exchange(CASES[case].replace(b"HIDDEN", name))
        if way.kind == "nginx" and case in NGINX_IS_LENIENT and answer.count(b"HTTP/1.1 ") == 2:
            return
        assert way.ask(b"HEAD", name)[0] == 404, f"the hidden request was done; the answers were {answer!r}"
        assert b"500" not in answer[:12]
        assert way.ask(b"HEAD", b"victim")[0] == 200

    def test_can_be_found(self, way: Way) -> None:
        """What isn't hidden but simply follows is done: these tests would notice."""
        name = b"H%05d" % next(way.numbers)
        way.exchange(post(CHUNKED).replace(b"HIDDEN", name).replace(b"0\r\n\r\nPUT", b"1\r\nx\r\n0\r\n\r\nPUT"))
        assert any(way.ask(b"HEAD", name)[0] == 200 for _ in range(100))


class ForgeryTests:
    """Things that only a proxy may say."""

    @pytest.mark.parametrize(
        "lines",
        [
            (b"X-Forwarded-Host: evil.example",),
            (b"x-forwarded-host: evil.example", b"X-FORWARDED-HOST: evil.example"),
            (b"X_Forwarded_Host: evil.example",),
            (b"X-Forwarded-Host : evil.example",),
            (b"X-A: b\r\n X-Forwarded-Host: evil.example",),
            (b"Forwarded: host=evil.example",),
            (b'Forwarded: for=1.1.1.1;host=evil.example;x="',),
            (b"Connection: close, X-Forwarded-Host", b"X-Forwarded-Host: evil.example"),
            (b"X-Original-Host: evil.example", b"X-Host: evil.example", b"X-Forwarded-Server: evil.example"),
            (b"X-Forwarded-Proto: javascript",),
            (b"X-Forwarded-Proto: http", b"X-Forwarded-Proto: gopher"),
        ],
        ids=range(11),
    )  # fmt: skip
    def test_headers(self, way: Way, lines: tuple[bytes, ...]) -> None:
        """A client's headers don't get into Location."""
        status, answer = way.ask(b"PUT", b"F%05d" % next(way.numbers), *lines)
        scheme = b"http" if way.kind == "direct" else b"https"
        assert status in (201, 400)
        assert b"evil.example" not in answer.lower()
        assert status == 400 or b"\r\nlocation: %b://localhost" % scheme in answer.lower()

    def test_trailers(self, way: Way) -> None:
        """Nor do the trailers of a chunked body."""
        name = b"T%05d" % next(way.numbers)
        lines = b"Host: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-Host, Stream-Closed\r\n"
        forged = b"X-Forwarded-Host: evil.example\r\nStream-Closed: true\r\n"
        request = b"PUT /v1/stream/%b HTTP/1.1\r\n%b\r\n0\r\n%b\r\n" % (name, lines, forged)
        answer = way.exchange(request)
        assert b"evil.example" not in answer
        status, head = way.ask(b"HEAD", name)
        assert status in (200, 404)
        assert b"\nstream-closed:" not in head.lower()

    def test_target(self, way: Way) -> None:
        """The authority of an absolute target is the client's choice, as Host is; both are never mixed."""
        name = b"A%05d" % next(way.numbers)
        target = b"http://other.example/v1/stream/" + name
        request = b"PUT %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % target
        answer = way.exchange(request).lower()
        assert b" 201 " in answer or b" 400 " in answer
        assert b" 400 " in answer or b"://other.example/v1/stream/" in answer or b"://localhost" in answer

    def test_h2c(self, way: Way) -> None:
        """An offer to go on in HTTP/2 is declined, and what comes in HTTP/2 then is nothing."""
        name = b"U%05d" % next(way.numbers)
        conversation = H2Connection(H2Configuration(client_side=True))
        settings = conversation.initiate_upgrade_connection()
        hidden = [
            (":method", "PUT"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", f"/v1/stream/{name.decode()}"),
        ]
        conversation.send_headers(3, hidden, end_stream=True)
        request = (
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: " + settings + b"\r\n\r\n" + conversation.data_to_send()
        )
        answer = way.exchange(request)
        assert b" 101 " not in answer.partition(b"\r\n")[0]
        assert way.ask(b"HEAD", name)[0] == 404

    @pytest.mark.parametrize(
        "path",
        [
            b"../../healthz", b"%2e%2e/%2e%2e/healthz", b"..%2f..%2fhealthz", b"a/../../../admin", b"/", b"a//b",
            b"%00", b"a%0d%0aX: y",
        ],
        ids=range(8),
    )  # fmt: skip
    def test_paths(self, way: Way, path: bytes) -> None:
        """No path below the streams leads elsewhere or into the answer's head."""
        status, answer = way.ask(b"PUT", path)
        assert status in (400, 404, 405), answer
        assert b"\nx: y" not in answer.lower()


class Http2Tests:
    """HTTP/2 in front, HTTP/1.1 behind: what is a value there must not become a line here."""

    @pytest.mark.parametrize(
        ("fields", "body"),
        [
            ([(b"transfer-encoding", b"chunked"), (b"content-length", b"%d" % len(AFTER_CHUNKS))], AFTER_CHUNKS),
            ([(b"transfer-encoding", b"chunked")], AFTER_CHUNKS),
            ([(b"content-length", b"0")], HIDDEN),
            ([(b"content-length", b"5"), (b"content-length", b"90")], HIDDEN),
            ([(b"x-a", b"b\r\ntransfer-encoding: chunked")], AFTER_CHUNKS),
            ([(b"x-a", b"b\r\n\r\n" + HIDDEN)], b""),
            ([(b"x-a", b"b\nx-forwarded-host: evil.example")], b""),
            ([(b"x-a: b\r\ntransfer-encoding", b"chunked")], AFTER_CHUNKS),
            ([(b":path", b"/v1/stream/victim HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN)], b""),
            ([(b":path", b"/v1/stream/victim HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: ")], AFTER_CHUNKS),
            ([(b":method", b"GET /v1/stream/victim HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN)], b""),
            ([(b":authority", b"localhost\r\n\r\n" + HIDDEN)], b""),
            ([(b"host", b"evil.example")], b""),
            ([(b"connection", b"content-length"), (b"content-length", b"5")], HIDDEN),
        ],
        ids=range(14),
    )
    def test_hidden(self, way: Way, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Nothing hidden is done, and nothing forged is believed."""
        if way.kind == "direct":
            return
        name = b"D%05d" % next(way.numbers)
        pseudo = {
            b":method": b"POST",
            b":scheme": b"https",
            b":authority": b"localhost",
            b":path": b"/v1/stream/victim",
        }
        pseudo |= {key: value.replace(b"HIDDEN", name) for key, value in fields if key.startswith(b":")}
        others = [(key, value.replace(b"HIDDEN", name)) for key, value in fields if not key.startswith(b":")]
        answer = self.send(way, [*pseudo.items(), *others], body.replace(b"HIDDEN", name))
        assert way.ask(b"HEAD", name)[0] == 404, f"the hidden request was done; the answer was {answer}"
        assert b"evil.example" not in answer.get(b"location", b"")

    def send(self, way: Way, fields: list[tuple[bytes, bytes]], body: bytes) -> dict[bytes, bytes]:
        """The fields of the answer, none if the stream or the connection was reset."""
        config = H2Configuration(
            client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        conversation = H2Connection(config)
        conversation.initiate_connection()
        conversation.send_headers(1, fields, end_stream=not body)
        if body:
            conversation.send_data(1, body, end_stream=True)
        answer: dict[bytes, bytes] = {}
        with way.connect("h2") as connection, contextlib.suppress(OSError, ProtocolError):
            connection.settimeout(5)
            connection.sendall(conversation.data_to_send())
            while data := connection.recv(65_536):
                for event in conversation.receive_data(data):
                    if isinstance(event, ResponseReceived):
                        answer = dict(event.headers)  # type: ignore[arg-type]
                    if isinstance(event, StreamEnded | StreamReset):
                        return answer
                connection.sendall(conversation.data_to_send())
        return answer
