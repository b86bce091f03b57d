"""The ``acid`` mode with real threads: commits, reads, checkpoints and purges at the same time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest_twisted
from attrs import define
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from dstreams.protocol.content_types import parse_content_type
from dstreams.runtime.pending import as_deferred
from dstreams.runtime.timers import TimerWheel
from dstreams.storage.acid import AcidStorage
from dstreams.streams.appending import AppendRequest
from dstreams.streams.creating import CreateRequest
from dstreams.streams.limits import StoreLimits
from dstreams.streams.streams import Streams
from tests.storage.acid_stores import unsynced

PLAIN = parse_content_type(b"text/plain")
WRITERS, STREAMS, APPENDS = 24, 8, 20


def opened(directory: Path, reactor: Any) -> tuple[Streams, AcidStorage]:
    """Streams in a store that uses the reactor's threads."""
    run = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    # Hardly anything stays in memory: the reads below go to the shards.
    store = AcidStorage(str(directory), 4, run, connect=unsynced, recent_bytes=3_000)
    streams = Streams(store, TimerWheel(reactor), StoreLimits(1 << 40, 1 << 40))
    streams.open()
    store._maintenance._limit = 60
    return streams, store


async def value(outcome: Any) -> Any:
    """What an operation gives, now or later."""
    return await as_deferred(outcome)


async def create(streams: Streams, name: str) -> None:
    await value(streams.create(CreateRequest(name, PLAIN, None, None, False, None, 0, b"")))


async def read_all(streams: Streams, name: str, limit: int) -> bytes:
    """A stream's content, as a client catches up."""
    content = b""
    while True:
        taken = await value(streams.read(streams.find(name), len(content), limit))
        if not len(taken):
            return content
        content += await value(taken.read(taken.start, taken.end))


def check(content: bytes, *, complete: bool) -> None:
    """A stream's content is whole messages, each writer's in order."""
    assert content == b"" or (content[:1], content[-1:]) == (b"<", b">")
    last: dict[bytes, int] = {}
    for message in content[1:-1].split(b"><") if content else ():
        writer, _, number = message.rstrip(b"-").partition(b".")
        assert int(number) == last.get(writer, -1) + 1
        last[writer] = int(number)
    if complete:
        assert list(last.values()) == [APPENDS - 1] * (WRITERS // STREAMS)


@define(eq=False)
class Clients:
    """Clients of one server.

    :param writing: whether there is more to come.
    """

    streams: Streams
    reactor: Any
    writing: bool = True

    async def append(self, name: str, body: bytes) -> None:
        await value(self.streams.append(name, AppendRequest(b"text/plain", False, None, None), body))

    async def write(self, writer: int) -> None:
        """Append numbered messages, longer and longer."""
        for number in range(APPENDS):
            await self.append(f"s{writer % STREAMS}", b"<%d.%d%s>" % (writer, number, b"-" * (number * 90)))

    async def read(self, reader: int) -> int:
        """Read a stream from its beginning, again and again; how often."""
        turns = 0
        while self.writing:
            check(await read_all(self.streams, f"s{reader % STREAMS}", 1 + 700 * reader), complete=False)
            turns += 1
            await deferLater(self.reactor, 0)  # an empty stream is read without waiting
        return turns

    async def come_and_go(self) -> int:
        """Make a stream, and read it after it was deleted, again and again; how often."""
        turns, body = 0, b"z" * 300_000
        while self.writing:
            await create(self.streams, "brief")
            await self.append("brief", body)
            taken = await value(self.streams.read(self.streams.find("brief"), 0, 1 << 30))
            await value(self.streams.delete("brief"))
            assert await value(taken.read(0, len(body))) == body
            turns += 1
        return turns


@pytest_twisted.ensureDeferred
async def test_everything_at_once(tmp_path: Path) -> None:
    """Writers and readers of the same streams go on together, while others are made and deleted.

    A reader sees a prefix of whole messages in the writers' order, and all is there after a restart.
    """
    from twisted.internet import reactor

    streams, store = opened(tmp_path, reactor)
    await gatherResults([Deferred.fromCoroutine(create(streams, f"s{number}")) for number in range(STREAMS)])
    clients = Clients(streams, reactor)
    readers = gatherResults([Deferred.fromCoroutine(clients.read(reader)) for reader in range(4)])
    others = Deferred.fromCoroutine(clients.come_and_go())
    await gatherResults([Deferred.fromCoroutine(clients.write(writer)) for writer in range(WRITERS)])
    clients.writing = False
    assert min(await readers) > 0
    assert await others > 0
    while store._maintenance.purging:
        await create(streams, "nudge")
        await value(streams.delete("nudge"))
        await deferLater(reactor, 0.001)
    before = {f"s{number}": await read_all(streams, f"s{number}", 10_000) for number in range(STREAMS)}
    for content in before.values():
        check(content, complete=True)
    assert store.failure is None
    await streams.close()

    streams, store = opened(tmp_path, reactor)
    assert {name: await read_all(streams, name, 1 << 30) for name in before} == before
    assert store.problems() == []
    await streams.close()
