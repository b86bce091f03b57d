"""The collector of cyclic garbage in a server's process."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Create, ForkPoint, StreamConfig
from dstreams.protocol.content_types import DEFAULT
from dstreams.protocol.producers import Producer
from dstreams.services.garbage import CHECK_SECONDS, DUE, OVERDUE, QUIET_SHARE, YOUNG_OBJECTS, GarbageService
from tests.support.engine import Engine


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The collector is afterwards what it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@define(eq=False)
class FakeProcess:
    """How busy the process is, and what the collector has to do."""

    used: float = 0.0
    added: int = 0
    collections: int = 0
    clock: Clock = field(factory=Clock)

    def service(self) -> GarbageService:
        return GarbageService(self.clock, lambda: self.used, self.collect, lambda: (0, 0, self.added))

    def collect(self) -> int:
        self.collections += 1
        self.added = 0
        return 0

    def work(self, share: float, added: int) -> None:
        """Until the next check."""
        self.used += share * CHECK_SECONDS
        self.added += added
        self.clock.advance(CHECK_SECONDS)


class GarbageServiceTests:
    """Once the storage is open."""

    def test_what_is_there_is_put_aside(self) -> None:
        """The collector doesn't look at the program."""
        kept = [[] for _ in range(1000)]  # type: ignore[var-annotated]
        FakeProcess().service().startService()
        assert gc.get_freeze_count() > len(kept)

    def test_no_full_collection_by_itself(self) -> None:
        """The young ones are looked at in small portions, all only when the service says so."""
        middle = gc.get_threshold()[1]
        FakeProcess().service().startService()
        young, older, oldest = gc.get_threshold()
        assert (young, older) == (YOUNG_OBJECTS, middle)
        assert oldest > 1_000_000

    def test_quiet_moment(self) -> None:
        """All objects are looked at when clients won't notice, and when there may be something to find."""
        process = FakeProcess()
        process.service().startService()
        process.work(0.0, DUE - 1)
        assert process.collections == 0
        process.work(0.5, 1)
        assert process.collections == 0
        process.work(QUIET_SHARE / 2, 0)
        assert process.collections == 1
        process.work(0.0, 0)
        assert process.collections == 1

    def test_overdue(self) -> None:
        """Without a quiet moment it is done after a while, so that memory is bounded."""
        process = FakeProcess()
        process.service().startService()
        for _ in range(OVERDUE - 1):
            process.work(1.0, 1)
        assert process.collections == 0
        process.work(1.0, 1)
        assert process.collections == 1

    def test_stop(self) -> None:
        """Nothing is left in the reactor at the end."""
        process = FakeProcess()
        service = process.service()
        service.startService()
        process.work(0.0, 0)
        service.stopService()
        assert process.clock.getDelayedCalls() == []


class UntrackedTests:
    """What there may be a million of."""

    def test_streams_and_producers(self) -> None:
        """The collector never looks at streams and their producers, nor at the dictionaries that hold them."""
        catalog, config = Catalog(), StreamConfig(DEFAULT, 60)
        for number in range(100):
            fork = ForkPoint(1, "s1", 0) if number > 1 else None
            catalog.apply(Create(number, f"s{number}", config, fork, b"", (), False, 1.0))
            catalog.apply(Append(number, 0, b"x", (1,), Producer(f"p{number}", 1, 0), b"7", False, 1.0))
        for state in catalog.streams.values():
            assert not any(map(gc.is_tracked, (state, state.config, state.fork, state.producers, state.stream_seq)))
        assert not any(map(gc.is_tracked, catalog.streams.shards))
        assert not any(map(gc.is_tracked, catalog.names.shards))

    def test_memory(self) -> None:
        """Nor at what a stream costs in memory mode, all together."""
        engine = Engine()
        for number in range(3):
            engine.put(f"warm{number}", b"x")
        before = len(gc.get_objects())
        for number in range(100):
            engine.put(f"s{number}", b"")
        assert len(gc.get_objects()) - before < 50
