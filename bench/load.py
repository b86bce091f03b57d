"""The load: streams made beforehand, and requests by wrk, the same for every server.

wrk (https://github.com/wg/wrk, Debian's package ``wrk``) keeps a number of connections busy: each sends its
next request when the answer to the last has come. ``requests.lua`` says what it sends.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import field, frozen

from bench.servers import RunningServer

CELL_BYTES = 2_000_000_000
"""As much as one run may send, warm-up included."""

FASTEST = 300_000
"""More requests per second than wrk can send: below that a run in time can't reach its limit in bytes."""

STREAM_PREFIX = "bench-"
"""What streams' names begin with; their number follows."""

CONTENT_TYPE = "application/octet-stream"

_SCRIPT = Path(__file__).with_name("requests.lua")

_ERRORS = ("refused", "connect", "read", "write", "timeout")


class LoadFailure(Exception):
    """The load couldn't be made; the text says why."""


@frozen
class Workload:
    """What is sent.

    :param key: a short name for files and the command line.
    :param title: what people call it.
    :param connections: how many are kept busy.
    :param streams: how many streams are appended to, in turn; 0: each request creates one.
    :param body_bytes: the length of each body.
    """

    key: str
    title: str
    connections: int
    streams: int
    body_bytes: int

    @property
    def creates(self) -> bool:
        """Whether it creates streams, instead of appending."""
        return self.streams == 0


@frozen
class Load:
    """What came of a run.

    :param requests: how many were answered.
    :param p50_us: the median time until an answer, in microseconds.
    :param errors: how many went wrong, by kind: ``refused`` (answered, but not with 2xx), ``connect``,
        ``read``, ``write``, ``timeout``.
    """

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    max_us: int
    errors: dict[str, int] = field(factory=dict)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds


def parse_load(output: str) -> Load:
    """The result that ``requests.lua`` printed.

    :raise LoadFailure: when there is none.
    """
    for line in reversed(output.splitlines()):
        word, _, result = line.partition(" ")
        if word == "RESULT":
            given = json.loads(result)
            errors = {kind: given.pop(kind) for kind in _ERRORS}
            return Load(**given, errors={kind: count for kind, count in errors.items() if count})
    raise LoadFailure(f"wrk gave no result: {output.strip()[-200:]}")


def limit(body_bytes: int, seconds: int, most_bytes: int) -> int:
    """How many requests may be sent, 0 for any number.

    There is a limit only where it can be reached: counting costs wrk a little for each request.
    """
    if body_bytes * FASTEST * seconds <= most_bytes:
        return 0
    return max(1, most_bytes // body_bytes)


def wrk_threads() -> int:
    """With how many threads wrk runs: it leaves half of the machine to the server."""
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def drive(
    server: RunningServer,
    workload: Workload,
    seconds: int,
    first: int,
    most_bytes: int,
    *,
    wrapper: Sequence[str] = (),
) -> Load:
    """Send requests for a time.

    :param first: the number of the first stream to create.
    :param most_bytes: end earlier when as many bytes have been sent.
    :param wrapper: a command that is to run wrk.
    :raise LoadFailure:
    """
    threads = min(wrk_threads(), workload.connections)
    most = limit(workload.body_bytes, seconds, most_bytes)
    command = [
        *wrapper,
        "wrk",
        f"-t{threads}",
        f"-c{workload.connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
    ]
    command += ["-s", str(_SCRIPT), server.origin, "--"]
    command += ["create" if workload.creates else "append", server.path(STREAM_PREFIX), str(workload.streams)]
    command += [str(first), str(workload.body_bytes), str(-(-most // threads))]
    if shutil.which("wrk") is None:
        raise LoadFailure("there is no wrk; on Debian: apt-get install wrk")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadFailure(f"wrk ended with status {done.returncode}: {done.stderr.strip()[-200:]}")
    return parse_load(done.stdout)


def create_streams(
    server: RunningServer,
    count: int,
    body: bytes = b"",
    connections: int = 32,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Create streams number 0 up to ``count``, over several connections.

    :param body: what each of them holds at first.
    :param progress: told now and then how many there are.
    :raise LoadFailure: when one of them isn't created.
    """
    numbers = _Numbers(count, progress)
    faults: list[str] = []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            for number in numbers:
                status = _request(connection, "PUT", server.path(f"{STREAM_PREFIX}{number}"), body)
                if status != 201:
                    faults.append(f"creating stream {number} was answered with {status}")
                if faults:
                    return
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"creating streams failed: {error!r}")
        finally:
            connection.close()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(connections, count))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise LoadFailure(faults[0])


def append_once(server: RunningServer) -> None:
    """Append a byte to stream 0.

    :raise LoadFailure: when that isn't answered with 2xx.
    """
    expect_success(server, "POST", f"{STREAM_PREFIX}0", b"x")


def expect_success(server: RunningServer, method: str, name: str, body: bytes = b"") -> None:
    """Send one request.

    :raise LoadFailure: when it isn't answered with 2xx.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        status = _request(connection, method, server.path(name), body)
    except (OSError, http.client.HTTPException) as error:
        raise LoadFailure(f"{method} failed: {error!r}") from error
    finally:
        connection.close()
    if not 200 <= status <= 299:
        raise LoadFailure(f"{method} was answered with {status}")


def _request(connection: http.client.HTTPConnection, method: str, path: str, body: bytes) -> int:
    connection.request(method, path, body, {"Content-Type": CONTENT_TYPE})
    response = connection.getresponse()
    response.read()
    return response.status


class _Numbers:
    """0 up to ``count``, each given to one of several threads."""

    def __init__(self, count: int, progress: Callable[[int], object]) -> None:
        self._next, self._count, self._progress = 0, count, progress
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._lock:
            number = self._next
            if number >= self._count:
                raise StopIteration
            self._next += 1
            if not number % 1000:
                self._progress(number)
        return number
