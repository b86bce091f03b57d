"""What protocols and producers rely on in a transport, on whichever reactor the tests run.

``test_on_uvloop`` runs them a second time, on ours: where both pass, nobody notices the difference.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import CannotListenError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.logger import globalLogPublisher

from tests.net.peers import PATIENCE, HalfCloseable, Recorder, connected, current_reactor, turns, until
from tests.support.certificates import Authority

LARGE = bytes(range(256)) * 20_000
"""Five megabytes: more than sockets hold."""


@pytest_twisted.ensureDeferred
async def test_large_answers_arrive_whole() -> None:
    """What is written is received, in order, however slowly the client reads."""
    server = Recorder()
    async with connected(server, receive_buffer_bytes=4096) as pair:
        server.transport.write(LARGE)
        server.transport.writeSequence([b"the ", b"end"])
        assert await pair.client_reads(len(LARGE) + 7) == LARGE + b"the end"


@pytest_twisted.ensureDeferred
async def test_write_when_connected_and_lose() -> None:
    """A protocol may write all it has to say and close, before it has left connectionMade."""
    server = Recorder()

    def made(transport: Any) -> None:
        transport.write(LARGE)
        transport.loseConnection()
        transport.write(b"more")  # still taken: the connection isn't closed yet

    server.on_made = made
    async with connected(server) as pair:
        assert await pair.client_reads() == LARGE + b"more"
        await until(lambda: server.lost)
    assert server.lost is not None
    assert server.lost.check(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_streaming_producer() -> None:
    """A streaming producer is paused when much waits to be sent, told again if it goes on, and resumed at the end."""
    server = Recorder()
    async with connected(server, receive_buffer_bytes=4096) as pair:
        transport = server.transport
        transport.registerProducer(server, True)
        transport.write(LARGE)
        assert server.calls == ["made", "pause"]
        transport.write(b"x")
        assert server.calls == ["made", "pause", "pause"]
        assert len(await pair.client_reads(len(LARGE) + 1)) == len(LARGE) + 1
        await until(lambda: "resume" in server.calls)
        assert server.calls == ["made", "pause", "pause", "resume"]
        transport.unregisterProducer()
        transport.write(LARGE)
        assert server.calls.count("pause") == 2


@pytest_twisted.ensureDeferred
async def test_pull_producer() -> None:
    """A pull producer is asked again and again, each time when all is sent."""
    server = Recorder()
    pieces = [LARGE, b"", b"small", LARGE]

    def produce() -> None:
        server.transport.write(pieces.pop(0) or b"empty")
        if not pieces:
            server.transport.unregisterProducer()
            server.transport.loseConnection()

    server.on_resume = produce
    async with connected(server) as pair:
        server.transport.registerProducer(server, False)
        assert await pair.client_reads() == LARGE + b"emptysmall" + LARGE


@pytest_twisted.ensureDeferred
async def test_two_producers() -> None:
    """A second producer is refused, and one that comes after the end is stopped."""
    server = Recorder()
    async with connected(server) as pair:
        transport = server.transport
        transport.registerProducer(server, True)
        with pytest.raises(RuntimeError):
            transport.registerProducer(Recorder(), True)
        pair.client.close()
        await until(lambda: server.lost)
        assert server.calls == ["made", "stop", "lost"]
        late = Recorder()
        transport.registerProducer(late, True)
        assert late.calls == ["stop"]


@pytest_twisted.ensureDeferred
async def test_losing_waits_for_a_paused_producer() -> None:
    """A connection that is asked to close lets its paused producer finish."""
    server = Recorder()

    def finish() -> None:
        server.transport.write(b"the end")
        server.transport.unregisterProducer()

    async with connected(server, receive_buffer_bytes=4096) as pair:
        server.transport.registerProducer(server, True)
        server.transport.write(LARGE)
        server.transport.loseConnection()
        server.on_resume = finish
        assert (await pair.client_reads())[-7:] == b"the end"
        await until(lambda: server.lost)
        assert server.calls == ["made", "pause", "resume", "lost"]


@pytest_twisted.ensureDeferred
async def test_losing_flushes_without_a_producer() -> None:
    """A connection that is asked to close sends what waits, and delivers nothing more."""
    server = Recorder()
    async with connected(server, receive_buffer_bytes=4096) as pair:
        server.transport.write(LARGE)
        server.transport.loseConnection()
        assert len(await pair.client_reads(len(LARGE) // 2)) >= len(LARGE) // 2
        pair.client.send(b"too late")
        await turns()
        assert server.received == b""


@pytest_twisted.ensureDeferred
async def test_client_closes_its_side() -> None:
    """A protocol that may be half closed is told of the client's end once, and still sends."""
    server = HalfCloseable()
    async with connected(server) as pair:
        pair.client.send(b"question")
        pair.client.shutdown(socket.SHUT_WR)
        await until(lambda: "read lost" in server.calls)
        assert server.received == b"question"
        server.transport.write(LARGE)
        server.transport.loseConnection()
        assert await pair.client_reads() == LARGE
        await until(lambda: server.lost)
        assert server.calls == ["made", "read lost", "lost"]


