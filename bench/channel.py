"""Measures what the HTTP/1.1 channel costs, with requests on a fake transport instead of sockets.

Run ``python -m bench.channel`` from the checkout. The application answers immediately, so this measures only
parsing, dispatch and formatting; a reactor's read and write add 10 to 20 us on epoll.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from dstreams.http.http1.channel import HttpChannel, HttpFactory
from dstreams.http.messages import Request, Response
from dstreams.runtime.timers import TimerWheel

_HEAD = b"Host: localhost:4437\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nContent-Type: application/octet-stream\r\n"
_GET = b"GET /v1/stream/bench?offset=-1 HTTP/1.1\r\n" + _HEAD + b"\r\n"
_POST = b"POST /v1/stream/bench HTTP/1.1\r\n" + _HEAD + b"Content-Length: 256\r\n\r\n" + b"x" * 256
_CHUNKED = (
    b"POST /v1/stream/bench HTTP/1.1\r\n"
    + _HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n100\r\n"
    + b"x" * 256
    + b"\r\n0\r\n\r\n"
)


class _Transport:
    """Counts what is written."""

    written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def getPeer(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", 1)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Do nothing: this transport never pauses its producer."""


class _Application:
    """Answers appends with 204 and reads with 200 and 100 bytes; later, if ``waiting`` is given."""

    max_body_bytes = 1 << 20

    def __init__(self, waiting: list[Deferred[Response]] | None = None) -> None:
        self._waiting = waiting

    def validate_head(self, request: Request) -> Response | None:  # noqa: ARG002
        return None

    def respond(self, request: Request) -> Response | Deferred[Response]:
        if self._waiting is not None:
            deferred: Deferred[Response] = Deferred()
            self._waiting.append(deferred)
            return deferred
        if request.method == b"GET":
            return Response(200, b"Content-Type: application/octet-stream\r\n", b"x" * 100)
        return Response(204, b"Stream-Next-Offset: 0000000000000000_0000000000000256\r\n")

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:  # noqa: ARG002
        return Response(status, b"", detail.encode())


def _connect(application: _Application) -> HttpChannel:
    channel = HttpFactory(application, TimerWheel(Clock())).buildProtocol(None)
    assert channel is not None
    channel.makeConnection(_Transport())
    return channel


def _report(name: str, turn: Callable[[], object], per_turn: int, seconds: float) -> None:
    turn()
    best = float("inf")
    turns = max(1, 200 // per_turn)
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        for _ in range(turns):
            turn()
        best = min(best, (time.perf_counter() - start) / (turns * per_turn))
    sys.stdout.write(f"{name:44} {best * 1e6:8.2f} us {1 / best:12,.0f} requests/s\n")


def main() -> None:
    """Measure, and print one line for each kind of request."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seconds", type=float, default=1.0, help="seconds of measurement for each line")
    seconds = options.parse_args().seconds
    sys.stdout.write(f"Python {platform.python_version()}, {platform.machine()}; the best of many rounds\n")
    channel = _connect(_Application())
    for name, data in (
        ("GET, 100 bytes back", _GET),
        ("POST, 256 bytes", _POST),
        ("POST, 256 bytes in a chunk", _CHUNKED),
    ):
        _report(name, lambda data=data: channel.dataReceived(data), 1, seconds)  # type: ignore[misc]
    pipeline = _POST * 16
    _report("POST, 256 bytes, 16 in one segment", lambda: channel.dataReceived(pipeline), 16, seconds)
    head, body = _POST[:-256], _POST[-256:]

    def in_two() -> None:
        channel.dataReceived(head)
        channel.dataReceived(body)

    _report("POST, head and body apart", in_two, 1, seconds)
    waiting: list[Deferred[Response]] = []
    slow = _connect(_Application(waiting))

    def later() -> None:
        slow.dataReceived(_POST)
        waiting.pop().callback(Response(204))

    _report("POST, answered through a Deferred", later, 1, seconds)


if __name__ == "__main__":
    main()
