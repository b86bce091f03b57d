"""Measures what a request costs from its first byte to the response's last, without sockets: channel, engine, storage.

Run ``python -m bench.application`` from the checkout. Bytes are passed to real channels, and real storage stores
them; transports only count, and a sync of ``file-durable`` ends when every connection has been served once, so that
commits are grouped as they are under load. The reactor's reads and writes are not included.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import time
from collections.abc import Callable

from attrs import define, field

from bench.house import Connection, House, house, request

_BODY = b"x" * 100


@define(eq=False)
class Bench:
    """A server without sockets, some connections and some streams.

    :param house: the server, without connections.
    """

    house: House
    connections: int
    streams: int
    _clients: list[Connection] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._clients = [self.house.connect() for _ in range(self.connections)]
        for number in range(self.streams):
            self.ask(request(b"PUT", f"s{number}"), 201)

    def ask(self, data: bytes, status: int) -> None:
        """Send one request on the first connection, and check the status of the response."""
        self._clients[0].ask(data, status)

    def round(self, requests: list[bytes]) -> None:
        """Send one request on each connection, and answer all of them."""
        for client, each in zip(self._clients, requests, strict=True):
            client.channel.dataReceived(each)
        self.house.settle()


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

    def report(name: str, make: Callable[[], list[bytes]]) -> None:
        best = _best(make, bench.round, seconds)
        sys.stdout.write(f"{what:46} {name:22} {best * 1e6:7.2f} us\n")

    def same(name: str, each: Callable[[str], bytes]) -> None:
        requests = [each(f"s{number % bench.streams}") for number in range(bench.connections)]
        report(name, lambda: requests)

    numbers, created = itertools.count(), itertools.count()

    def produce() -> list[bytes]:
        seq = next(numbers)
        form = b"Producer-Id: p%d\r\nProducer-Epoch: 0\r\nProducer-Seq: %d\r\n"
        return [
            request(b"POST", f"s{each % bench.streams}", _BODY, more=form % (each, seq))
            for each in range(bench.connections)
        ]

    report("create", lambda: [request(b"PUT", f"c{next(created)}") for _ in range(bench.connections)])
    same("append 100 B", lambda stream: request(b"POST", stream, _BODY))
    report("append by a producer", produce)
    producer = b"Producer-Id: p0\r\nProducer-Epoch: 0\r\nProducer-Seq: 0\r\n"
    same("duplicate", lambda _: request(b"POST", "s0", _BODY, more=producer))
    if mode == "memory":
        same("HEAD", lambda stream: request(b"HEAD", stream))
        same("read at the tail", lambda stream: request(b"GET", stream, query=b"?offset=now"))
        start = b"?offset=0000000000000000_0000000000000000"
        bench.ask(request(b"PUT", "kilobyte", b"y" * 1000), 201)
        same("read 1 kB", lambda _: request(b"GET", "kilobyte", query=start))


def _measure_fan_out(readers: int, seconds: float) -> None:
    """Measure what each additional SSE reader adds to the cost of an append."""
    with house("memory") as server:
        bench = Bench(server, 1, 1)
        listening = [server.listen("s0") for _ in range(readers)]
        append = request(b"POST", "s0", _BODY)
        best = _best(lambda: [append] * readers, lambda _: bench.round([append]), seconds)
        for reader in listening:
            if b"event: data" not in reader.transport.last:
                raise SystemExit("a reader got no event")
    sys.stdout.write(f"{f'memory, {readers} SSE readers':46} {'event for one':22} {best * 1e6:7.2f} us\n")


def main() -> None:
    """Measure, and print one line for each kind of request."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seconds", type=float, default=1.0, help="seconds of measurement for each line")
    seconds = options.parse_args().seconds
    sys.stdout.write(f"Python {platform.python_version()}, {platform.machine()}; the best of many rounds\n")
    for mode, connections, streams in (("memory", 32, 1), ("file-durable", 32, 1), ("file-durable", 64, 64)):
        with house(mode) as server:
            _measure(Bench(server, connections, streams), mode, seconds)
    _measure_fan_out(1000, seconds)


if __name__ == "__main__":
    main()
