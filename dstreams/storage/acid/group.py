"""Converts changes to the rows to write in each shard. It only reads the state and changes nothing."""

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
    """Return the number of the shard of a stream that is not a fork."""
    return crc32(name.encode()) & (shard_count - 1)


@define(eq=False)
class Batch:
    """The part of a group that is written in one shard; ``Shard.write`` determines the order.

    :param last_id: the highest id of the streams that the group deletes; 0 if there are none.
    :param removed: deleted streams that were stored.
    :param created: new streams.
    :param changed: changed columns of other streams, as from ``stream_rows.stream_values``. Streams that only got
        bytes are not included, because their chunks imply the change.
    :param producers: new and changed producers of streams that are not new.
    :param replaced: (stream id, position); chunks that begin at or after the position are removed.
    :param chunks: new chunks.
    :param large: bytes that are cut into chunks while they are written.
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
        """The number of chunks to add."""
        return len(self.chunks) + sum(each.count for each in self.large)

    @property
    def pages(self) -> int:
        """The approximate number of database pages to write."""
        rows = len(self.removed) + len(self.created) + len(self.changed) + self.chunk_count
        full = sum((len(row[3]) + len(row[4])) // PAGE_BYTES for row in self.chunks)
        return 2 + rows + full + sum(each.stored_bytes // PAGE_BYTES for each in self.large)


@define(eq=False)
class Group:
    """The changes of one commit, and what to write for them.

    :param batches: the data to write, by shard.
    :param runs: the open runs of the group's streams afterwards.
    :param forks: the shards of new forks, by stream id.
    :param grows: whether the group adds streams or bytes; other groups may use the reserved disk space.
    """

    changes: Sequence[Change]
    batches: dict[int, Batch] = field(factory=dict)
    runs: dict[int, OpenRun] = field(factory=dict)
    forks: dict[int, int] = field(factory=dict)
    grows: bool = False


@define(eq=False)
class Planner:
    """Plans what a commit writes.

    :param catalog: the committed state.
    :param fork_shards: the shards of all forks.
    """

    _catalog: Catalog
    _shard_count: int
    _tails: Tails
    _fork_shards: dict[int, int]

    def plan(self, changes: Sequence[Change]) -> Group:
        """Return what to write so that the shards contain the state after these changes."""
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
                # The stream is no longer plain: its row is written, and has to include its earlier appends.
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
        """Whether a change needs no write to the stream's row: it only adds chunks, and perhaps changes a producer."""
        if not isinstance(change, Append) or change.closes or change.stream_seq is not None or not change.data:
            return False
        return change.stream_id in self._catalog.streams and change.stream_id not in after.streams

    def _delete(self, group: Group, change: Delete, after: _After) -> None:
        for stream_id in change.stream_ids:
            batch = self._batch(group, after.streams[stream_id], after)
            batch.last_id = max(batch.last_id, stream_id)
            # A stream created in the same group was never stored; only its id has to be recorded as used.
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
            # The fork is new in this group, so its source has an overlay, even if it was deleted after that.
            state = after.streams[source_id]
        return home(state.name, self._shard_count)


@define(eq=False)
class _After(AcceptedCatalog):
    """The state after a group, computed by the model's own function.

    Of the producers, ``producers`` contains only those that the group has changed. Plain appends are not applied to it,
    because creating an overlay for each took a third of the planning time.
    """

    # The streams whose rows have to be written. A dict, used as a set that keeps its order.
    altered: dict[int, None] = field(factory=dict, init=False)

    # Nothing is settled here, so pending changes need not be counted.
    apply = AnyCatalog.apply

    def alter(self, change: Change) -> None:
        """Apply a change, and record that the row of its stream has to be written."""
        self.apply(change)
        if not isinstance(change, Delete):
            self.altered[change.stream_id] = None


def _producer_rows(appends: Sequence[Append]) -> list[tuple[int, str, int, int]]:
    """Return the rows of the producers in one stream's appends, each with the values of its last append."""
    stream_id = appends[0].stream_id
    last = {append.producer.id: append.producer for append in appends if append.producer is not None}
    return [(stream_id, each.id, each.epoch, each.seq) for each in last.values()]


def _nothing() -> tuple[bytes, array[int]]:
    return b"", array("Q")
