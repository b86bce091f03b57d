"""Both ends of a connection, for tests of transports."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

PATIENCE = 30
"""Seconds after which a test gives up."""


def current_reactor() -> Any:
    """The reactor that the tests run on."""
    from twisted.internet import reactor

    return reactor


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that the reactor will bring about."""
    reactor = current_reactor()
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            pytest.fail("it doesn't happen")
        await deferLater(reactor, 0.002)


async def turns(count: int = 20) -> None:
    """Let the reactor take some turns, for what must not happen."""
    for _ in range(count):
        await deferLater(current_reactor(), 0.001)


class Recorder(Protocol):
    """Notes what its transport tells, and producers' calls."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.calls: list[str] = []
        self.lost: Failure | None = None
        self.on_made: Callable[[Any], object] = lambda _: None
        self.on_data: Callable[[bytes], object] = lambda _: None
        self.on_resume: Callable[[], object] = lambda: None

    def connectionMade(self) -> None:
        self.calls.append("made")
        self.on_made(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.on_data(data)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.calls.append("lost")
        self.lost = reason

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.on_resume()

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """The same, and it may have one direction closed."""

    def readConnectionLost(self) -> None:  # noqa: N802 (Twisted's name)
        self.calls.append("read lost")

    def writeConnectionLost(self) -> None:  # noqa: N802 (Twisted's name)
        self.calls.append("write lost")


@define
class Pair:
    """A server's protocol and a blocking client whose calls don't wait."""

    server: Any
    client: socket.socket = field()

    async def client_reads(self, count: int | None = None) -> bytes:
        """What the client gets: ``count`` bytes, or everything until the end."""
        got = bytearray()
        ended = False

        def more() -> bool:
            nonlocal ended
            try:
                while count is None or len(got) < count:
                    data = self.client.recv(262_144)
                    if not data:
                        ended = True
                        return True
                    got.extend(data)
            except BlockingIOError:
                return False
            return True

        await until(more)
        assert ended or count is not None
        return bytes(got)

    def reset(self) -> None:
        """Have the client's kernel send a reset."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()


@asynccontextmanager
async def connected(server: Any, receive_buffer_bytes: int = 0, backlog: int = 50) -> AsyncIterator[Pair]:
    """A client connected to ``server``'s transport.

    :param server: the protocol; a :class:`Recorder`.
    """
    factory = Factory.forProtocol(lambda: server)  # type: ignore[arg-type]
    factory.noisy = False
    port = current_reactor().listenTCP(0, factory, backlog, "127.0.0.1")
    client = socket.socket()
    if receive_buffer_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    try:
        client.connect(("127.0.0.1", port.getHost().port))
        client.setblocking(False)
        await until(lambda: server.calls)
        yield Pair(server, client)
    finally:
        client.close()
        await port.stopListening()
        if server.lost is None:
            server.transport.abortConnection()
            await until(lambda: server.lost)
