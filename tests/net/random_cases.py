"""Connections whose both ends do anything at any time; ``test_on_uvloop`` runs this.

What must hold: every connection that was made is lost once; nothing is received, and no half of it is closed,
before or after that, or twice; nobody hangs; nothing but reasons is logged.
"""

from __future__ import annotations

import gc
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.net.connection import Connection
from tests.net.peers import current_reactor, until

CONNECTIONS = 300


@define
class Run:
    """One run's random numbers and counts."""

    random: Random
    made: int = 0
    lost: int = 0
    live: set[Any] = field(factory=set)
    to_dial: int = CONNECTIONS


class Restless(Protocol):
    """Does something at every occasion."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ends: list[str] = []

    def connectionMade(self) -> None:
        self.run.made += 1
        self.run.live.add(self)
        self.act()

    def dataReceived(self, data: bytes) -> None:
        assert data
        assert self in self.run.live
        assert "read" not in self.ends
        if self.run.random.random() < 0.3:
            self.act()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.run.live.remove(self)
        self.run.lost += 1

    def act(self) -> None:
        for _ in range(self.run.random.randrange(4)):
            self.do_something()

    def do_something(self) -> None:
        random, transport = self.run.random, self.transport
        assert transport is not None
        actions: list[tuple[int, Any]] = [
            (8, lambda: transport.write(bytes(random.choice([1, 1000, 70_000, 500_000])))),
            (1, lambda: transport.writeSequence([bytes(100_000)] * random.randrange(4))),
            (2, transport.pauseProducing),  # type: ignore[attr-defined]
            (4, transport.resumeProducing),  # type: ignore[attr-defined]
            (2, self.register),
            (2, transport.unregisterProducer),  # type: ignore[attr-defined]
            (2, transport.loseConnection),
            (1, transport.abortConnection),  # type: ignore[attr-defined]
            (1, transport.loseWriteConnection),  # type: ignore[attr-defined]
            (1, lambda: current_reactor().callLater(random.random() / 100, self.do_something)),
        ]
        weights, functions = zip(*actions, strict=True)
        random.choices(functions, weights)[0]()

    def register(self) -> None:
        transport: Any = self.transport
        if transport.producer is None:
            transport.registerProducer(self, self.run.random.random() < 0.5)

    def pauseProducing(self) -> None:
        assert self in self.run.live

    def resumeProducing(self) -> None:
        assert self in self.run.live
        transport: Any = self.transport
        if self.run.random.random() < 0.5:
            transport.write(bytes(self.run.random.choice([10, 100_000])))
        if self.run.random.random() < 0.4:
            transport.unregisterProducer()

    def stopProducing(self) -> None:
        pass


@implementer(IHalfCloseableProtocol)
class RestlessHalf(Restless):
    """The same, and may be half closed."""

    def readConnectionLost(self) -> None:  # noqa: N802 (Twisted's name)
        self.end("read")
        self.act()

    def writeConnectionLost(self) -> None:  # noqa: N802 (Twisted's name)
        self.end("write")

    def end(self, direction: str) -> None:
        assert self in self.run.live
        assert direction not in self.ends
        self.ends.append(direction)


class Server(Factory):
    noisy = False

    def __init__(self, run: Run) -> None:
        self.run = run

    def buildProtocol(self, addr: object) -> Any:
        if self.run.random.random() < 0.03:
            return None
        return self.run.random.choice([Restless, RestlessHalf])(self.run)


class Dialling(ClientFactory):
    """Dials the next connection when one has ended."""

    noisy = False

    def __init__(self, run: Run, port: int, path: str) -> None:
        self.run = run
        self.port = port
        self.path = path

    def buildProtocol(self, addr: object) -> Any:
        return self.run.random.choice([Restless, RestlessHalf])(self.run)

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:  # noqa: N802 (Twisted's name)
        self.dial()

    clientConnectionFailed = clientConnectionLost  # noqa: N815 (Twisted's name)

    def dial(self) -> None:
        if self.run.to_dial:
            self.run.to_dial -= 1
            if self.run.random.random() < 0.5:
                current_reactor().connectTCP("127.0.0.1", self.port, self)
            else:
                current_reactor().connectUNIX(self.path, self)


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_anything_goes(seed: int, tmp_path: Path) -> None:
    """Whatever protocols do, connections keep what the module's head says."""
    run, reactor, path = Run(Random(seed)), current_reactor(), str(tmp_path / "socket")
    failures: list[Any] = []

    def observe(event: Any) -> None:
        failures.extend(event[key] for key in ("log_failure", "failure") if key in event)

    globalLogPublisher.addObserver(observe)
    ports = [reactor.listenTCP(0, Server(run), 50, "127.0.0.1"), reactor.listenUNIX(path, Server(run))]
    factory = Dialling(run, ports[0].getHost().port, path)

    def ended() -> bool:
        """Cut some, for those whose ends wait for each other."""
        for protocol in list(run.live):
            if run.random.random() < 0.02:
                protocol.transport.abortConnection()
        return not run.to_dial and not run.live

    try:
        for _ in range(40):
            factory.dial()
        await until(ended)
    finally:
        globalLogPublisher.removeObserver(observe)
        for port in ports:
            await port.stopListening()
    assert failures == []
    assert run.made == run.lost >= CONNECTIONS
    gc.collect()
    assert not any(isinstance(each, Connection) for each in gc.get_objects())
