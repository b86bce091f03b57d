"""From changes to what must be written in which shard. Pure: reads the state, alters nothing."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final, TypeGuard
from zlib import crc32

from attrs import define, field

from dstreams.model.catalog import AcceptedCatalog, AnyCatalog, Catalog
from dstreams.model.changes import Append, Change, Create, Delete, concerned
from dstreams.model.state import StreamState
from dstreams.storage import stream_rows
from dstreams.storage.acid.chunks import Addition, Large, OpenRun, Row, place
from dstreams.storage.acid.tails import Tails
from dstreams.storage.stream_rows import StreamRow

PAGE_BYTES: Final = 4096


def home(name: str, shard_count: int) -> int:
    """The shard of a stream that is no fork."""
    return crc32(name.encode()) & (shard_count - 1)


@define(eq=False)
class Batch:
    """What a group writes in one shard, in the order of the fields.

    :param last_id: no stream that the group deletes has a higher id.
    :param removed: deleted streams that were stored.
    :param created: new streams.
    :param changed: what has changed of other streams, as ``stream_rows.stream_values`` says. Not of one that only got
        bytes: its chunks say so.
    :param producers: new and changed producers of streams that aren't new.
    :param replaced: (stream id, position): chunks that begin there or beyond go.
    :param chunks: new chunks.
    :param large: what is cut into chunks while it is written.
    """

    shard: int
    last_id: int = 0
    removed: list[int] = field(factory=list)
    created: list[StreamRow] = field(factory=list)
    changed: list[tuple[Any, ...]] = field(factory=list)
    producers: list[tuple[int, str, int, int]] = field(factory=list)
    replaced: list[tuple[int, int]] = field(factory=list)
    chunks: list[Row] = field(factory=list)
    large: list[Large] = field(factory=list)

    @property
    def chunk_count(self) -> int:
        """How many chunks it adds."""
        return len(self.chunks) + sum(each.count for each in self.large)

    @property
    def pages(self) -> int:
        """About how many database pages it writes."""
        rows = len(self.removed) + len(self.created) + len(self.changed) + self.chunk_count
        full = sum((len(row[3]) + len(row[4])) // PAGE_BYTES for row in self.chunks)
        return 2 + rows + full + sum(each.stored_bytes // PAGE_BYTES for each in self.large)


@define(eq=False)
class Group:
    """One commit.

    :param batches: what it writes, by shard.
    :param runs: the open runs of its streams afterwards.
    :param forks: the shards of its new forks.
    :param grows: whether it adds streams or bytes; what doesn't may use the last space of a disk.
    """

    changes: Sequence[Change]
    batches: dict[int, Batch] = field(factory=dict)
    runs: dict[int, OpenRun] = field(factory=dict)
    forks: dict[int, int] = field(factory=dict)
    grows: bool = False


@define(eq=False)
class Planner:
    """Plans commits.

    :param catalog: the committed state.
    :param fork_shards: the shards of all forks.
    """

    _catalog: Catalog
    _shard_count: int
    _tails: Tails
    _fork_shards: dict[int, int]

    def plan(self, changes: Sequence[Change]) -> Group:
        """Work out what to write, so that afterwards the shards say what the state will be."""
        group = Group(changes)
        after = _After(self._catalog)
        additions: dict[int, Addition] = {}
        plain: dict[int, list[Append]] = {}
        for change in changes:
            if isinstance(change, Append | Create) and change.data:
                self._add(additions, change)
            if self._is_plain(change, after):
                plain.setdefault(change.stream_id, []).append(change)
                continue
            for stream_id in concerned(change):
                # No longer plain: its row is written, and has to say all of it.
                for append in plain.pop(stream_id, ()):
                    after.alter(append)
            after.alter(change)
            if isinstance(change, Delete):
                self._delete(group, change, after)
        for stream_id, appends in plain.items():
            batch = self._batch(group, self._catalog.streams[stream_id], after)
            self._place(group, batch, stream_id, additions[stream_id])
            batch.producers += _producer_rows(appends)
        for stream_id in after.altered:
            self._alter(group, after, stream_id, additions.get(stream_id))
        return group

    def _alter(self, group: Group, after: _After, stream_id: int, addition: Addition | None) -> None:
        state = after.streams[stream_id]
        if not state.removed:
            batch = self._batch(group, state, after)
            self._write(group, batch, state)
            if addition is not None:
                self._place(group, batch, stream_id, addition)

    def _add(self, additions: dict[int, Addition], change: Append | Create) -> None:
        addition = additions.get(change.stream_id)
        if addition is None:
            state = self._catalog.streams.get(change.stream_id)
            number = 0 if state is None else state.messages
            addition = additions[change.stream_id] = Addition(change.start, number)
        addition.add(change)

    def _is_plain(self, change: Change, after: _After) -> TypeGuard[Append]:
        """Whether a change alters nothing of a stream but what its chunks say too, and a producer."""
        if not isinstance(change, Append) or change.closes or change.stream_seq is not None or not change.data:
            return False
        return change.stream_id in self._catalog.streams and change.stream_id not in after.streams

    def _delete(self, group: Group, change: Delete, after: _After) -> None:
        for stream_id in change.stream_ids:
            batch = self._batch(group, after.streams[stream_id], after)
            batch.last_id = max(batch.last_id, stream_id)
            # One that was created in this very group was never stored; what remains is that its id was used.
            if stream_id in self._catalog.streams:
                batch.removed.append(stream_id)

    def _write(self, group: Group, batch: Batch, state: StreamState) -> None:
        producers = state.producers
        if state.id in self._catalog.streams:
            batch.changed.append(stream_rows.stream_values(state))
            if producers:
                batch.producers += stream_rows.producer_rows(state, producers)
            return
        batch.created.append(stream_rows.row(state, producers or ()))
        group.grows = True
        if state.fork is not None:
            group.forks[state.id] = batch.shard

    def _place(self, group: Group, batch: Batch, stream_id: int, new: Addition) -> None:
        tail = self._tails.get(stream_id)
        if tail is not None and tail.has_run:
            run, earlier = tail.run, tail.run_bytes
        else:
            run, earlier = OpenRun(new.start, new.number, 0), _nothing
        placed = place(stream_id, run, earlier, new)
        if placed.replaced_from is not None:
            batch.replaced.append((stream_id, placed.replaced_from))
        batch.chunks += placed.rows
        if placed.large is not None:
            batch.large.append(placed.large)
        group.runs[stream_id] = placed.run
        group.grows = True

    def _batch(self, group: Group, state: StreamState, after: _After) -> Batch:
        shard = self._shard(state, after)
        batch = group.batches.get(shard)
        if batch is None:
            batch = group.batches[shard] = Batch(shard)
        return batch

    def _shard(self, state: StreamState, after: _After) -> int:
        while state.fork is not None:
            known = self._fork_shards.get(state.id)
            if known is not None:
                return known
            source_id = state.fork.source_id
            # A fork that is new in this group: its source is in the overlay, even if it was deleted since.
            state = after.streams[source_id]
        return home(state.name, self._shard_count)


@define(eq=False)
class _After(AcceptedCatalog):
    """The state after a group, by the model's own function; with the producers that the group has changed.

    Plain appends aren't in it: making an overlay for each took a third of the planning.
    """

    # The streams whose rows are to be written: a dict, used as a set that keeps its order.
    altered: dict[int, None] = field(factory=dict, init=False)

    # Nothing is ever settled here, so nobody counts what is in flight.
    apply = AnyCatalog.apply

    def alter(self, change: Change) -> None:
        """Apply a change, and note the stream whose row it alters."""
        self.apply(change)
        if not isinstance(change, Delete):
            self.altered[change.stream_id] = None


def _producer_rows(appends: Sequence[Append]) -> list[tuple[int, str, int, int]]:
    """The producers of one stream's appends, each as the last of them leaves it."""
    stream_id = appends[0].stream_id
    last = {append.producer.id: append.producer for append in appends if append.producer is not None}
    return [(stream_id, each.id, each.epoch, each.seq) for each in last.values()]


def _nothing() -> tuple[bytes, array[int]]:
    return b"", array("Q")