@pytest_twisted.ensureDeferred
async def test_client_closes_its_side_of_another() -> None:
    """For a protocol that knows nothing of half-closed connections, the client's end is the end."""
    server = Recorder()
    async with connected(server) as pair:
        pair.client.shutdown(socket.SHUT_WR)
        await until(lambda: server.lost)
        assert server.lost is not None
        assert server.lost.check(ConnectionDone)
        assert await pair.client_reads() == b""


@pytest_twisted.ensureDeferred
async def test_closing_our_side() -> None:
    """LoseWriteConnection sends what waits, then the end; what the client sends is still received."""
    server = HalfCloseable()
    async with connected(server, receive_buffer_bytes=4096) as pair:
        server.transport.write(LARGE)
        server.transport.loseWriteConnection()
        assert await pair.client_reads() == LARGE
        await until(lambda: "write lost" in server.calls)
        server.transport.write(b"ignored")
        pair.client.send(b"thanks")
        await until(lambda: server.received)
        assert server.received == b"thanks"
        pair.client.shutdown(socket.SHUT_WR)
        await until(lambda: "read lost" in server.calls)
        server.transport.loseConnection()
        await until(lambda: server.lost)
        assert server.calls == ["made", "write lost", "read lost", "lost"]


@pytest_twisted.ensureDeferred
async def test_abort() -> None:
    """AbortConnection drops what waits, resets the client, and isn't reentrant."""
    server = Recorder()
    async with connected(server, receive_buffer_bytes=4096) as pair:
        server.transport.write(LARGE)
        server.transport.loseConnection()
        server.transport.abortConnection()
        assert server.lost is None
        server.transport.write(b"ignored")
        await until(lambda: server.lost)
        assert server.lost is not None
        assert server.lost.check(ConnectionAborted)
        with pytest.raises(ConnectionResetError):
            await pair.client_reads()


@pytest.mark.parametrize("writing", [False, True])
@pytest_twisted.ensureDeferred
async def test_reset_by_client(writing: bool) -> None:
    """A client's reset is a lost connection, also in the middle of an answer."""
    server = Recorder()
    async with connected(server, receive_buffer_bytes=4096) as pair:
        server.transport.registerProducer(server, True)
        if writing:
            server.transport.write(LARGE)
        pair.reset()
        await until(lambda: server.lost)
        assert server.lost is not None
        assert server.lost.check(ConnectionLost)
        server.transport.write(b"ignored")
        server.transport.loseConnection()
        server.transport.abortConnection()
        assert server.calls[-2:] == ["stop", "lost"]


@pytest_twisted.ensureDeferred
async def test_pausing_when_connected() -> None:
    """A protocol that pauses in connectionMade gets nothing, not even the end, until it resumes."""
    server = HalfCloseable()
    server.on_made = lambda transport: transport.pauseProducing()
    async with connected(server) as pair:
        pair.client.send(b"early")
        pair.client.shutdown(socket.SHUT_WR)
        await turns()
        assert (server.received, server.calls) == (b"", ["made"])
        server.transport.resumeProducing()
        await until(lambda: "read lost" in server.calls)
        assert server.received == b"early"


