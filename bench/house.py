"""A server in this process with real channels, engine and storage, on transports that only count: for what is measured,
and for the tests that guard what requests cost.
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

from dstreams.clocks import Clocks
from dstreams.config import Config
from dstreams.config.schema import Limits
from dstreams.http.assembly import Assembly, assemble
from dstreams.http.http1.channel import HttpChannel, HttpFactory
from dstreams.storage.disk import File
from dstreams.storage.files import FileStorage
from dstreams.storage.interface import Storage
from dstreams.storage.memory import MemoryStorage
from dstreams.storage.sync import run_inline

_WALL = 1_800_000_000.0
_HEAD = b"Host: localhost:4437\r\nContent-Type: text/plain\r\n"
_OFFSET = re.compile(rb"Stream-Next-Offset: (\S+)\r\n")


@define(eq=False)
class CountingTransport:
    """Counts what is written, and keeps the last of it."""

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
        """Never pauses it."""

    def pauseProducing(self) -> None:
        """Nothing comes by itself."""

    def resumeProducing(self) -> None:
        """Nothing comes by itself."""


@define(eq=False)
class HeldSyncs:
    """Syncs that take as long as they are let (a ``Syncer``)."""

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
        """Nothing to release."""


@define(eq=False)
class Connection:
    """A client's connection."""

    _house: House
    channel: HttpChannel
    transport: CountingTransport

    def send(self, data: bytes) -> None:
        """Bytes come in, and what they cause to be committed becomes durable."""
        self.channel.dataReceived(data)
        self._house.settle()

    def ask(self, data: bytes, status: int) -> bytes:
        """The answer to a request."""
        self.send(data)
        answer = self.transport.last
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:300]
        return answer


@define(eq=False)
class House:
    """A server in one process, with time standing still."""

    _storage: Storage
    _finish: Callable[[], object] = lambda: None
    clock: Clock = field(factory=Clock, init=False)
    parts: Assembly = field(init=False)
    _factory: HttpFactory = field(init=False)
    connections: list[Connection] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        config = Config(limits=Limits(max_memory_bytes=1 << 40, max_stream_bytes=1 << 30))
        clocks = Clocks(self.clock.seconds, lambda: self.clock.seconds() + _WALL)
        self.parts = assemble(self._storage, config, self.clock, lambda: True, clocks)
        self.parts.streams.open()
        self._factory = HttpFactory(self.parts.application, self.parts.wheel, now=lambda: _WALL)

    def settle(self) -> None:
        """What has been written becomes durable, and what waits for the reactor's next turn happens."""
        self._finish()
        self.clock.advance(0)

    def connect(self) -> Connection:
        """A client comes."""
        channel = self._factory.buildProtocol(None)
        assert channel is not None
        transport = CountingTransport()
        channel.makeConnection(transport)  # type: ignore[arg-type]
        connection = Connection(self, channel, transport)
        self.connections.append(connection)
        return connection

    def listen(self, name: str) -> Connection:
        """An SSE reader comes, and has got all there is."""
        reader = self.connect()
        reader.ask(request(b"GET", name, query=b"?offset=now&live=sse"), 200)
        return reader

    @property
    def written(self) -> tuple[int, int]:
        """How often something was written to any transport, and how many bytes."""
        transports = [connection.transport for connection in self.connections]
        return sum(each.writes for each in transports), sum(each.written for each in transports)


@contextmanager
def house(mode: str) -> Iterator[House]:
    """A server in ``memory`` or ``file-durable`` mode."""
    if mode == "memory":
        yield House(MemoryStorage())
        return
    with TemporaryDirectory() as directory:
        syncs = HeldSyncs()
        # A checkpoint or a spare segment would come in the middle of what is counted.
        storage = FileStorage(directory, lambda: syncs, run_inline, 1 << 36, spare_after=None)
        yield House(storage, syncs.finish)
        storage.close()


def request(method: bytes, name: str, body: bytes = b"", query: bytes = b"", more: bytes = b"") -> bytes:
    """A request for a stream."""
    length = b"Content-Length: %d\r\n" % len(body) if method in (b"PUT", b"POST") else b""
    return b"%b /v1/stream/%b%b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, name.encode(), query, _HEAD, more, length, body)


def next_offset(answer: bytes) -> bytes:
    """Where an answer says that the stream goes on."""
    found = _OFFSET.search(answer)
    assert found is not None
    return found[1]
