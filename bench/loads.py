"""What the pinger has to bear: loads that one client, or a few hundred, put on a server, each in a process of its own.

Run as ``python -m bench.loads LOAD PLACE`` (PLACE is JSON, :class:`Place`): it prepares, prints ``ready``, waits for a
line on standard input, does what it is there for, prints ``done``, and ends with its connections open until then. Each
load is a generator with one ``yield`` between the two parts. All are bounded in bytes, requests and time; they talk to
127.0.0.1 only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from attrs import frozen

from bench.pinger import dial

MB = 1_000_000

SOURCES = 8
"""From how many addresses (127.0.0.2 and on) many connections come, as one address has too few ports for a while."""


@frozen
class Place:
    """Where a load goes.

    :param prefix: the path before a stream's name.
    :param pid: the server's process.
    :param directory: the run's own.
    :param share: sizes are multiplied with it, 1 or less.
    """

    port: int
    prefix: str
    pid: int
    tls: bool
    directory: str
    share: float

    def size(self, full: int) -> int:
        """A number that the load's size depends on."""
        return max(1, round(full * self.share))

    def path(self, name: str) -> str:
        """A stream's path."""
        return self.prefix + name

    def dial(self, protocol: str = "http/1.1") -> socket.socket:
        """A new connection."""
        return dial(self.port, tls=self.tls, protocol=protocol)


Load = Callable[[Place], Iterator[None]]

# --- requests ----------------------------------------------------------------------------------------------


