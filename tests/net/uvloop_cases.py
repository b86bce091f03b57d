"""What only the reactor on uvloop promises; ``test_on_uvloop`` runs these on it."""

from __future__ import annotations

import gc
import os
import socket
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    ILoggingContext,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from dstreams.http.http1.output_buffer import OutputBuffer
from dstreams.net.connection import Connection
from tests.net.peers import Recorder, connected, current_reactor, turns, until

IDLE_BYTES = 2300
"""What an idle connection may cost, Twisted's and uvloop's part together, without the protocol and the kernel."""


class Silent(Protocol):
    """A protocol with nothing of its own."""

    __slots__ = ()


@pytest_twisted.ensureDeferred
async def test_interfaces() -> None:
    """A connection is what it says."""
    server = Recorder()
    async with connected(server):
        assert isinstance(server.transport, Connection)
        for interface in (ITCPTransport, ITLSTransport, IConsumer, IPushProducer, ISystemHandle, ILoggingContext):
            assert verifyObject(interface, server.transport)


@pytest_twisted.ensureDeferred
async def test_idle_connections_are_small() -> None:
    """Memory per idle connection stays below the promised bound."""
    reactor, count = current_reactor(), 500
    made: list[Silent] = []

    def build() -> Silent:
        made.append(Silent())
        return made[-1]

    factory = Factory.forProtocol(build)  # type: ignore[arg-type]
    factory.noisy = False
    port = reactor.listenTCP(0, factory, 1024, "127.0.0.1")
    clients = [socket.socket() for _ in range(count)]
    address = ("127.0.0.1", port.getHost().port)
    await turns()
    gc.collect()
    tracemalloc.start()
    try:
        for client in clients:
            client.connect(address)
        await until(lambda: len(made) == count)
        await turns()
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert all(protocol.transport.connected for protocol in made)  # type: ignore[union-attr]
    for client in clients:
        client.close()
    await port.stopListening()
    await until(lambda: not any(protocol.transport.connected for protocol in made))  # type: ignore[union-attr]
    assert each < IDLE_BYTES


@pytest_twisted.ensureDeferred
async def test_nothing_stays_behind() -> None:
    """A connection that is gone leaves no objects, without the collector's help."""
    gc.collect()
    before = sum(isinstance(each, Connection) for each in gc.get_objects())
    gc.disable()
    try:
        for _ in range(5):
            server: Recorder | None = Recorder()
            async with connected(server) as pair:
                assert server is not None
                server.transport.write(b"x")
                await pair.client_reads(1)
                pair.client.close()
                await until(lambda: server.lost)  # type: ignore[union-attr]  # noqa: B023
                server.transport = None
            server = pair = None  # type: ignore[assignment]
        await turns()
        assert sum(isinstance(each, Connection) for each in gc.get_objects()) == before
    finally:
        gc.enable()


class SlowToEnd(Protocol):
    """Takes a millisecond to end, and is written to until then."""

    def __init__(self, ends: list[int], turn: Callable[[], int]) -> None:
        self._ends = ends
        self._turn = turn

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the turn of the reactor."""
        assert reason.check(ConnectionAborted, ConnectionDone, ConnectionLost)
        self._ends.append(self._turn())
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass


@pytest_twisted.ensureDeferred
async def test_many_connections_that_end_at_once() -> None:
    """Their protocols are notified in many turns, each once; what is asked of a connection meanwhile does no harm."""
    reactor, count, turn = current_reactor(), 100, 0
    ends: list[int] = []
    made: list[Any] = []

    def build() -> SlowToEnd:
        made.append(SlowToEnd(ends, lambda: turn))
        return made[-1]

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        for each in made if ends else ():
            if each.connected and each.transport.connected:
                each.transport.write(b"x")
                each.transport.pauseProducing()
                each.transport.resumeProducing()
                each.transport.loseConnection()
                assert each.transport.unsent_bytes == 0
        if len(ends) < count:
            reactor.soon(next_turn)

    factory = Factory.forProtocol(build)  # type: ignore[arg-type]
    factory.noisy = False
    port = reactor.listenTCP(0, factory, count, "127.0.0.1")
    clients = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(count)]
    try:
        await until(lambda: len(made) == count and all(each.transport._transport for each in made))
        for each in made:
            each.transport.abortConnection() if each is made[0] else each.transport.loseConnection()
        reactor.soon(next_turn)
        await until(lambda: len(ends) == count)
        await turns()
        assert len(ends) == count
        assert max(Counter(ends).values()) <= 25
        assert not reactor._ended
    finally:
        for client in clients:
            client.close()
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_exceptions_of_calls_from_threads() -> None:
    """A call from a thread that fails is logged, and the reactor goes on."""
    from twisted.logger import globalLogPublisher

    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)

    def fail() -> None:
        raise SystemExit(3)

    try:
        current_reactor().callFromThread(fail)
        await turns()
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [SystemExit]


@pytest.mark.parametrize("method", ["loseConnection", "abortConnection", "loseWriteConnection"])
@pytest_twisted.ensureDeferred
async def test_before_uvloop_has_the_socket(method: str) -> None:
    """What is asked of a connection while it is being made is done."""
    server = Recorder()
    server.on_made = lambda transport: getattr(transport, method)()
    async with connected(server) as pair:
        if method == "abortConnection":
            with pytest.raises(ConnectionResetError):
                await pair.client_reads()
        else:
            assert await pair.client_reads() == b""
        if method == "loseWriteConnection":
            pair.client.send(b"x")
            await until(lambda: server.received)
            server.transport.loseConnection()
        await until(lambda: server.lost)


@pytest_twisted.ensureDeferred
async def test_sending_a_descriptor() -> None:
    """A descriptor leaves beside a byte that was written after it; a peer's plain recvmsg gets it."""
    reactor = current_reactor()
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    server = Recorder()
    factory = Factory.forProtocol(lambda: server)  # type: ignore[arg-type]
    reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
    ours.close()
    reading, writing = os.pipe()
    with theirs:
        transport: Any = server.transport
        transport.write(b"before ")
        await turns(3)
        transport.sendFileDescriptor(writing)
        transport.write(b"beside")
        transport.loseConnection()
        await until(lambda: server.lost)
        data, descriptors, _, _ = socket.recv_fds(theirs, 100, 1)
        data += theirs.recv(100)
        data += theirs.recv(100)
    assert data == b"before beside"
    os.close(writing)
    os.write(descriptors[0], b"x")
    assert os.read(reading, 10) == b"x"
    os.close(reading)
    os.close(descriptors[0])


