"""The HTTP/1.1 channel on real sockets: what only the kernel, OpenSSL and a reactor can show."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread

from dstreams.http.http1.channel import HttpFactory
from dstreams.http.messages import Response, Sink
from dstreams.http.transport.limits import HttpLimits
from dstreams.runtime.timers import TimerWheel
from tests.http.fakes import LARGE, FakeApplication, LiveBody, announce, get, post, read_answers


class Server:
    """A listener on a free port of the loopback interface."""

    def __init__(self, application: FakeApplication, factory: HttpFactory, port: int) -> None:
        self.application = application
        self.factory = factory
        self.port = port

    def connect(self, receive_buffer_bytes: int = 0) -> socket.socket:
        """A blocking connection; to be used in a thread."""
        client = socket.socket()
        client.settimeout(10)
        if receive_buffer_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        client.connect(("127.0.0.1", self.port))
        return client


class EagerBody(LiveBody):
    """A body without an end, that writes as much as its client takes."""

    sent = 0

    def start(self, sink: Sink) -> None:
        super().start(sink)
        self.resume()

    def resume(self) -> None:
        assert self.sink is not None
        takes_more = True
        while takes_more:
            takes_more = self.sink.write(b"x" * 10_000)
            self.sent += 10_000


@asynccontextmanager
async def serving(limits: HttpLimits | None = None, tls: str = "") -> AsyncIterator[Server]:
    """Listen, and close everything in the end."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    application = FakeApplication(max_body_bytes=10**6)
    wheel = TimerWheel(reactor)
    factory = HttpFactory(application, wheel, limits)
    description = f"ssl:0:interface=127.0.0.1:{tls}" if tls else "tcp:0:interface=127.0.0.1"
    listening = await serverFromString(reactor, description).listen(factory)
    try:
        yield Server(application, factory, listening.getHost().port)
    finally:
        await listening.stopListening()
        drained = factory.drain()
        factory.abort()
        await drained
        wheel.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that the reactor will bring about."""
    from twisted.internet import reactor as installed
    from twisted.internet.task import deferLater

    reactor: Any = installed
    for _ in range(1000):
        if condition():
            return
        await deferLater(reactor, 0.005)
    pytest.fail("it doesn't happen")


def read_all(client: socket.socket) -> bytes:
    """Everything until the end."""
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


@pytest_twisted.ensureDeferred
async def test_an_early_answer_survives_a_large_upload() -> None:
    """A client that sends 20 MB without looking gets to read the 404, not a reset."""
    async with serving() as server:

        def upload() -> bytes:
            with server.connect() as client:
                client.sendall(announce(20_000_000, b"/missing"))
                for _ in range(200):
                    client.sendall(b"x" * 100_000)
                return read_all(client)

        [answer] = read_answers(await deferToThread(upload))
        assert (answer.status, answer.headers[b"connection"]) == (404, b"close")


@pytest_twisted.ensureDeferred
async def test_a_refusal_survives_garbage() -> None:
    """A client that goes on talking after its mistake gets to read what it was."""
    async with serving() as server:

        def talk() -> bytes:
            with server.connect() as client:
                client.sendall(b"GET / HTTP/1.1\n" + b"garbage\n" * 100_000)
                client.shutdown(socket.SHUT_WR)
                return read_all(client)

        assert read_answers(await deferToThread(talk))[0].status == 400


@pytest_twisted.ensureDeferred
async def test_a_short_upload_keeps_the_connection() -> None:
    """After a short body that was answered early the connection serves the next request."""
    async with serving() as server:

        def two() -> bytes:
            with server.connect() as client:
                client.sendall(announce(500_000, b"/missing"))
                first = client.recv(65536)
                client.sendall(b"x" * 500_000 + get(b"/nothing", b"Connection: close"))
                return first + read_all(client)

        answers = read_answers(await deferToThread(two))
        assert [answer.status for answer in answers] == [404, 204]


@pytest_twisted.ensureDeferred
async def test_a_client_that_closes_its_side_is_answered() -> None:
    """Requests before the half-close get their answers, those that take time as well."""
    async with serving() as server:

        def ask() -> bytes:
            with server.connect() as client:
                client.sendall(get(b"/missing") + post(b"x", b"/later") + get(b"/large"))
                client.shutdown(socket.SHUT_WR)
                return read_all(client)

        answered = deferToThread(ask)
        await until(lambda: server.application.waiting)
        server.application.waiting.pop().callback(Response(204))
        answers = read_answers(await answered)
        assert [answer.status for answer in answers] == [404, 204, 200]
        assert answers[2].body == LARGE


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_is_noticed() -> None:
    """Live bodies and waiting requests learn at once that their client has gone."""
    async with serving() as server:
        clients = [await deferToThread(server.connect) for _ in range(2)]
        for client, path in zip(clients, (b"/live", b"/later"), strict=True):
            client.sendall(get(path))
        await until(lambda: server.application.bodies and server.application.waiting)
        for client in clients:
            client.close()
        await until(lambda: server.factory.statistics().connections == 0)
        assert server.application.bodies[0].calls == ["start", "stop"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_is_waited_for_and_cut() -> None:
    """A body is told to wait long before it has filled the memory, and a stalled client is cut."""
    async with serving(HttpLimits(stall_timeout=0.3)) as server:
        server.application.next_body = body = EagerBody()
        client = await deferToThread(server.connect, 4096)
        client.sendall(get(b"/live"))
        await until(lambda: "stop" in body.calls)
        assert body.sent < 10_000_000
        assert server.factory.statistics().cut_stalled == 1
        client.close()


@pytest_twisted.ensureDeferred
async def test_a_large_answer_to_a_slow_reader() -> None:
    """Every byte arrives at a client with a small window, in order, and nothing else does."""
    async with serving() as server:

        def download() -> bytes:
            with server.connect(4096) as client:
                client.sendall(get(b"/large") * 10 + get(b"/nothing", b"Connection: close"))
                return read_all(client)

        answers = read_answers(await deferToThread(download))
        assert [answer.body for answer in answers] == [LARGE] * 10 + [b""]


@pytest_twisted.ensureDeferred
async def test_drain_closes_an_idle_connection() -> None:
    """A stopping server says goodbye to a client that waits for nothing."""
    async with serving() as server:
        client = await deferToThread(server.connect)
        await until(lambda: server.factory.statistics().connections == 1)
        drained: Deferred[None] = server.factory.drain()
        assert await deferToThread(client.recv, 1) == b""
        await drained
        client.close()


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted's own TLS does that
@pytest_twisted.ensureDeferred
async def test_tls(tmp_path: Path) -> None:
    """Over TLS it is the same: scheme, large answers, early answers, and the end."""
    certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    async with serving(tls=f"privateKey={certificate}:certKey={certificate}") as server:

        def ask(data: bytes) -> bytes:
            with server.connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(data)
                return read_all(client)

        end = b"Connection: close"
        answers = read_answers(await deferToThread(ask, get(b"/large") + get(b"/nothing", end)))
        assert [answer.body for answer in answers] == [LARGE, b""]
        assert server.application.requests[0].scheme == b"https"
        assert server.application.requests[0].peer == "127.0.0.1"
        early = announce(5_000_000, b"/missing") + b"x" * 5_000_000
        server.application.max_body_bytes = 10**7
        [answer] = read_answers(await deferToThread(ask_then_close, server, context, early))
        assert answer.status == 404
        await until(lambda: server.factory.statistics().connections == 0)


def ask_then_close(server: Server, context: ssl.SSLContext, data: bytes) -> bytes:
    """As a client of TLS does that was told ``Connection: close``: read the answer, and leave."""
    with server.connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(data)
        return client.recv(65536)


def make_certificate(folder: Path) -> Path:
    """A throw-away certificate for localhost, with its key in the same file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "localhost.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path
