"""A server inside this process with real channels, engine and storage, but with transports that only count bytes.

Benchmarks use it, and the tests that check what requests cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from dstreams.config import Config
from dstreams.config.schema import Limits
from dstreams.http.http1.channel import HttpChannel, HttpFactory
from dstreams.runtime.threads import run_inline
from dstreams.runtime.timers import Clocks, TimerWheel
from dstreams.server import Server, assemble
from dstreams.storage.disk import File
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import Storage
from dstreams.storage.memory import MemoryStorage

_WALL = 1_800_000_000.0
_HEAD = b"Host: localhost:4437\r\nContent-Type: text/plain\r\n"
_OFFSET = re.compile(rb"Stream-Next-Offset: (\S+)\r\n")


@define(eq=False)
class CountingTransport:
    """Counts what is written, and keeps the last write."""

    writes: int = 0
    written: int = 0
    last: bytes = b""

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.written += len(data)
        self.last = data

    def getPeer(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", 1)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Do nothing: this transport never pauses its producer."""

    def pauseProducing(self) -> None:
        """Do nothing: no data arrives by itself."""

    def resumeProducing(self) -> None:
        """Do nothing: no data arrives by itself."""


@define(eq=False)
class HeldSyncs:
    """Syncs that end only when :meth:`finish` is called (a ``Syncer``)."""

    name: str = "held"
    _under_way: list[Deferred[None]] = field(factory=list, init=False)

    def sync(self, file: File) -> Deferred[None]:  # noqa: ARG002
        done: Deferred[None] = Deferred()
        self._under_way.append(done)
        return done

    def finish(self) -> None:
        while self._under_way:
            self._under_way.pop().callback(None)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


@define(eq=False)
class Connection:
    """A client's connection."""

    _house: House
    channel: HttpChannel
    transport: CountingTransport

    def send(self, data: bytes) -> None:
        """Receive bytes, and make the resulting commits durable."""
        self.channel.dataReceived(data)
        self._house.settle()

    def ask(self, data: bytes, status: int) -> bytes:
        """Send a request and return the response, whose status must be ``status``."""
        self.send(data)
        answer = self.transport.last
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:300]
        return answer


@define(eq=False)
class House:
    """A server in this process, whose clock stands still."""

    _storage: Storage
    _finish: Callable[[], object] = lambda: None
    clock: Clock = field(factory=Clock, init=False)
    parts: Server = field(init=False)
    _factory: HttpFactory = field(init=False)
    connections: list[Connection] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        config = Config(limits=Limits(max_memory_bytes=1 << 40, max_stream_bytes=1 << 30))
        clocks = Clocks(self.clock.seconds, lambda: self.clock.seconds() + _WALL)
        # The clock is also the stopwatch: on a busy machine turns would end early, and requests cost more.
        wheel = TimerWheel(self.clock, stopwatch=self.clock.seconds)
        self.parts = assemble(self._storage, config, self.clock, lambda: True, clocks, wheel=wheel)
        self.parts.streams.open()
        self._factory = HttpFactory(self.parts.application, self.parts.wheel, now=lambda: _WALL)

    def settle(self) -> None:
        """Make pending commits durable, and run what is scheduled for the reactor's next turn."""
        self._finish()
        self.clock.advance(0)

    def connect(self) -> Connection:
        """Open a client's connection."""
        channel = self._factory.buildProtocol(None)
        assert channel is not None
        transport = CountingTransport()
        channel.makeConnection(transport)  # type: ignore[arg-type]
        connection = Connection(self, channel, transport)
        self.connections.append(connection)
        return connection

    def listen(self, name: str) -> Connection:
        """Connect an SSE reader, which receives everything that is there."""
        reader = self.connect()
        reader.ask(request(b"GET", name, query=b"?offset=now&live=sse"), 200)
        return reader

    @property
    def written(self) -> tuple[int, int]:
        """The number of writes to all transports, and the number of bytes."""
        transports = [connection.transport for connection in self.connections]
        return sum(each.writes for each in transports), sum(each.written for each in transports)


@contextmanager
def house(mode: str) -> Iterator[House]:
    """Run a server in ``memory`` or ``file-durable`` mode."""
    if mode == "memory":
        yield House(MemoryStorage())
        return
    with TemporaryDirectory() as directory:
        syncs = HeldSyncs()
        # Prevents a checkpoint or a spare segment from interfering with the counts.
        storage = FileStorage(directory, lambda: syncs, run_inline, 1 << 36, spare_after=None)
        yield House(storage, syncs.finish)
        storage.close()


def request(method: bytes, name: str, body: bytes = b"", query: bytes = b"", more: bytes = b"") -> bytes:
    """Return the bytes of a request for a stream."""
    length = b"Content-Length: %d\r\n" % len(body) if method in (b"PUT", b"POST") else b""
    return b"%b /v1/stream/%b%b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, name.encode(), query, _HEAD, more, length, body)


def next_offset(answer: bytes) -> bytes:
    """Return the ``Stream-Next-Offset`` of a response."""
    found = _OFFSET.search(answer)
    assert found is not None
    return found[1]
