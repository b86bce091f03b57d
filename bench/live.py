"""Measures live readers: fan-out, the time until an event is delivered, and the memory of an idle reader.

One writer appends at a steady pace; ``bench.readers`` hold the SSE connections in separate processes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attrs import define, field, frozen

from bench.client import expect_success, request_bytes
from bench.load import START_SECONDS
from bench.readers import event_text
from bench.servers import RunningServer, running
from bench.workload import BYTES_EACH, CPU_EVENT, P50, P99, Figures, LoadFailure, Measure, Run

STREAM = "bench-live"
CONTENT_TYPE = "text/plain"

CONNECTS_PER_SECOND = 2000
"""Approximate number of readers that connect per second, for estimates."""

BUSY = 0.97
"""Maximum share of the time that a process of readers may be busy. A busier one did not keep up, and its figures
describe only itself."""

_PATIENCE = 10.0
"""Seconds to wait for the last delivery."""

_SETTLE_SECONDS = 1.5
"""Seconds that a server gets to come to rest before its memory is measured."""


@frozen
class Delivery:
    """What the readers received.

    :param latencies: the number of deliveries for each latency in microseconds.
    :param cpu_seconds: the processor time of the busiest process of readers.
    """

    delivered: int
    latencies: Counter[int]
    cpu_seconds: float


def percentile(latencies: Counter[int], share: float) -> float:
    """Return the value that a ``share`` (0 to 1) of all values does not exceed."""
    wanted = share * sum(latencies.values())
    seen = 0
    for value in sorted(latencies):
        seen += latencies[value]
        if seen >= wanted:
            return value
    raise ValueError("there is nothing")


def shares(count: int, parts: int) -> list[int]:
    """Split ``count`` into ``parts`` numbers that differ by at most one."""
    return [count // parts + (number < count % parts) for number in range(parts)]


@define(eq=False)
class Crowd:
    """The processes that hold the readers."""

    _processes: Sequence[subprocess.Popen[str]]

    def connect(self, count: int) -> None:
        """Open ``count`` more connections.

        :raise LoadFailure: if one does not get 200.
        """
        parts = shares(count, len(self._processes))
        self._ask([f"connect {part}" for part in parts])

    def reset(self) -> None:
        """Reset the counts of deliveries."""
        self._ask(["reset"] * len(self._processes))

    def report(self) -> Delivery:
        """Return what has been delivered since the last reset."""
        answers = self._ask(["report"] * len(self._processes))
        latencies: Counter[int] = Counter()
        for answer in answers:
            latencies.update({int(value): count for value, count in answer["latencies"].items()})
        cpu_seconds = max(answer["cpu_seconds"] for answer in answers)
        return Delivery(sum(latencies.values()), latencies, cpu_seconds)

    def await_deliveries(self, count: int) -> Delivery:
        """Wait until ``count`` events have been delivered.

        :raise LoadFailure: if fewer or more are delivered.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = self.report()
            if found.delivered == count:
                return found
            if found.delivered > count:
                raise LoadFailure(f"{found.delivered:,} events were delivered instead of {count:,}")
            if time.monotonic() > deadline:
                raise LoadFailure(f"only {found.delivered:,} of {count:,} events were delivered")
            time.sleep(0.1)

    def _ask(self, commands: Sequence[str]) -> list[dict[str, object]]:
        for process, command in zip(self._processes, commands, strict=True):
            assert process.stdin is not None
            process.stdin.write(command + "\n")
            process.stdin.flush()
        return [self._answer(process) for process in self._processes]

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, object]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise LoadFailure("a process of readers has ended")
        answer: dict[str, object] = json.loads(line)
        if answer.get("errors"):
            raise LoadFailure(f"readers: {answer['errors']}")
        return answer