@contextmanager
def file_of(data: bytes) -> Iterator[int]:
    """A file's descriptor."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


@pytest_twisted.ensureDeferred
async def test_file_is_sent() -> None:
    """Bytes of a file arrive in their place between what is written."""
    server = Recorder()
    async with connected(server) as pair:
        await turns(3)  # uvloop takes the socket over in a later turn
        with file_of(b"0123456789") as descriptor:
            assert OutputBuffer(server.transport).sends_files
            assert server.transport.send_file(descriptor, 2, 3) == 3
            server.transport.write(b"after")
            await until(lambda: not server.transport.is_writing)
            assert server.transport.send_file(descriptor, 8, 99) == 2
            assert server.transport.send_file(descriptor, 10, 1) == 0
            assert await pair.client_reads(10) == b"234after89"


@pytest.mark.long_turns(reason="the test itself sends and compares 4 MB in one turn")
@pytest_twisted.ensureDeferred
async def test_file_for_a_slow_client() -> None:
    """The socket takes what it has room for; what is written then says when there is more."""
    server = Recorder()
    data = os.urandom(4_000_000)
    async with connected(server, receive_buffer_bytes=4096) as pair:
        await turns(3)  # uvloop takes the socket over in a later turn
        server.transport.registerProducer(server, True)
        with file_of(data) as descriptor:
            sent = 0
            while part := server.transport.send_file(descriptor, sent, len(data) - sent):
                sent += part
            assert 0 < sent < len(data)
            server.transport.write(data[sent : sent + 100_000])
            assert server.calls[-1] == "pause"
            assert server.transport.send_file(descriptor, sent + 100_000, 1) == 0
            assert await pair.client_reads(sent + 100_000) == data[: sent + 100_000]
            await until(lambda: server.calls[-1] == "resume")
            assert server.transport.send_file(descriptor, sent + 100_000, 1) == 1


@pytest_twisted.ensureDeferred
async def test_file_for_a_client_that_has_gone() -> None:
    """Nothing is sent and nothing is raised: the connection tells its end by itself."""
    server = Recorder()
    async with connected(server) as pair:
        transport = server.transport
        pair.reset()
        with file_of(b"0123456789") as descriptor:
            while transport.send_file(descriptor, 0, 10):
                pass
            await until(lambda: server.lost)
            assert transport.send_file(descriptor, 0, 10) == 0


@pytest.mark.parametrize("end", ["loseConnection", "abortConnection", "loseWriteConnection"])
def test_file_after_the_end(end: str) -> Any:
    """On a connection that is being closed nothing is sent."""

    async def case() -> None:
        server = Recorder()
        async with connected(server):
            transport = server.transport
            getattr(transport, end)()
            with file_of(b"0123456789") as descriptor:
                assert transport.send_file(descriptor, 0, 10) == 0

    return pytest_twisted.ensureDeferred(case)()
