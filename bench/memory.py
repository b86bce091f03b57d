"""Measures what streams, messages and producers cost in ``memory`` mode, in bytes of this process.

    python -m bench.memory

For each it prints the bytes that were allocated, the bytes that are counted against ``limits.max_memory_bytes``, and
their ratio. The charges in ``dstreams/storage/memory.py`` are based on these figures, so measure again when the state
of a stream changes. The counts are chosen so that Python's tables have just grown, when each entry costs most.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable

from attrs import frozen
from twisted.internet.task import Clock

from dstreams.http.application import StreamApplication
from dstreams.http.context import Context, HttpSettings
from dstreams.http.messages import Request, Response
from dstreams.runtime.timers import Clocks, TimerWheel
from dstreams.storage.memory import MemoryStorage
from dstreams.streams.limits import StoreLimits
from dstreams.streams.streams import Streams

UNLIMITED = StoreLimits(total_bytes=1 << 40, stream_bytes=1 << 40)
COUNTS = (1_000, 11_000, 88_000)
"""Tables of dicts grow when they pass two thirds of a power of two: 11,000 and 88,000 have just passed one."""


@frozen
class Server:
    """An engine with its application, in memory."""

    streams: Streams
    application: StreamApplication

    @classmethod
    def new(cls) -> Server:
        """Create an empty server."""
        wheel = TimerWheel(Clock())
        clocks = Clocks(time.monotonic, time.time)
        streams = Streams(MemoryStorage(), wheel, UNLIMITED, clocks)
        streams.open()
        return cls(streams, StreamApplication(Context(streams, HttpSettings(), wheel, clocks)))

    @property
    def charged(self) -> int:
        """The bytes that are counted against the limit."""
        return self.streams.statistics().used_bytes

    def ask(self, method: bytes, name: str, body: bytes = b"", **headers: str) -> None:
        """Send one request, which must be accepted."""
        fields = {key.replace("_", "-").encode(): value.encode() for key, value in headers.items()}
        path = b"/v1/stream/" + name.encode()
        answer = self.application.respond(Request(method, path, b"", fields, len(body), body=body))
        assert isinstance(answer, Response)
        assert answer.status < 300, answer.body


def put(server: Server, number: int) -> None:
    """Create an idle stream."""
    server.ask(b"PUT", f"s/{number}", content_type="text/plain")


def put_ttl(server: Server, number: int) -> None:
    """Create an idle stream with a time-to-live."""
    server.ask(b"PUT", f"s/{number}", content_type="text/plain", stream_ttl="3600")


def put_used(server: Server, number: int) -> None:
    """Create a stream with one message and one producer."""
    server.ask(b"PUT", f"s/{number}", content_type="text/plain")
    numbers = {"producer_epoch": str(number), "producer_seq": "0"}
    server.ask(b"POST", f"s/{number}", b"x" * 100, content_type="text/plain", producer_id=f"p{number}", **numbers)


def fork(server: Server, number: int) -> None:
    """Create a fork of one of a hundred streams."""
    source = f"source/{number % 100}"
    if number < 100:
        server.ask(b"PUT", source, content_type="text/plain")
    server.ask(b"PUT", f"f/{number}", stream_forked_from=source)


def append(server: Server, number: int) -> None:
    """Append a message of one byte."""
    if not number:
        server.ask(b"PUT", "s", content_type="text/plain")
    server.ask(b"POST", "s", b"x", content_type="text/plain")


def produce(server: Server, number: int) -> None:
    """Append by a new producer."""
    if not number:
        server.ask(b"PUT", "s", content_type="text/plain")
    numbers = {"producer_epoch": str(1000 + number), "producer_seq": "0"}
    server.ask(b"POST", "s", b"x", content_type="text/plain", producer_id=f"producer-{number}", **numbers)


CASES = {
    "idle stream": put,
    "idle stream with a TTL": put_ttl,
    "stream with a message of 100 B and a producer": put_used,
    "fork": fork,
    "message of 1 B": append,
    "producer (and its message)": produce,
}


def measure(act: Callable[[Server, int], None], count: int) -> tuple[float, float]:
    """Return the bytes that each of ``count`` allocates, and those that it is charged."""
    server = Server.new()
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        act(server, number)
    gc.collect()
    allocated = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return allocated / count, server.charged / count


def main() -> None:
    """Print a table."""
    write = sys.stdout.write
    write(f"{'':46} {'count':>8} {'bytes':>8} {'counted':>8} {'factor':>7}\n")
    for what, act in CASES.items():
        for count in COUNTS:
            allocated, charged = measure(act, count)
            write(f"{what:46} {count:8,} {allocated:8.0f} {charged:8.0f} {allocated / charged:7.2f}\n")


if __name__ == "__main__":
    main()