@contextmanager
def crowd(server: RunningServer) -> Iterator[Crowd]:
    """Start the processes for readers of one stream; no reader is connected yet."""
    count = max(1, min(4, (os.cpu_count() or 1) // 2))
    path = server.path(STREAM) + "?offset=now&live=sse"
    processes = []
    try:
        for number in range(count):
            # On systems other than Linux, only 127.0.0.1 exists by default.
            source = f"127.0.0.{number + 2}" if sys.platform == "linux" else ""
            command = [sys.executable, "-m", "bench.readers", str(server.port), path, source]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        yield Crowd(processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@define(eq=False)
class Writer:
    """Appends at a steady rate over one connection."""

    _server: RunningServer
    _socket: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._server.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def append(self, per_second: float, seconds: float) -> int:
        """Append for some seconds, and return the number of events.

        :raise LoadFailure: if the response to an append is not 2xx.
        """
        count = max(1, round(per_second * seconds))
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            self._append_one()
        return count

    def _append_one(self) -> None:
        before = request_bytes(self._server, "POST", STREAM, event_text(0), CONTENT_TYPE)
        body = event_text(time.monotonic_ns() // 1000)
        try:
            self._socket.sendall(before[: -len(body)] + body)
            answer = b""
            while b"\r\n\r\n" not in answer:
                received = self._socket.recv(65536)
                if not received:
                    raise LoadFailure("the server closed the writer's connection")
                answer += received
        except OSError as error:
            raise LoadFailure(f"appending failed: {error!r}") from error
        if answer.split(b" ", 2)[1][:1] != b"2":
            raise LoadFailure(f"an append was answered with {answer[:60].decode('latin-1')!r}")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@frozen
class FanOut:
    """Measures one writer with many readers (a ``Workload``).

    :param per_second: the number of events appended per second.
    """

    readers: int
    per_second: float
    modes: tuple[str, ...] = ("memory",)
    rounds: int = 99
    group: str = "fan-out"
    log_levels: bool = False
    measures: tuple[Measure, ...] = (CPU_EVENT, P50, P99)

    @property
    def key(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        return f"fan-out-{self.readers}"

    @property
    def title(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        readers = "1 SSE reader" if self.readers == 1 else f"{self.readers:,} SSE readers"
        return f"{readers}, {self.per_second:g} events/s"

    def estimate(self, warm: int, seconds: int) -> float:
        """See :class:`~bench.workload.Workload`."""
        return START_SECONDS + warm + seconds + self.readers / CONNECTS_PER_SECOND

    def measure(self, run: Run) -> Figures:
        """Connect the readers, append, and measure when the events arrive."""
        with running(run.target, run.directory) as server, crowd(server) as readers:
            expect_success(server, "PUT", STREAM, content_type=CONTENT_TYPE)
            run.step(f"connecting {self.readers:,} readers")
            readers.connect(self.readers)
            writer = Writer(server)
            try:
                run.step("warming up")
                readers.await_deliveries(self.readers * writer.append(self.per_second, run.warm))
                readers.reset()
                run.step("measuring")
                return self._measured(server, readers, writer, run.seconds)
            finally:
                writer.close()

    def _measured(self, server: RunningServer, readers: Crowd, writer: Writer, seconds: float) -> Figures:
        cpu_before, readers_before, began = server.cpu_seconds(), readers.report().cpu_seconds, time.monotonic()
        events = writer.append(self.per_second, seconds)
        appended = time.monotonic() - began
        found = readers.await_deliveries(self.readers * events)
        cpu_seconds, taken = server.cpu_seconds() - cpu_before, time.monotonic() - began
        busy = (found.cpu_seconds - readers_before) / taken
        if busy > BUSY:
            raise LoadFailure(f"the readers' own process was busy for {busy:.0%} of the time")
        return {
            CPU_EVENT.key: cpu_seconds * 1e6 / found.delivered,
            P50.key: percentile(found.latencies, 0.5),
            P99.key: percentile(found.latencies, 0.99),
            "events": events,
            "events_per_second": events / appended,
            "delivered": found.delivered,
            "cpu_seconds": cpu_seconds,
            "readers_busy": busy,
        }


@frozen
class IdleReaders:
    """Connects readers that receive no events (a ``Workload``).

    The memory is the server's growth from the first tenth of the readers to all of them, so that it does not include
    what is allocated once for all readers.
    """

    readers: int
    modes: tuple[str, ...] = ("memory",)
    rounds: int = 1
    group: str = "idle"
    log_levels: bool = False
    measures: tuple[Measure, ...] = (BYTES_EACH,)

    @property
    def key(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        return f"idle-readers-{self.readers}"

    @property
    def title(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        return f"idle SSE reader, of {self.readers:,}"

    def estimate(self, warm: int, seconds: int) -> float:  # noqa: ARG002 (there is no warm-up)
        """See :class:`~bench.workload.Workload`."""
        return START_SECONDS + self.readers / CONNECTS_PER_SECOND + 2 * _SETTLE_SECONDS + seconds

    def measure(self, run: Run) -> Figures:
        """Connect the readers, and measure the server's memory."""
        with running(run.target, run.directory) as server, crowd(server) as readers:
            expect_success(server, "PUT", STREAM, content_type=CONTENT_TYPE)
            first = self.readers // 10
            run.step(f"connecting {first:,} readers")
            readers.connect(first)
            time.sleep(_SETTLE_SECONDS)
            before = server.resident_bytes()
            run.step(f"connecting {self.readers:,} readers")
            began = time.monotonic()
            readers.connect(self.readers - first)
            connecting = time.monotonic() - began
            time.sleep(_SETTLE_SECONDS)
            resident = server.resident_bytes()
            run.step("watching them idle")
            cpu_before = server.cpu_seconds()
            time.sleep(run.seconds)
            idle_cpu = (server.cpu_seconds() - cpu_before) / run.seconds
            run.step("appending to all of them")
            writer = Writer(server)
            try:
                delivery = readers.await_deliveries(self.readers * writer.append(1, 1))
            finally:
                writer.close()
        return {
            BYTES_EACH.key: (resident - before) / (self.readers - first),
            "resident_bytes": resident,
            "connects_per_second": (self.readers - first) / connecting,
            "idle_cpu_share": idle_cpu,
            "last_delivery_us": max(delivery.latencies),
        }
