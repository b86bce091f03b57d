"""Holds thousands of SSE connections in a separate process, and records when each event arrives.

Run as ``python -m bench.readers PORT PATH SOURCE``: it reads commands from standard input, one per line, and
answers each with a line of JSON. ``connect N`` opens N more connections and waits until all have a response; ``reset``
resets the counts of deliveries; ``report`` returns them; the process ends at the end of the input.

An event's text begins with ``@@`` and the time when its append began, in microseconds of the monotonic clock,
which all processes share. Parsing it is nearly all of the work for an event: about 3 us with uvloop, less
than any of the servers needs to send it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
import time
from array import array
from collections import Counter
from typing import cast

from attrs import define, field

from bench.loops import run_in_loop

MARK = b"@@"
_DIGITS = 16
EVENT_BYTES = 100
"""The size of an event's text."""

AT_ONCE = 32
"""Maximum number of connections that wait for their first response. A server's queue for new connections may hold only
50; if it is full, the kernel drops connection attempts, and the client retries after a second."""

_IP_BIND_ADDRESS_NO_PORT = 24
"""A constant of Linux, see ip(7); Python before 3.12 has no name for it."""

_clock = time.monotonic_ns


def event_text(now_us: int) -> bytes:
    """Return the text to append: the time, padded with x's."""
    return b"%b%0*d" % (MARK, _DIGITS, now_us) + b"x" * (EVENT_BYTES - len(MARK) - _DIGITS)


@define(eq=False)
class Tally:
    """What all connections of this process have received.

    :param latencies: microseconds from the start of the append, one for each delivery.
    :param lost: the number of connections that have ended.
    """

    latencies: array[int] = field(factory=lambda: array("q"))
    lost: int = 0
    errors: list[str] = field(factory=list)

    def report(self) -> dict[str, object]:
        """Return what has been delivered since the last reset."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "delivered": len(self.latencies),
            "lost": self.lost,
            "errors": self.errors[:3],
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "latencies": Counter(map(rounded, self.latencies)),
        }


def rounded(latency_us: int) -> int:
    """Round to three digits, which are precise enough and keep the report short."""
    if latency_us < 1000:
        return latency_us
    step = 10 ** (len(str(latency_us)) - 3)
    return latency_us // step * step


@define(eq=False)
class SseConnection(asyncio.Protocol):
    """One reader.

    :param ready: resolved when the response's head has arrived.
    """

    _request: bytes
    _tally: Tally
    ready: asyncio.Future[None]
    _rest: bytes = field(default=b"", init=False)
    _is_ready: bool = field(default=False, init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now = _clock() // 1000
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not self._is_ready:
            self._take_head(data)
            return
        at = data.find(MARK)
        while at >= 0:
            end = at + 18  # the mark and its digits
            if end > len(data):
                self._rest = data[at:]
                return
            self._tally.latencies.append(now - int(data[at + 2 : end]))
            at = data.find(MARK, end)
        if data.endswith(b"@"):
            self._rest = b"@"

    def _take_head(self, data: bytes) -> None:
        head, separator, _ = data.partition(b"\r\n\r\n")
        if not separator:
            self._rest = data
        elif head.split(b" ", 2)[1] != b"200":
            self._fail(head.partition(b"\r\n")[0].decode("latin-1"))
        else:
            # The rest is the first control event, because nothing has been appended yet.
            self._is_ready = True
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._tally.lost += 1
        self._fail(f"a connection ended: {exc or 'the server closed it'}")

    def _fail(self, why: str) -> None:
        self._tally.errors.append(why)
        if not self.ready.done():
            self.ready.set_result(None)


@define(eq=False)
class Readers:
    """The connections of this process."""

    _port: int
    _path: str
    _source: str
    _tally: Tally = field(factory=Tally, init=False)
    _connections: list[SseConnection] = field(factory=list, init=False)

    async def connect(self, count: int) -> int:
        """Open ``count`` more, and return the new total."""
        while count > 0:
            await asyncio.gather(*(self._connect_one() for _ in range(min(AT_ONCE, count))))
            count -= AT_ONCE
        return len(self._connections)

    async def _connect_one(self) -> None:
        loop = asyncio.get_running_loop()
        request = f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode()
        connection = SseConnection(request, self._tally, loop.create_future())
        await loop.create_connection(lambda: connection, sock=await self._dial(loop))
        await connection.ready
        self._connections.append(connection)

    async def _dial(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """Connect from this process's own source address, because one address has ports for only 28,000 connections."""
        dialled = socket.socket()
        try:
            dialled.setblocking(False)
            if self._source:
                # Choose the port only when the destination is known; otherwise a port used for another server in the
                # last minute would not be available.
                dialled.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                dialled.bind((self._source, 0))
            await loop.sock_connect(dialled, ("127.0.0.1", self._port))
        except BaseException:
            dialled.close()
            raise
        return dialled

    async def obey(self, command: str) -> dict[str, object]:
        """Execute a command."""
        word, _, argument = command.partition(" ")
        if word == "connect":
            count = await self.connect(int(argument))
            return {"connected": count, "errors": self._tally.errors[:3]}
        if word == "reset":
            self._tally.latencies = array("q")
            return {}
        if word == "report":
            return self._tally.report()
        raise ValueError(f"there is no command {word!r}")


async def _serve(readers: Readers) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        try:
            answer = await readers.obey(line.decode().strip())
        except OSError as error:
            answer = {"errors": [f"connecting failed: {error!r}"]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Execute commands until the end of the input."""
    port, path, source = sys.argv[1:]
    run_in_loop(_serve(Readers(int(port), path, source)))


if __name__ == "__main__":
    main()
