"""Measures large reads: clients follow a stream from its start to its tail, and count its bytes.

wrk cannot do this: it reads 8 KB at a time, and does not follow offsets. Here one thread serves all connections, and
reads from a socket into one buffer of a megabyte, so that the client spends nearly all of its time on the kernel's
copying. A response may end before the tail (this server and others cut large ones); the next read starts at its
``Stream-Next-Offset``.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import Counter

from attrs import define, field, frozen

from bench.client import STREAM_PREFIX, fill_stream
from bench.live import percentile
from bench.load import START_SECONDS
from bench.readers import AT_ONCE, rounded
from bench.servers import RunningServer, running
from bench.workload import CPU_MEGABYTE, MEGABYTES, Figures, LoadFailure, Measure, Run

_BUFFER_BYTES = 1 << 20

_STALLED_SECONDS = 30
"""Seconds without a byte after which a run is void."""

_NEXT = re.compile(rb"\r\nstream-next-offset: *([^\r]+)", re.IGNORECASE)
_UP_TO_DATE = re.compile(rb"\r\nstream-up-to-date: *true", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@define(eq=False)
class AnswerReader:
    """Reads one response after the other, and counts the bytes of their bodies.

    Bodies are not kept. The parts of a head, or of a chunk's head, are joined first.
    """

    body_bytes: int = field(default=0, init=False)
    """The bytes of the current response so far."""
    next_offset: bytes = field(default=b"", init=False)
    up_to_date: bool = field(default=False, init=False)
    _rest: bytes = field(default=b"", init=False)
    _in_body: bool = field(default=False, init=False)
    _chunked: bool = field(default=False, init=False)
    _left: int = field(default=0, init=False)
    """Remaining bytes of the body, or of the current chunk and the line end after it."""
    _last: bool = field(default=False, init=False)
    """Whether the current chunk is the last one, which is empty."""

    def feed(self, data: memoryview) -> bool:
        """Process received bytes, and return whether the response is complete.

        :raise LoadFailure: if it is not a 200 with a body of known length, or if there is more than one response.
        """
        if not self._in_body:
            taken = self._take_head(data)
            if taken is None:
                return False
            data = taken
        if self._chunked:
            return self._take_chunks(data)
        self.body_bytes += len(data)
        self._left -= len(data)
        if self._left < 0:
            raise LoadFailure("an answer is longer than it says")
        return self._ends(self._left == 0)

    def _ends(self, complete: bool) -> bool:
        self._in_body = not complete
        if complete:
            self._last = False
        return complete

    def _take_head(self, data: memoryview) -> memoryview | None:
        whole = self._rest + bytes(data[:16384])
        end = whole.find(b"\r\n\r\n")
        if end < 0:
            self._rest = whole
            return None
        head = whole[: end + 2]
        # The first bytes of the body follow the head in ``data``, even if the head started earlier.
        body = data[end + 4 - len(self._rest) :]
        self._rest = b""
        if head.split(b" ", 2)[1] != b"200":
            raise LoadFailure(f"a read was answered with {head[:60].decode('latin-1')!r}")
        found, length = _NEXT.search(head), _LENGTH.search(head)
        self._chunked = _CHUNKED.search(head) is not None
        if found is None or (length is None and not self._chunked):
            raise LoadFailure("an answer has no Stream-Next-Offset, or no length")
        self.next_offset, self.up_to_date = found[1], _UP_TO_DATE.search(head) is not None
        self._in_body, self.body_bytes = True, 0
        self._left = int(length[1]) if length is not None and not self._chunked else 0
        return body

    def _take_chunks(self, data: memoryview) -> bool:
        position = 0
        while position < len(data):
            if self._left:
                taken = min(self._left, len(data) - position)
                # Two of the remaining bytes are the line end after the chunk.
                self.body_bytes += max(0, self._left - 2) - max(0, self._left - taken - 2)
                self._left -= taken
                position += taken
                if self._last and not self._left:
                    return self._ends(True)
                continue
            line = self._rest + bytes(data[position : position + 20])
            end = line.find(b"\r\n")
            if end < 0:
                self._rest = line
                return False
            position += end + 2 - len(self._rest)
            self._rest = b""
            size = int(line[:end].partition(b";")[0], 16)
            self._left, self._last = size + 2, size == 0
        return False


@define(eq=False)
class _Client:
    """One client, which reads the stream again and again until the run ends.

    :param began: the start time of the current pass through the stream.
    :param got: the bytes received in this pass.
    """

    connection: socket.socket
    greeted: bool = field(default=False, init=False)
    """Whether the server has sent anything yet."""
    answers: AnswerReader = field(factory=AnswerReader, init=False)
    began: float = field(factory=time.perf_counter, init=False)
    got: int = field(default=0, init=False)


@frozen
class Passes:
    """What the clients have read.

    :param count: the number of complete passes through the stream.
    :param bytes: the bytes of all bodies.
    :param times: the number of passes for each duration in microseconds.
    :param cpu_seconds: the processor time of this process.
    """

    count: int
    bytes: int
    seconds: float
    times: Counter[int]
    cpu_seconds: float


@define(eq=False)
class _Crowd:
    """All clients, on one thread."""

    _server: RunningServer
    _name: str
    _stream_bytes: int
    _waiting: int = field(default=0, init=False)
    """The number of clients that have not connected yet."""
    _strangers: int = field(default=0, init=False)
    """The number of clients that have connected but received nothing yet, at most ``AT_ONCE``."""
    _resting: list[_Client] = field(factory=list, init=False)
    """The clients that have read the stream once and wait for the others."""
    _in_full: bool = field(default=False, init=False)
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector, init=False)
    _buffer: bytearray = field(factory=lambda: bytearray(_BUFFER_BYTES), init=False)
    _passes: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _times: Counter[int] = field(factory=Counter, init=False)

    def connect(self, clients: int) -> None:
        """Connect the clients; each reads the stream once, and when all have done so, all start again.

        If the first ones continued immediately, an overloaded server could leave the last ones waiting forever.
        """
        self._waiting = clients
        while len(self._resting) < clients:
            while self._waiting and self._strangers < AT_ONCE:
                self._connect()
            self._turn()
        resting, self._resting, self._in_full = self._resting, [], True
        for client in resting:
            self._begin(client)

    def read_for(self, seconds: float) -> Passes:
        """Let the clients read for some seconds, and until at least one has read everything.

        Reads store nothing, so their number need not be limited.
        """
        self._passes, self._bytes, self._times = 0, 0, Counter()
        began = now = time.perf_counter()
        cpu_before = time.process_time()
        while now < began + seconds or not self._passes:
            self._turn()
            now = time.perf_counter()
        return Passes(self._passes, self._bytes, now - began, self._times, time.process_time() - cpu_before)

    def _turn(self) -> None:
        ready = self._selector.select(_STALLED_SECONDS)
        if not ready:
            raise LoadFailure(f"no byte came for {_STALLED_SECONDS} s")
        for key, _ in ready:
            self._receive(key.data)

    def close(self) -> None:
        """Close all connections."""
        for key in list(self._selector.get_map().values()):
            key.data.connection.close()
        self._selector.close()

    def _connect(self) -> None:
        self._waiting -= 1
        self._strangers += 1
        connection = socket.create_connection(("127.0.0.1", self._server.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(connection)
        self._begin(client)
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _ask(self, client: _Client, offset: bytes) -> None:
        path = self._server.path(self._name).encode()
        client.connection.sendall(b"GET %b?offset=%b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (path, offset))

    def _receive(self, client: _Client) -> None:
        try:
            count = client.connection.recv_into(self._buffer)
        except BlockingIOError:
            return
        if not count:
            raise LoadFailure("the server closed a connection")
        if not client.greeted:
            client.greeted = True
            self._strangers -= 1
        if not client.answers.feed(memoryview(self._buffer)[:count]):
            return
        client.got += client.answers.body_bytes
        self._bytes += client.answers.body_bytes
        if client.answers.up_to_date:
            self._passed(client)
        else:
            self._ask(client, client.answers.next_offset)

    def _passed(self, client: _Client) -> None:
        if client.got != self._stream_bytes:
            raise LoadFailure(f"a client got {client.got:,} bytes instead of {self._stream_bytes:,}")
        self._passes += 1
        self._times[rounded(round((time.perf_counter() - client.began) * 1e6))] += 1
        if self._in_full:
            self._begin(client)
        else:
            self._resting.append(client)

    def _begin(self, client: _Client) -> None:
        client.got, client.began = 0, time.perf_counter()
        self._ask(client, b"-1")


@frozen
class Reads:
    """Measures clients that read one stream from its start to its tail, again and again (a ``Workload``).

    :param clients: the number of concurrent clients.
    :param messages: the number of messages in the stream, of ``message_bytes`` each.
    """

    key: str
    title: str
    clients: int
    messages: int
    message_bytes: int
    modes: tuple[str, ...] = ("memory", "file-durable")
    rounds: int = 99
    group: str = "read"
    log_levels: bool = False
    measures: tuple[Measure, ...] = (MEGABYTES, CPU_MEGABYTE)

    def estimate(self, warm: int, seconds: int) -> float:
        """See :class:`~bench.workload.Workload`."""
        return START_SECONDS + warm + seconds

    def measure(self, run: Run) -> Figures:
        """Fill the stream, and read it."""
        name = f"{STREAM_PREFIX}0"
        with running(run.target, run.directory) as server:
            run.step("filling the stream")
            fill_stream(server, name, self.messages, self.message_bytes)
            crowd = _Crowd(server, name, self.messages * self.message_bytes)
            try:
                run.step(f"connecting {self.clients:,} clients")
                crowd.connect(self.clients)
                run.step("warming up")
                crowd.read_for(run.warm)
                run.step("measuring")
                cpu_before = server.cpu_seconds()
                found = crowd.read_for(run.seconds)
                cpu_seconds = server.cpu_seconds() - cpu_before
            except (OSError, ValueError) as error:
                raise LoadFailure(f"reading failed: {error!r}") from error
            finally:
                crowd.close()
            server.check_alive()
        return {
            MEGABYTES.key: found.bytes / 1e6 / found.seconds,
            CPU_MEGABYTE.key: cpu_seconds * 1e12 / found.bytes,
            "passes": found.count,
            "seconds": found.seconds,
            "cpu_seconds": cpu_seconds,
            "pass_p50_us": percentile(found.times, 0.5),
            "pass_p99_us": percentile(found.times, 0.99),
            "client_busy": found.cpu_seconds / found.seconds,
        }
