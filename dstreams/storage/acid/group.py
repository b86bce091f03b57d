"""From changes to what must be written in which shard. Pure: reads the state, alters nothing."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

from attrs import define, field

from dstreams.model.catalog import AcceptedCatalog, Catalog
from dstreams.model.changes import Append, Change, Create, Delete
from dstreams.model.state import StreamState
from dstreams.storage import index, stream_rows
from dstreams.storage.acid.chunks import OpenRun, Row, place
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
    :param changed: what has changed of other streams, as ``stream_rows.changed`` says.
    :param producers: new and changed producers of those.
    :param replaced: (stream id, position): chunks that begin there or beyond go.
    :param chunks: new chunks.
    """

    shard: int
    last_id: int = 0
    removed: list[int] = field(factory=list)
    created: list[StreamRow] = field(factory=list)
    changed: list[tuple[Any, ...]] = field(factory=list)
    producers: list[tuple[int, str, int, int]] = field(factory=list)
    replaced: list[tuple[int, int]] = field(factory=list)
    chunks: list[Row] = field(factory=list)

    @property
    def pages(self) -> int:
        """About how many database pages it writes."""
        rows = len(self.removed) + len(self.created) + len(self.changed) + len(self.chunks)
        return 2 + rows + sum((len(row[3]) + len(row[4])) // PAGE_BYTES for row in self.chunks)


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
        written: dict[int, _NewBytes | None] = {}
        for change in changes:
            after.apply(change)
            if isinstance(change, Delete):
                self._delete(group, change, after)
                continue
            stream_id = change.stream_id
            part = written.get(stream_id)
            if isinstance(change, Append | Create) and change.data:
                if part is None:
                    part = _NewBytes(change.start)
                part.add(change)
            written[stream_id] = part
        for stream_id, part in written.items():
            state = after.streams[stream_id]
            if state.removed:
                continue
            batch = self._batch(group, state, after)
            self._write(group, batch, state)
            if part is not None:
                self._place(group, batch, state, part)
        return group

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
            batch.changed.append(stream_rows.changed(state))
            if producers:
                batch.producers += stream_rows.producer_rows(state, producers)
            return
        batch.created.append(stream_rows.row(state, producers or ()))
        group.grows = True
        if state.fork is not None:
            group.forks[state.id] = batch.shard

    def _place(self, group: Group, batch: Batch, state: StreamState, part: _NewBytes) -> None:
        tail = self._tails.get(state.id)
        if tail is not None and tail.has_run:
            run, earlier = tail.run, tail.run_bytes
        else:
            run, earlier = OpenRun(part.start, 0), _nothing
        placed = place(state.id, run, earlier, part.start, b"".join(part.data), part.entries)
        if placed.replaced_from is not None:
            batch.replaced.append((state.id, placed.replaced_from))
        batch.chunks += placed.rows
        group.runs[state.id] = placed.run
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


class _After(AcceptedCatalog):
    """The state after a group, by the model's own function; with the producers that the group has changed."""

    # Nothing is ever settled here, so nobody counts what is in flight.
    apply = Catalog.apply


@define(eq=False)
class _NewBytes:
    """What a group appends to one stream."""

    start: int
    data: list[bytes] = field(factory=list)
    entries: array[int] = field(factory=lambda: array("Q"))

    def add(self, change: Append | Create) -> None:
        self.data.append(change.data)
        self.entries.extend(index.entries(change.ends))


def _nothing() -> tuple[bytes, array[int]]:
    return b"", array("Q")
