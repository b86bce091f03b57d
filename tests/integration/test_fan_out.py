"""A thousand readers of each kind, and one that stalls."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
import treq
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.web.client import HTTPConnectionPool

from tests.integration.readers import LongPollReader, Making, Progress, SseReader, StalledReader
from tests.support.servers import twistd_server

MANY_CLIENTS = pytest.mark.long_turns(
    reason="thousands of clients act at once, and libuv hands out all ready sockets in one turn"
)

READERS = 1000
"""Of each kind."""

APPENDS = 200

PATIENCE = 240
"""Seconds for everybody to get everything; on a quiet machine it takes about ten."""


@pytest.mark.slow
@MANY_CLIENTS
@pytest_twisted.ensureDeferred
async def test_every_reader_gets_every_append(tmp_path: Path) -> None:
    """1,000 SSE readers and 1,000 long-polls get each of 200 appends once and in order; a stalled one delays nobody."""
    from twisted.internet import reactor

    pool = HTTPConnectionPool(reactor)
    # No rotation: a slow machine may need longer than a minute, and these readers don't come back.
    forever = {"DS_TRANSPORT__CONNECTION__SSE_RECONNECT_INTERVAL_SECS": "0"}
    with twistd_server(tmp_path, environ=forever) as server:
        path = "/v1/stream/fan-out"
        url = server.url + path
        created = await treq.put(url, headers={"Content-Type": "application/json"}, pool=pool)
        await created.content()
        assert created.code == 201
        progress = Progress(APPENDS, 2 * READERS)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port, timeout=60)
        protocols = [SseReader(path, progress) for _ in range(READERS)]
        protocols += [LongPollReader(path, progress) for _ in range(READERS)]
        for start in range(0, len(protocols), 100):
            batch = protocols[start : start + 100]
            await gatherResults([endpoint.connect(Making(protocol)) for protocol in batch])
        stalled = StalledReader(path)
        await endpoint.connect(Making(stalled))
        for number in range(APPENDS):
            answer = await treq.post(
                url, data=f"{number}".encode(), headers={"Content-Type": "application/json"}, pool=pool
            )
            await answer.content()
            assert answer.code == 204
        await progress.done.addTimeout(PATIENCE, reactor)
        assert progress.errors == []
        for protocol in protocols:
            protocol.transport.abortConnection()  # type: ignore[union-attr]
        stalled.transport.abortConnection()  # type: ignore[union-attr]
    await pool.closeCachedConnections()


@pytest.mark.slow
@MANY_CLIENTS
@pytest_twisted.ensureDeferred
async def test_stalled_reader_costs_no_memory(tmp_path: Path) -> None:
    """What a reader doesn't take isn't kept for it: the server's memory stays within a few megabytes."""
    from twisted.internet import reactor

    pool = HTTPConnectionPool(reactor)
    limits = {"DS_LIMITS__MAX_STREAM_BYTES": "200000000", "DS_LIMITS__MAX_MEMORY_BYTES": "400000000"}
    with twistd_server(tmp_path, environ=limits) as server:
        path = "/v1/stream/stalled"
        headers = {"Content-Type": "text/plain"}
        await (await treq.put(server.url + path, headers=headers, pool=pool)).content()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
        stalled = [StalledReader(path) for _ in range(50)]
        await gatherResults([endpoint.connect(Making(each)) for each in stalled])
        before = _resident_bytes(server.process.pid)
        stored = 0
        for _ in range(40):
            body = b"y" * 1_000_000
            await (await treq.post(server.url + path, data=body, headers=headers, pool=pool)).content()
            stored += len(body)
        grown = _resident_bytes(server.process.pid) - before
        # The stream itself, an eighth of slack in its buffer, and a bounded piece for each reader.
        assert grown < stored * 1.3 + len(stalled) * 1_500_000
        for each in stalled:
            each.transport.abortConnection()  # type: ignore[union-attr]
    await pool.closeCachedConnections()


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
