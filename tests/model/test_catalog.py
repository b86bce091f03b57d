"""The two catalogs: what is durable, and what has been accepted over it."""

from __future__ import annotations

from random import Random

import pytest
from attrs import define, field

from dstreams.model.catalog import AcceptedCatalog, Catalog
from dstreams.model.changes import Append, Change, Create, Delete, ForkPoint, SoftDelete, StreamConfig, Touch, concerned
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import DEFAULT
from dstreams.protocol.producers import Producer

CONFIG = StreamConfig(DEFAULT)


def create(stream_id: int, name: str, source: StreamState | None = None) -> Create:
    fork = None if source is None else ForkPoint(source.id, source.name, source.tail)
    start = 0 if fork is None else fork.position
    return Create(stream_id, name, CONFIG, fork, b"x", (start + 1,), False, 1.0)


def append(state: StreamState, producer: Producer | None = None, closes: bool = False) -> Append:
    return Append(state.id, state.tail, b"yz", (state.tail + 1, state.tail + 2), producer, None, closes, 2.0)


def shown(state: StreamState | None) -> object:
    """Everything that a state tells, comparable."""
    if state is None:
        return None
    producers = {name: state.producer(name) for name in {*(state.base_producers or ()), *(state.producers or ())}}
    assert (state.producer_count(), state.producer_id_bytes()) == (len(producers), sum(map(len, producers)))
    return (
        (state.id, state.name, state.start, state.tail, state.messages, state.size),
        (state.closed, state.closed_by, state.stream_seq, producers),
        (state.forks, state.soft_deleted, state.touched_at, state.updated_at),
    )


@define
class Flight:
    """Random changes, some of them in flight, beside a catalog that has them all."""

    random: Random
    durable: Catalog = field(factory=Catalog)
    accepted: AcceptedCatalog = field(init=False)
    expected: Catalog = field(factory=Catalog)
    pending: list[Change] = field(factory=list)
    committed: list[Change] = field(factory=list)
    last_id: int = 0

    def __attrs_post_init__(self) -> None:
        self.accepted = AcceptedCatalog(self.durable)

    def change(self) -> Change | None:
        """A change that makes sense now."""
        live = [state for state in self.expected.streams.values() if not state.soft_deleted]
        kind = self.random.choice(["create", "append", "append", "produce", "close", "fork", "delete", "touch"])
        if kind == "create" or not live:
            name = self.random.choice("abcd")
            self.last_id += 1
            return None if name in self.expected.names else create(self.last_id, name)
        state = self.random.choice(live)
        if kind == "fork":
            name = self.random.choice("abcdefgh")
            self.last_id += 1
            return None if name in self.expected.names else create(self.last_id, name, state)
        if kind == "touch":
            return Touch(state.id, 3.0)
        if kind == "delete":
            return self.delete(state)
        producer = Producer(self.random.choice("pq"), 0, self.random.randrange(5)) if kind == "produce" else None
        return append(state, producer, kind == "close")

    def delete(self, state: StreamState) -> Change:
        if state.forks:
            return SoftDelete(state.id, 4.0)
        removed, fork = [state.id], state.fork
        while fork is not None:
            source = self.expected.streams[fork.source_id]
            if not source.soft_deleted or source.forks > 1:
                return Delete(tuple(removed), (source.id,), 4.0)
            removed.append(source.id)
            fork = source.fork
        return Delete(tuple(removed), (), 4.0)

    def accept(self) -> None:
        change = self.change()
        if change is not None:
            self.accepted.apply(change)
            self.expected.apply(change)
            self.pending.append(change)

    def commit(self) -> None:
        """Some of what is in flight, from the oldest on, becomes durable."""
        count = self.random.randint(0, len(self.pending))
        for change in self.pending[:count]:
            self.durable.apply(change)
            self.accepted.settle(change)
        self.committed += self.pending[:count]
        self.pending = self.pending[count:]

    def fail(self) -> None:
        """What is in flight is lost."""
        self.accepted.reset()
        self.pending.clear()
        self.expected = Catalog()
        for change in self.committed:
            self.expected.apply(change)

    def compare(self) -> None:
        for name in "abcdefgh":
            assert shown(self.accepted.find(name)) == shown(self.expected.find(name))
        for stream_id in range(1, self.last_id + 1):
            assert shown(self.accepted.get(stream_id)) == shown(self.expected.get(stream_id))


class AcceptedCatalogTests:
    """The accepted catalog tells what all changes together make, wherever commits stand."""

    @pytest.mark.parametrize("seed", range(60))
    def test_as_if_all_were_durable(self, seed: int) -> None:
        """At every moment it agrees with a catalog that holds everything accepted; what is lost is forgotten."""
        random = Random(seed)
        flight = Flight(random)
        for _ in range(120):
            random.choices([flight.accept, flight.commit, flight.fail], [12, 3, 1])[0]()
            flight.compare()
        while flight.pending:
            flight.commit()
        flight.compare()

    @pytest.mark.parametrize("seed", range(20))
    def test_nothing_is_left(self, seed: int) -> None:
        """When everything is durable nothing lies over the durable catalog any more."""
        flight = Flight(Random(seed))
        for _ in range(60):
            flight.accept()
        while flight.pending:
            flight.commit()
        assert not flight.accepted.names
        assert not flight.accepted.streams
        assert {name: shown(state) for name, state in flight.durable.names.items()} == {
            name: shown(state) for name, state in flight.expected.names.items()
        }

    def test_durable_state_is_left_alone(self) -> None:
        """Changes in flight are seen by whoever asks the accepted catalog, and by nobody else."""
        durable = Catalog()
        durable.apply(create(1, "s"))
        accepted = AcceptedCatalog(durable)
        before = shown(durable.find("s"))
        state = accepted.find("s")
        assert state is not None
        accepted.apply(append(state, Producer("p", 0, 0), closes=True))
        accepted.apply(SoftDelete(1, 1.0))
        assert shown(durable.find("s")) == before
        there = accepted.find("s")
        assert there is not None
        assert (there.tail, there.closed, there.soft_deleted) == (3, True, True)
        accepted.reset()
        assert shown(accepted.find("s")) == before


class ConcernedTests:
    """Which streams a change alters."""

    def test_each_kind(self) -> None:
        """Its own, a fork's source, and those that a cascade takes or releases."""
        catalog = Catalog()
        catalog.apply(create(1, "s"))
        source = catalog.streams[1]
        assert concerned(create(2, "f", source)) == (2, 1)
        assert concerned(create(2, "f")) == (2,)
        assert concerned(append(source)) == (1,)
        assert concerned(Delete((3, 2), (1,), 1.0)) == (3, 2, 1)
        assert concerned(SoftDelete(1, 1.0)) == concerned(Touch(1, 1.0)) == (1,)