@pytest_twisted.ensureDeferred
async def test_resuming_more_than_once() -> None:
    """A protocol that pauses and resumes in the middle of what was held up is told of the client's end once."""
    server = HalfCloseable()
    server.on_made = lambda transport: transport.pauseProducing()

    def pause_and_resume(_: bytes) -> None:
        server.transport.pauseProducing()
        server.transport.resumeProducing()

    server.on_data = pause_and_resume
    async with connected(server) as pair:
        pair.client.send(b"early")
        pair.client.shutdown(socket.SHUT_WR)
        await turns()
        server.transport.resumeProducing()
        await until(lambda: "read lost" in server.calls)
        await turns()
        assert (server.received, server.calls) == (b"early", ["made", "read lost"])


@pytest_twisted.ensureDeferred
async def test_pausing_in_the_middle() -> None:
    """A protocol that pauses while it receives gets no more until it resumes; nothing is lost."""
    server = Recorder()
    server.on_data = lambda _: server.transport.pauseProducing()
    async with connected(server) as pair:
        sent = 0
        try:
            while sent < len(LARGE):
                sent += pair.client.send(LARGE[sent : sent + 65_536])
        except BlockingIOError:
            pass
        await until(lambda: server.received)
        await turns()
        assert len(server.received) < sent
        server.on_data = lambda _: None
        server.transport.resumeProducing()
        await until(lambda: len(server.received) == sent)
        assert server.received == LARGE[:sent]


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
@pytest_twisted.ensureDeferred
async def test_exception_in_the_protocol(error: type[Exception]) -> None:
    """An exception ends the connection that it comes from, is its reason, and is logged once."""
    server = Recorder()

    def fail(_: bytes) -> None:
        raise error("planted")

    server.on_data = fail
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        async with connected(server) as pair:
            pair.client.send(b"x")
            await until(lambda: server.lost)
            assert server.lost is not None
            assert server.lost.check(error)
    finally:
        globalLogPublisher.removeObserver(logged.append)
    # Twisted's reactors log in the old way.
    failures = [event.get("log_failure", event.get("failure")) for event in logged]
    assert [failure.type for failure in failures if failure is not None] == [error]


