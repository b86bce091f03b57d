"""A client that asks for little and notes how long it waits, in a process of its own.

Run as ``python -m bench.pinger PORT PATH TLS``: it sends one ``HEAD`` each 25 ms on one connection. It obeys commands
on standard input, one in a line, and answers each with a line of JSON: ``reset`` forgets the waits so far, ``report``
returns them (:class:`Waits`), ``quiet`` answers when some pings in a row were answered at once.

A wait counts from the time when the ping was due, not from when it could be sent: while one answer is late, those
that should have been asked for meanwhile are late too.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import asdict, define, field, frozen

from bench.servers import RunningServer
from bench.workload import LoadFailure

INTERVAL = 0.025
"""Seconds between pings."""

PATIENCE = 120.0
"""Seconds to wait for an answer."""

_QUIET_MS = 10.0
_QUIET_PINGS = 8
"""The server is quiet when so many pings in a row were answered within ``_QUIET_MS``."""

_QUIET_SECONDS = 15.0
"""How long to wait for that, at most."""


@frozen
class Waits:
    """How long the pings waited, in milliseconds.

    :param closed: whether the server has ended the connection; nothing was sent after that.
    """

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    closed: bool


def summary(waits: list[float], *, closed: bool) -> Waits:
    """Sum up waits, given in milliseconds.

    :raise ValueError: there is none.
    """
    if not waits:
        raise ValueError("no ping was answered")
    ordered = sorted(waits)
    last = len(ordered) - 1
    return Waits(len(ordered), ordered[round(last * 0.5)], ordered[round(last * 0.99)], ordered[last], closed)


def waits_of(due: float, answered: float) -> list[float]:
    """The waits that end with one answer, in milliseconds: of its ping, and of those that were due meanwhile.

    :param due: when the ping should have been sent, in seconds.
    """
    count = max(1, int((answered - due) / INTERVAL) + 1)
    return [(answered - due - number * INTERVAL) * 1000 for number in range(count)]


@define(eq=False)
class _Pinger:
    _socket: socket.socket
    _request: bytes
    _waits: list[float] = field(factory=list)
    _quiet: int = 0
    _closed: bool = False
    _due: float = field(factory=time.monotonic)

    def run(self) -> None:
        """Ping until the input ends."""
        while True:
            now = time.monotonic()
            left = None if self._closed else max(0.0, self._due - now)
            if select.select([sys.stdin], [], [], left)[0]:
                line = sys.stdin.readline()
                if not line:
                    return
                self._obey(line.strip())
            elif not self._closed:
                self._ping()

    def _ping(self) -> None:
        # A process that was not scheduled in time doesn't blame the server.
        self._due = max(self._due, time.monotonic() - INTERVAL / 5)
        try:
            self._socket.sendall(self._request)
            answer = b""
            while b"\r\n\r\n" not in answer:
                received = self._socket.recv(65536)
                if not received:
                    self._closed = True
                    return
                answer += received
        except OSError:
            self._closed = True
            return
        answered = time.monotonic()
        waits = waits_of(self._due, answered)
        self._waits += waits
        self._quiet = self._quiet + 1 if waits[0] < _QUIET_MS else 0
        self._due += INTERVAL * len(waits)
        if b"\r\nconnection: close" in answer.lower():
            self._closed = True

    def _obey(self, command: str) -> None:
        answer: dict[str, object] = {}
        if command == "reset":
            self._waits.clear()
        elif command == "quiet":
            self._quiet, end = 0, time.monotonic() + _QUIET_SECONDS
            while self._quiet < _QUIET_PINGS and not self._closed and time.monotonic() < end:
                time.sleep(max(0.0, self._due - time.monotonic()))
                self._ping()
        else:
            answer = asdict(summary(self._waits, closed=self._closed))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


@define(eq=False)
class Pinger:
    """A pinger's process, from here."""

    _process: subprocess.Popen[str]

    def reset(self) -> None:
        """Forget the waits so far."""
        self._ask("reset")

    def await_quiet(self) -> None:
        """Wait until the server answers at once, some seconds at most."""
        self._ask("quiet")

    def report(self) -> Waits:
        """The waits since the last reset.

        :raise LoadFailure: there is none.
        """
        return Waits(**self._ask("report"))

    def _ask(self, command: str) -> dict[str, object]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise LoadFailure("the pinger has ended: no ping was answered")
        answer: dict[str, object] = json.loads(line)
        return answer


@contextmanager
def pinging(server: RunningServer, name: str, *, tls: bool) -> Iterator[Pinger]:
    """A process that pings a stream which exists."""
    command = [sys.executable, "-m", "bench.pinger", str(server.port), server.path(name), "tls" if tls else "plain"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Pinger(process)
    finally:
        process.kill()
        process.communicate()


def dial(port: int, *, tls: bool, protocol: str = "http/1.1") -> socket.socket:
    """Connect to a server on this machine; its certificate isn't verified."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not tls:
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(plain)


def main() -> None:
    """Ping as the arguments say."""
    port, path, kind = sys.argv[1:]
    request = f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    _Pinger(dial(int(port), tls=kind == "tls"), request).run()


if __name__ == "__main__":
    main()
