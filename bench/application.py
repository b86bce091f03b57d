"""What a request costs from its first byte to the answer's last, without sockets: channel, engine and storage.

Run ``python -m bench.application`` from the checkout. Bytes go into real channels, and real storage takes what they
bring; transports only count, and the syncs of ``file-durable`` are over as soon as every connection has been served
once, so that they group as they do under load. What a reactor's read and write take comes on top.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from dstreams.config import Config
from dstreams.config.schema import Limits
from dstreams.http.assembly import assemble
from dstreams.http.http1.channel import HttpChannel, HttpFactory
from dstreams.storage.disk import File
from dstreams.storage.files import FileStorage
from dstreams.storage.interface import Storage
from dstreams.storage.memory import MemoryStorage
from dstreams.storage.sync import run_inline

_HEAD = b"Host: localhost:4437\r\nContent-Type: application/octet-stream\r\n"
_PLENTY = 1 << 40


@define(eq=False)
class _Transport:
    """Keeps the last that was written."""

    last: bytes = b""

    def write(self, data: bytes) -> None:
        self.last = data

    def getPeer(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", 1)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Never pauses it."""


@define(eq=False)
class _Syncs:
    """Syncs that are over when they are told to be (a ``Syncer``)."""

    name: str = "benchmark"
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
class Bench:
    """A server without sockets, and its connections.

    :param storage: where the streams are.
    :param finish: lets what is being committed become durable.
    """

    storage: Storage
    finish: Callable[[], None]
    connections: int
    streams: int
    clock: Clock = field(factory=Clock)
    channels: list[HttpChannel] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        config = Config(limits=Limits(max_memory_bytes=_PLENTY, max_stream_bytes=_PLENTY))
        parts = assemble(self.storage, config, self.clock, lambda: True)
        parts.streams.open()
        factory = HttpFactory(parts.application, parts.wheel)
        for _ in range(self.connections):
            channel = factory.buildProtocol(None)
            assert channel is not None
            channel.makeConnection(_Transport())  # type: ignore[arg-type]
            self.channels.append(channel)
        for number in range(self.streams):
            self.ask(b"PUT", number, b"", expected=201)

    def ask(self, method: bytes, stream: int, body: bytes, query: bytes = b"", expected: int = 204) -> None:
        """One request on the first connection; its answer must have the status that is expected."""
        self.channels[0].dataReceived(request(method, stream, body, query))
        self.finish()
        answer = self.channels[0].transport.last  # type: ignore[union-attr]
        if not answer.startswith(b"HTTP/1.1 %d " % expected):
            raise SystemExit(f"unexpected answer: {answer[:300]!r}")

    def round(self, requests: list[bytes]) -> None:
        """A request on each connection, all answered."""
        for channel, each in zip(self.channels, requests, strict=True):
            channel.dataReceived(each)
        self.finish()


def request(method: bytes, stream: int, body: bytes = b"", query: bytes = b"", more: bytes = b"") -> bytes:
    """A request for a stream."""
    length = b"Content-Length: %d\r\n" % len(body) if method in (b"PUT", b"POST") else b""
    return b"%b /v1/stream/s%d%b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, stream, query, _HEAD, more, length, body)


def _best(make: Callable[[], list[bytes]], serve: Callable[[list[bytes]], object], seconds: float) -> float:
    serve(make())
    best = float("inf")
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        requests = make()
        start = time.perf_counter()
        serve(requests)
        best = min(best, (time.perf_counter() - start) / len(requests))
    return best


def _measure(bench: Bench, mode: str, seconds: float) -> None:
    what = f"{mode}, {bench.connections} connections, {bench.streams} streams"
    body = b"x" * 100

    def report(name: str, make: Callable[[], list[bytes]]) -> None:
        best = _best(make, bench.round, seconds)
        sys.stdout.write(f"{what:46} {name:22} {best * 1e6:7.2f} us\n")

    def same(name: str, each: Callable[[int], bytes]) -> None:
        requests = [each(number % bench.streams) for number in range(bench.connections)]
        report(name, lambda: requests)

    created = itertools.count(1)
    report(
        "create",
        lambda: [b"PUT /v1/stream/c%d HTTP/1.1\r\n%b\r\n" % (next(created), _HEAD) for _ in range(bench.connections)],
    )
    same("append 100 B", lambda stream: request(b"POST", stream, body))
    numbers = itertools.count()

    def produce() -> list[bytes]:
        seq = next(numbers)
        form = b"Producer-Id: p%d\r\nProducer-Epoch: 0\r\nProducer-Seq: %d\r\n"
        return [
            request(b"POST", each % bench.streams, body, more=form % (each, seq)) for each in range(bench.connections)
        ]

    report("append by a producer", produce)
    producer = b"Producer-Id: p0\r\nProducer-Epoch: 0\r\nProducer-Seq: 0\r\n"
    same("duplicate", lambda _: request(b"POST", 0, body, more=producer))
    if mode == "memory":
        same("HEAD", lambda stream: request(b"HEAD", stream))
        same("read at the tail", lambda stream: request(b"GET", stream, b"", b"?offset=now"))
        start = b"?offset=0000000000000000_0000000000000000"
        bench.streams += 1
        last = bench.streams - 1
        bench.ask(b"PUT", last, b"y" * 1000, expected=201)
        same("read 1 kB", lambda _: request(b"GET", last, b"", start))


def _measure_fan_out(readers: int, seconds: float) -> None:
    """What one more SSE reader adds to an append."""
    clock = Clock()
    bench = Bench(MemoryStorage(), lambda: clock.advance(0), readers + 1, 1, clock)
    writer, *others = bench.channels
    for channel in others:
        channel.dataReceived(request(b"GET", 0, query=b"?offset=now&live=sse"))
    bench.finish()
    append = request(b"POST", 0, b"x" * 100)

    def serve(_: list[bytes]) -> None:
        writer.dataReceived(append)
        bench.finish()

    best = _best(lambda: [append] * readers, serve, seconds)
    for channel in others:
        if b"event: data" not in channel.transport.last:  # type: ignore[union-attr]
            raise SystemExit("a reader got no event")
    sys.stdout.write(f"{f'memory, {readers} SSE readers':46} {'event for one':22} {best * 1e6:7.2f} us\n")


def main() -> None:
    """Measure, and print a line for each kind of request."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seconds", type=float, default=1.0, help="how long each line is measured")
    seconds = options.parse_args().seconds
    sys.stdout.write(f"Python {platform.python_version()}, {platform.machine()}; the best of many rounds\n")
    _measure(Bench(MemoryStorage(), lambda: None, 32, 1), "memory", seconds)
    _measure_fan_out(1000, seconds)
    for connections, streams in ((32, 1), (64, 64)):
        with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as directory:
            syncs = _Syncs()
            storage = FileStorage(directory, lambda syncs=syncs: syncs, run_inline, 1 << 36, spare_after=None)  # type: ignore[misc]
            _measure(Bench(storage, syncs.finish, connections, streams), "file-durable", seconds)


if __name__ == "__main__":
    main()
