"""Sends single requests or many of them: creates and fills streams before a run, in the same way for every server."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable, Container, Iterator
from typing import cast

import httptools
from attrs import define, field

from bench.loops import run_in_loop
from bench.servers import RunningServer
from bench.workload import LoadFailure

STREAM_PREFIX = "bench-"
"""The first part of streams' names; a number follows."""

CONTENT_TYPE = "application/octet-stream"

CONNECTIONS = 32
"""The number of connections that share the work."""

CREATED = (201,)
SUCCESS = range(200, 300)


def request_bytes(
    server: RunningServer, method: str, name: str, body: bytes = b"", content_type: str = CONTENT_TYPE
) -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {server.path(name)} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def create_streams(
    server: RunningServer,
    count: int,
    body: bytes = b"",
    connections: int = CONNECTIONS,
    progress: Callable[[int], object] = lambda _: None,
    first: int = 0,
) -> None:
    """Create the streams from number ``first`` up to ``count``, over several connections.

    :param body: the initial content of each stream.
    :param progress: called from time to time with the number of streams created.
    :raise LoadFailure: if one of them is not created.
    """
    mark = b"@number@"
    before, after = request_bytes(server, "PUT", STREAM_PREFIX + mark.decode(), body).split(mark)

    def requests() -> Iterator[bytes]:
        for number in range(first, count):
            if not number % 1000:
                progress(number)
            yield b"%b%d%b" % (before, number, after)

    send_all(server, requests(), min(connections, count - first), CREATED)


def fill_stream(server: RunningServer, name: str, messages: int, message_bytes: int) -> None:
    """Create a stream, and append to it message by message.

    :raise LoadFailure: if a request is not answered with the right status.
    """
    expect_success(server, "PUT", name)
    append = request_bytes(server, "POST", name, b"x" * message_bytes)
    send_all(server, iter([append] * messages), 1, SUCCESS)


def append_once(server: RunningServer) -> None:
    """Append a byte to stream 0.

    :raise LoadFailure: if the response is not 2xx.
    """
    expect_success(server, "POST", f"{STREAM_PREFIX}0", b"x")


def expect_success(
    server: RunningServer, method: str, name: str, body: bytes = b"", content_type: str = CONTENT_TYPE
) -> None:
    """Send one request.

    :raise LoadFailure: if the response is not 2xx.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, server.path(name), body, {"Content-Type": content_type})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        raise LoadFailure(f"{method} failed: {error!r}") from error
    finally:
        connection.close()
    if response.status not in SUCCESS:
        raise LoadFailure(f"{method} was answered with {response.status}")


def send_all(server: RunningServer, requests: Iterator[bytes], connections: int, expected: Container[int]) -> None:
    """Send requests over several connections, each sending its next request after the response to the last one.

    :param expected: the allowed statuses of responses.
    :raise LoadFailure: at the first response with another status, or if a connection breaks.
    """

    async def work() -> None:
        loop = asyncio.get_running_loop()
        shared = _Shared(requests, expected, loop.create_future(), connections)
        transports = []
        try:
            for _ in range(connections):
                transport, _ = await loop.create_connection(lambda: _Connection(shared), "127.0.0.1", server.port)
                transports.append(transport)
            await shared.done
        finally:
            for transport in transports:
                transport.abort()

    try:
        run_in_loop(work())
    except OSError as error:
        raise LoadFailure(f"sending requests failed: {error!r}") from error


@define(eq=False)
class _Shared:
    """The state that all connections share.

    :param done: resolved when all requests have been answered.
    :param busy: the number of connections with requests left.
    """

    requests: Iterator[bytes]
    expected: Container[int]
    done: asyncio.Future[None]
    busy: int

    def fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadFailure(why))

    def finished(self) -> None:
        self.busy -= 1
        if not self.busy and not self.done.done():
            self.done.set_result(None)


@define(eq=False)
class _Connection(asyncio.Protocol):
    """One connection; httptools calls it for each response."""

    _shared: _Shared
    _transport: asyncio.Transport = field(init=False)
    _parser: httptools.HttpResponseParser = field(init=False)
    _request: bytes = field(default=b"", init=False)
    _finished: bool = field(default=False, init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._next()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._shared.fail(f"an answer isn't HTTP: {error}")

    def on_message_complete(self) -> None:
        """Handle a complete response (httptools)."""
        status = self._parser.get_status_code()
        if status in self._shared.expected:
            self._next()
        else:
            method, path = self._request[:500].split(b" ")[:2]
            self._shared.fail(f"{method.decode()} of {path.decode()} was answered with {status}")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if not self._finished:
            self._shared.fail(f"a connection broke: {exc or 'the server closed it'}")

    def _next(self) -> None:
        if self._shared.done.done():
            return
        self._request = next(self._shared.requests, b"")
        if self._request:
            self._transport.write(self._request)
        else:
            self._finished = True
            self._transport.close()
            self._shared.finished()