@pytest_twisted.ensureDeferred
async def test_exception_of_a_producer() -> None:
    """A producer that fails when it is resumed loses its connection, and nobody else's."""
    server = Recorder()

    def fail() -> None:
        raise ZeroDivisionError("planted")

    server.on_resume = fail
    async with connected(server, receive_buffer_bytes=4096) as pair:
        server.transport.registerProducer(server, True)
        server.transport.write(LARGE)
        await pair.client_reads(len(LARGE))
        await until(lambda: server.lost)
        assert server.lost is not None
        assert server.lost.check(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_addresses_and_options() -> None:
    """Addresses and socket options are those of the socket; the peer's address is known after the end, too."""
    server = Recorder()
    async with connected(server) as pair:
        transport: Any = server.transport
        assert (transport.getPeer().host, transport.getPeer().port) == pair.client.getsockname()
        assert (transport.getHost().host, transport.getHost().port) == pair.client.getpeername()
        for setting in (True, False):
            transport.setTcpNoDelay(setting)
            transport.setTcpKeepAlive(setting)
            assert (transport.getTcpNoDelay(), transport.getTcpKeepAlive()) == (setting, setting)
        pair.client.close()
        await until(lambda: server.lost)
        assert transport.getPeer().host == "127.0.0.1"


@pytest.mark.parametrize("polite", [False, True])
@pytest_twisted.ensureDeferred
async def test_stalled_client(polite: bool) -> None:
    """A client that takes nothing of 100 MB can be cut at any time, and nothing of it stays behind."""
    server = Recorder()
    async with connected(server, receive_buffer_bytes=4096) as pair:
        server.transport.write(bytes(100_000_000))
        pair.client.send(b"x")
        await until(lambda: server.received)
        if polite:
            server.transport.loseConnection()
            await turns()
            assert server.lost is None
        server.transport.abortConnection()
        await until(lambda: server.lost)
        assert current_reactor().getWriters() == []


@pytest_twisted.ensureDeferred
async def test_stopping_to_listen() -> None:
    """A port that stops listening lets its connections be, and those it hasn't accepted are refused or reset."""
    protocols: list[Recorder] = []

    def build() -> Recorder:
        protocols.append(Recorder())
        return protocols[-1]

    factory = Factory.forProtocol(build)  # type: ignore[arg-type]
    factory.noisy = False
    port = current_reactor().listenTCP(0, factory, 50, "127.0.0.1")
    with socket.create_connection(("127.0.0.1", port.getHost().port)) as first:
        await until(lambda: protocols and protocols[0].calls)
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as second:
            await port.stopListening()
            second.settimeout(PATIENCE)
            assert len(protocols) == 1
            with pytest.raises(ConnectionResetError):
                second.recv(1)
        first.sendall(b"still here")
        await until(lambda: protocols[0].received)
    await until(lambda: protocols[0].lost)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")  # Twisted's
@pytest_twisted.ensureDeferred
async def test_unix_path_in_use(tmp_path: Path) -> None:
    """A UNIX socket's path can be listened on once, and again when the first port has stopped."""
    path, factory, reactor = str(tmp_path / "socket"), Factory.forProtocol(Recorder), current_reactor()
    factory.noisy = False
    port = reactor.listenUNIX(path, factory)
    with pytest.raises(CannotListenError):
        reactor.listenUNIX(path, factory)
    await port.stopListening()
    await reactor.listenUNIX(path, factory).stopListening()
    assert os.listdir(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_unix_connections(tmp_path: Path) -> None:
    """UNIX sockets carry large answers both ways, and close as others do."""
    server, client = HalfCloseable(), HalfCloseable()
    reactor, path = current_reactor(), str(tmp_path / "socket")
    factory = Factory.forProtocol(lambda: server)  # type: ignore[arg-type]
    factory.noisy = False
    port = reactor.listenUNIX(path, factory)
    made = ClientFactory.forProtocol(lambda: client)  # type: ignore[arg-type]
    made.noisy = False
    reactor.connectUNIX(path, made)
    await until(lambda: server.calls and client.calls)
    server.transport.write(LARGE)
    client.transport.write(LARGE)
    await until(lambda: len(server.received) == len(client.received) == len(LARGE))
    client.transport.loseWriteConnection()
    await until(lambda: "read lost" in server.calls)
    server.transport.loseConnection()
    await until(lambda: server.lost and "read lost" in client.calls)
    client.transport.loseConnection()
    await until(lambda: client.lost)
    await port.stopListening()
    assert server.received == client.received == LARGE


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted's own TLS does that
@pytest_twisted.ensureDeferred
async def test_start_tls(tmp_path: Path) -> None:
    """A connection that has begun in the clear goes on in TLS, with its producer."""
    identity = Authority(tmp_path).issue("server")
    certificate = PrivateCertificate.loadPEM(identity.key.read_bytes() + identity.certificate.read_bytes())
    server, client, reactor = Recorder(), Recorder(), current_reactor()
    factory = Factory.forProtocol(lambda: server)  # type: ignore[arg-type]
    factory.noisy = False
    port = reactor.listenTCP(0, factory, 50, "127.0.0.1")
    made = ClientFactory.forProtocol(lambda: client)  # type: ignore[arg-type]
    made.noisy = False
    reactor.connectTCP("127.0.0.1", port.getHost().port, made)
    await until(lambda: server.calls and client.calls)
    client.transport.write(b"STARTTLS")
    await until(lambda: server.received)
    server.transport.registerProducer(server, True)
    server.transport.startTLS(certificate.options())
    client.transport.startTLS(CertificateOptions(trustRoot=None))
    client.transport.write(b"question")
    await until(lambda: server.received == b"STARTTLSquestion")
    server.transport.write(LARGE)
    assert "pause" in server.calls
    await until(lambda: client.received == LARGE)
    await until(lambda: "resume" in server.calls)
    server.transport.unregisterProducer()
    server.transport.loseConnection()
    await until(lambda: server.lost and client.lost)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_no_strings() -> None:
    """Only bytes can be written."""
    server = Recorder()
    errors: list[str] = []

    def made(transport: Any) -> None:
        for write in (transport.write, lambda text: transport.writeSequence([text])):
            with pytest.raises(TypeError):
                write("text")
        errors.append("two")

    server.on_made = made
    async with connected(server):
        await turns(3)
        made(server.transport)
    assert errors == ["two", "two"]