def head(method: str, path: str, *headers: str, length: int | None = None) -> bytes:
    """A request's head."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def ask(place: Place, method: str, name: str, body: bytes | None = None, *headers: str) -> int:
    """Send one request on a connection of its own; the status of the answer."""
    if body is None and method in ("PUT", "POST"):
        body = b""
    with place.dial() as connection:
        request = head(method, place.path(name), *headers, length=None if body is None else len(body))
        # Refused before all of it was sent: the answer says so.
        with suppress(OSError):
            connection.sendall(request + (body or b""))
        return int(read_head(connection).split(b" ", 2)[1])


def create(place: Place, name: str, content_type: str, body: bytes = b"", *headers: str) -> None:
    """Create a stream.

    :raise SystemExit: it isn't created.
    """
    status = ask(place, "PUT", name, body, f"Content-Type: {content_type}", *headers)
    if status not in (200, 201):
        raise SystemExit(f"PUT was answered with {status}")


def append(place: Place, name: str, content_type: str, body: bytes, expected: Iterable[int] = (200, 204)) -> None:
    """Append to a stream.

    :raise SystemExit: it isn't answered as expected.
    """
    status = ask(place, "POST", name, body, f"Content-Type: {content_type}")
    if status not in expected:
        raise SystemExit(f"POST was answered with {status}")


def read_head(connection: socket.socket) -> bytes:
    """Read an answer's head, and drop what follows it.

    :raise SystemExit: the connection ended before.
    """
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.recv(65536)
        if not received:
            raise SystemExit("a connection ended without an answer")
        answer += received
    return answer


def pipeline(place: Place, requests: Iterable[bytes], group: int = 200) -> None:
    """Send requests over one connection, a group at a time, each when the group before has been answered."""
    with place.dial() as connection:
        waiting: list[bytes] = []
        for request in requests:
            waiting.append(request)
            if len(waiting) == group:
                _exchange(connection, waiting)
                waiting = []
        if waiting:
            _exchange(connection, waiting)


def _exchange(connection: socket.socket, requests: list[bytes]) -> None:
    connection.sendall(b"".join(requests))
    missing, rest = len(requests), b""
    while missing:
        received = connection.recv(262144)
        if not received:
            raise SystemExit("a connection ended in the middle of pipelined requests")
        data = rest + received
        missing -= data.count(b"HTTP/1.1 ")
        rest = data[-8:] if not data.endswith(b"HTTP/1.1 ") else b""


def flood(place: Place, block: bytes, connections: int, seconds: float) -> None:
    """Send the same bytes again and again over some connections, and drop what comes back, for a time."""
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        sockets = [stack.enter_context(place.dial()) for _ in range(connections)]
        left = dict.fromkeys(sockets, memoryview(b""))
        for each in sockets:
            each.setblocking(False)
        while sockets and (now := time.monotonic()) < end:
            readable, writable, _ = select.select(sockets, sockets, [], end - now)
            for each in readable:
                if not _drop(each):
                    sockets.remove(each)
            for each in writable:
                left[each] = left[each] or memoryview(block)
                try:
                    left[each] = left[each][each.send(left[each]) :]
                except (BlockingIOError, OSError):
                    continue


def _drop(connection: socket.socket) -> bool:
    """Drop what has arrived; whether the connection goes on."""
    try:
        return bool(connection.recv(262144))
    except BlockingIOError:
        return True
    except OSError:
        return False


def open_many(place: Place, request: bytes, count: int, receive_bytes: int = 0) -> list[socket.socket]:
    """Connect many times and send the same request on each; answers aren't read.

    :param receive_bytes: the size of the sockets' receive buffers; the system's when it is 0.
    """
    found = []
    for number in range(count):
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.bind((f"127.0.0.{number % SOURCES + 2}", 0))
        connection.settimeout(60)
        connection.connect(("127.0.0.1", place.port))
        connection.sendall(request)
        found.append(connection)
    return found


def await_first(connections: Iterable[socket.socket]) -> None:
    """Wait until something has arrived on each."""
    for each in connections:
        if not each.recv(65536):
            raise SystemExit("a connection was closed")


# --- floods of small requests ------------------------------------------------------------------------------


def _pipelined(request: Callable[[Place], bytes], connections: int = 1, count: int = 4000) -> Load:
    def load(place: Place) -> Iterator[None]:
        create(place, "flood", "application/octet-stream")
        block = request(place) * count
        yield
        flood(place, block, connections, 3 * place.share)

    return load


def _chunks(place: Place) -> Iterator[None]:
    create(place, "flood", "application/octet-stream")
    body = b"1\r\na\r\n" * 40_000
    request = head("POST", place.path("flood"), "Content-Type: application/octet-stream", "Transfer-Encoding: chunked")
    yield
    end = time.monotonic() + 3 * place.share
    while time.monotonic() < end:
        with place.dial() as connection:
            connection.sendall(request)
            for _ in range(10):
                connection.sendall(body)
            connection.sendall(b"0\r\n\r\n")
            read_head(connection)


# --- large bodies ------------------------------------------------------------------------------------------


def _json(make: Callable[[int], bytes], full_bytes: int, expected: tuple[int, ...] = (200, 204)) -> Load:
    def load(place: Place) -> Iterator[None]:
        create(place, "json", "application/json")
        body = make(place.size(full_bytes))
        yield
        append(place, "json", "application/json", body, expected)

    return load


def _ones(size: int) -> bytes:
    return b"[" + b"1," * (size // 2 - 1) + b"1]"


def _empty_arrays(size: int) -> bytes:
    return b"[" + b"[]," * (size // 3 - 1) + b"[]]"


def _nested(size: int) -> bytes:
    deep = b"[" * 500 + b"]" * 500
    return b"[" + (deep + b",") * (size // 1001 - 1) + deep + b"]"


def _object(size: int) -> bytes:
    return b"{" + b",".join(b'"k%06d":1' % number for number in range(size // 12)) + b"}"


def _large_append(full_bytes: int, count: int = 1) -> Load:
    def load(place: Place) -> Iterator[None]:
        create(place, "large", "application/octet-stream")
        body = bytes(place.size(full_bytes))
        yield
        for _ in range(count):
            append(place, "large", "application/octet-stream", body)

    return load


# --- readers -----------------------------------------------------------------------------------------------


def _stalled(content_type: str, message: bytes) -> Load:
    def load(place: Place) -> Iterator[None]:
        create(place, "stalled", content_type, message * (9 * MB // len(message)))
        request = head("GET", place.path("stalled") + "?offset=-1&live=sse")
        yield
        stalled = open_many(place, request, place.size(200), 4096)
        time.sleep(3)
        for each in stalled:
            each.close()

    return load


def _catch_up(content_type: str, piece: bytes, pieces: int) -> Load:
    def load(place: Place) -> Iterator[None]:
        create(place, "catch-up", content_type)
        count = place.size(pieces)
        for _ in range(count):
            append(place, "catch-up", content_type, piece)
        yield
        (reader,) = open_many(place, head("GET", place.path("catch-up") + "?offset=-1&live=sse"), 1)
        seen, tail = 0, b""
        while b'"upToDate":true' not in tail:
            received = reader.recv(1 << 20)
            if not received:
                raise SystemExit("the reader's connection ended")
            seen += len(received)
            tail = (tail + received)[-200:]
        if seen < count * len(piece):
            raise SystemExit(f"only {seen:,} bytes were read")

    return load


def _fan_out(live: str) -> Load:
    def load(place: Place) -> Iterator[None]:
        create(place, "live", "text/plain", b"x")
        offset = "now" if live == "sse" else _tail(place, "live")
        request = head("GET", place.path("live") + f"?offset={offset}&live={live}")
        readers = open_many(place, request, place.size(8000))
        if live == "sse":
            await_first(readers)
        else:
            time.sleep(1)
        yield
        for _ in range(3 if live == "sse" else 1):
            append(place, "live", "text/plain", b"hello")
            await_first(readers)

    return load


def _tail(place: Place, name: str) -> str:
    with place.dial() as connection:
        connection.sendall(head("HEAD", place.path(name)))
        answer = read_head(connection).lower()
    return answer.partition(b"\r\nstream-next-offset:")[2].partition(b"\r\n")[0].strip().decode()


# --- HTTP/2 ------------------------------------------------------------------------------------------------


def _frames(make: Callable[[Place], tuple[bytes, bytes]]) -> Load:
    """A flood of small frames: what comes first on the connection, and the frame."""

    def load(place: Place) -> Iterator[None]:
        create(place, "frames", "application/octet-stream")
        first, frame = make(place)
        count = place.size(200_000)
        yield
        with place.dial("h2") as connection:
            connection.settimeout(30)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + first)
            reader = threading.Thread(target=_drop_all, args=(connection,), daemon=True)
            reader.start()
            try:
                for _ in range(count // 1000):
                    connection.sendall(frame * 1000)
                connection.sendall(_frame(6, 0, 0, b"the last"))
            except OSError:
                pass  # the server has ended the connection
            time.sleep(0.5)

    return load


def _drop_all(connection: socket.socket) -> None:
    try:
        while connection.recv(65536):
            pass
    except OSError:
        pass


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _request_block(place: Place, method: str) -> bytes:
    """The fields of a request, in HPACK without Huffman codes or the table."""

    def literal(name: str, value: str) -> bytes:
        return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    fields = ((":method", method), (":scheme", "https"), (":path", place.path("frames")), (":authority", "127.0.0.1"))
    return b"".join(literal(*each) for each in (*fields, ("content-type", "application/octet-stream")))


def _empty_data(place: Place) -> tuple[bytes, bytes]:
    return _frame(1, 4, 1, _request_block(place, "POST")), _frame(0, 0, 1, b"")


def _priority(place: Place) -> tuple[bytes, bytes]:
    return _frame(1, 4, 1, _request_block(place, "POST")), _frame(2, 0, 1, b"\0\0\0\0\x10")


# --- many of everything ------------------------------------------------------------------------------------


def _connects(place: Place) -> Iterator[None]:
    yield
    found: list[socket.socket] = []
    # As many at a time as the server's backlog is said to hold: more are dropped by the kernel.
    for number in range(place.size(10_000)):
        connection = socket.socket()
        connection.setblocking(False)
        connection.bind((f"127.0.0.{number % SOURCES + 2}", 0))
        connection.connect_ex(("127.0.0.1", place.port))
        found.append(connection)
    time.sleep(2)


def _producers(place: Place) -> Iterator[None]:
    create(place, "producers", "application/octet-stream")
    path, count = place.path("producers"), place.size(400_000)
    common = ("Content-Type: application/octet-stream", "Producer-Epoch: 0", "Producer-Seq: 0")
    yield
    pipeline(
        place,
        (head("POST", path, f"Producer-Id: p{number}", *common, length=1) + b"x" for number in range(count)),
    )


def _streams(place: Place, count: int, *headers: str) -> Iterator[bytes]:
    tail = ("Content-Type: application/octet-stream", *headers)
    return (head("PUT", place.path(f"many-{number}"), *tail, length=0) for number in range(count))


def _creates(place: Place) -> Iterator[None]:
    yield
    pipeline(place, _streams(place, place.size(600_000)))


def _deletes(place: Place) -> Iterator[None]:
    count = place.size(100_000)
    pipeline(place, _streams(place, count))
    yield
    pipeline(place, (head("DELETE", place.path(f"many-{number}")) for number in range(count)))


def _expiry(place: Place) -> Iterator[None]:
    count = place.size(100_000)
    began = time.monotonic()
    pipeline(place, _streams(place, count, "Stream-TTL: 12"))
    time.sleep(max(0.0, began + 10.5 - time.monotonic()))
    yield
    time.sleep(14)


def _listing(place: Place) -> Iterator[None]:
    pipeline(place, _streams(place, place.size(100_000)))
    admin = int(Path(place.directory, "admin-port").read_text())
    yield
    after = ""
    for _ in range(place.size(100)):
        with socket.create_connection(("127.0.0.1", admin), timeout=60) as connection:
            request = f"GET /admin/streams?limit=1000{after} HTTP/1.0\r\nHost: 127.0.0.1:{admin}\r\n\r\n"
            connection.sendall(request.encode())
            answer = b""
            while received := connection.recv(1 << 20):
                answer += received
        last = json.loads(answer.partition(b"\r\n\r\n")[2])["next"]
        if last is None:
            break
        after = f"&after={last}"


# --- the heavy work of every day ---------------------------------------------------------------------------


def _stored(place: Place, streams: int, messages: int, size: int) -> None:
    """Fill some streams."""
    body = b"x" * size
    for number in range(streams):
        create(place, f"stored-{number}", "application/octet-stream")
        request = head("POST", place.path(f"stored-{number}"), "Content-Type: application/octet-stream", length=size)
        pipeline(place, [request + body] * messages)


def _checkpoint(place: Place) -> Iterator[None]:
    pipeline(place, _streams(place, place.size(50_000)))
    yield
    # Each of these is more than storage.checkpoint_bytes, which the row sets.
    for _ in range(4):
        _stored(place, 1, 12, MB)


def _export(place: Place) -> Iterator[None]:
    _stored(place, place.size(20), 100, 10_000)
    names = [f"--stream=stored-{number}" for number in range(place.size(20))]
    yield
    _command(place, "export", "--output", str(Path(place.directory, "exported.json")), *names)


def _import(place: Place) -> Iterator[None]:
    _stored(place, place.size(20), 100, 10_000)
    names = [f"--stream=stored-{number}" for number in range(place.size(20))]
    document = str(Path(place.directory, "exported.json"))
    _command(place, "export", "--output", document, *names)
    pipeline(place, (head("DELETE", place.path(f"stored-{number}")) for number in range(place.size(20))))
    yield
    _command(place, "import", "--input", document)


def _command(place: Place, *arguments: str) -> None:
    url = f"http://127.0.0.1:{place.port}{place.prefix.rstrip('/')}"
    program = Path(sys.executable).with_name("durable-streams")
    subprocess.run([str(program), *arguments, "--url", url], check=True, stdout=subprocess.DEVNULL, timeout=120)


def _compaction(place: Place) -> Iterator[None]:
    _stored(place, 4, place.size(60), MB)
    yield
    for number in range(4):
        ask(place, "DELETE", f"stored-{number}")
    time.sleep(4)


def _drain(place: Place) -> Iterator[None]:
    create(place, "live", "text/plain", b"x")
    readers = open_many(place, head("GET", place.path("live") + "?offset=now&live=sse"), place.size(5000))
    await_first(readers)
    yield
    os.kill(place.pid, signal.SIGTERM)
    end = time.monotonic() + 10
    for each in readers:
        each.settimeout(max(0.01, end - time.monotonic()))
        try:
            while each.recv(65536):
                pass
        except OSError:
            pass


def _nothing(place: Place) -> Iterator[None]:  # noqa: ARG001
    yield
    time.sleep(3)


def _requests(place: Place) -> Iterator[None]:
    """Ordinary requests, enough to fill a log."""
    create(place, "logged", "application/octet-stream")
    yield
    pipeline(place, [head("HEAD", place.path("logged"))] * place.size(5000), 50)


def _get(path: Callable[[Place], str], method: str = "GET") -> Callable[[Place], bytes]:
    return lambda place: head(method, path(place))


_flooded_heads = _get(lambda place: place.path("flood"), "HEAD")

LOADS: dict[str, Load] = {
    "idle": _nothing,
    "head-pipelined": _pipelined(_flooded_heads),
    "head-pipelined-10": _pipelined(_flooded_heads, 10),
    "health-pipelined": _pipelined(_get(lambda _: "/healthz")),
    "missing-pipelined": _pipelined(_get(lambda place: place.path("missing"))),
    "chunks": _chunks,
    "json-ones": _json(_ones, 9 * MB),
    "json-arrays": _json(_empty_arrays, 9 * MB),
    "json-nested": _json(_nested, 9 * MB),
    "json-object": _json(_object, 9 * MB),
    "json-ones-50mb": _json(_ones, 50 * MB),
    "append-100mb": _large_append(100 * MB),
    "append-10mb": _large_append(9 * MB, 8),
    "stalled-text": _stalled("text/plain", b"x" * 1000),
    "stalled-binary": _stalled("application/octet-stream", b"\xff" * 1000),
    "stalled-newlines": _stalled("text/plain", b"\n" * 1000),
    "catch-up": _catch_up("text/plain", b"x" * MB, 96),
    "catch-up-newlines": _catch_up("text/plain", b"\n" * MB, 9),
    "fan-out-sse": _fan_out("sse"),
    "fan-out-long-poll": _fan_out("long-poll"),
    "h2-ping": _frames(lambda _: (b"", _frame(6, 0, 0, b"\0" * 8))),
    "h2-settings": _frames(lambda _: (b"", _frame(4, 0, 0, b""))),
    "h2-data": _frames(_empty_data),
    "h2-priority": _frames(_priority),
    "h2-window": _frames(lambda _: (b"", _frame(8, 0, 0, b"\0\0\0\x01"))),
    "connects": _connects,
    "producers": _producers,
    "creates": _creates,
    "deletes": _deletes,
    "log-stopped": _requests,
    "checkpoint": _checkpoint,
    "export": _export,
    "import": _import,
    "expiry": _expiry,
    "listing": _listing,
    "compaction": _compaction,
    "drain": _drain,
}


def main() -> None:
    """Do what the arguments say, when it is asked for."""
    name, place = sys.argv[1], Place(**json.loads(sys.argv[2]))
    load = LOADS[name](place)
    next(load)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    next(load, None)
    sys.stdout.write("done\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main()
