"""The state of all streams, by name and by id, and the function that applies a Change to it.

There are two catalogs. The durable one holds what has been committed: readers see it, and recovery rebuilds it. The
accepted one overlays it with the Changes that have been validated but whose commit is pending: writers are validated
against it. With storage that commits immediately they are one object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from attrs import define, field

from dstreams.model.changes import Append, Change, Create, Delete, SoftDelete, concerned
from dstreams.model.state import StreamState
from dstreams.runtime.sharded import SHARD_MASK, SHARD_SHIFT, ShardedDict


class AnyCatalog(ABC):
    """The common part of both catalogs: look-ups, and the function that applies a change."""

    __slots__ = ()

    @abstractmethod
    def find(self, name: str) -> StreamState | None:
        """Return the stream of that name, which may be soft-deleted, or ``None``."""

    @abstractmethod
    def get(self, stream_id: int) -> StreamState | None:
        """Return the incarnation with that id, or ``None`` if it no longer exists."""

    def apply(self, change: Change) -> None:
        """Apply a change to the state. It is not validated here: it has been decided already."""
        if isinstance(change, Append):
            self._writable(change.stream_id).append(change)
        elif isinstance(change, Create):
            if change.fork is not None:
                self._writable(change.fork.source_id).forks += 1
            self._insert(StreamState.created(change))
        elif isinstance(change, Delete):
            for source_id in change.released:
                self._writable(source_id).forks -= 1
            for stream_id in change.stream_ids:
                self._remove(self._writable(stream_id))
        elif isinstance(change, SoftDelete):
            self._writable(change.stream_id).soft_deleted = True
        else:
            state = self._writable(change.stream_id)
            state.touched_at = max(state.touched_at, change.at)

    @abstractmethod
    def _writable(self, stream_id: int) -> StreamState:
        """Return the state of an existing stream, to be changed."""

    @abstractmethod
    def _insert(self, state: StreamState) -> None:
        """Add a new stream."""

    @abstractmethod
    def _remove(self, state: StreamState) -> None:
        """Remove a stream whose state :meth:`_writable` has returned."""


@define(eq=False)
class Catalog(AnyCatalog):
    """The committed state of all streams."""

    names: ShardedDict[str, StreamState] = field(factory=ShardedDict, init=False)
    streams: ShardedDict[int, StreamState] = field(factory=ShardedDict, init=False)

    def find(self, name: str) -> StreamState | None:
        return self.names.shards[hash(name) >> SHARD_SHIFT & SHARD_MASK].get(name)

    def get(self, stream_id: int) -> StreamState | None:
        return self.streams.shards[hash(stream_id) >> SHARD_SHIFT & SHARD_MASK].get(stream_id)

    def apply(self, change: Change) -> None:
        if type(change) is Append:
            self.streams.shards[hash(change.stream_id) >> SHARD_SHIFT & SHARD_MASK][change.stream_id].append(change)
        else:
            super().apply(change)

    def _writable(self, stream_id: int) -> StreamState:
        return self.streams[stream_id]

    def _insert(self, state: StreamState) -> None:
        self.names[state.name] = self.streams[state.id] = state

    def _remove(self, state: StreamState) -> None:
        del self.streams[state.id]
        # The name may already belong to a later incarnation. That never happens in the order in which changes commit,
        # but this method does not depend on it.
        if self.names.get(state.name) is state:
            del self.names[state.name]


@define(eq=False)
class AcceptedCatalog(AnyCatalog):
    """The durable catalog, overlaid with the changes whose commit is pending.

    :param durable: the catalog below.
    """

    _durable: Catalog
    # The overlays: copies of the states that have pending changes.
    names: dict[str, StreamState] = field(factory=dict, init=False)
    streams: dict[int, StreamState] = field(factory=dict, init=False)

    def find(self, name: str) -> StreamState | None:
        state = self.names.get(name)
        if state is None:
            return self._durable.find(name)
        return None if state.removed else state

    def get(self, stream_id: int) -> StreamState | None:
        state = self.streams.get(stream_id)
        if state is None:
            return self._durable.get(stream_id)
        return None if state.removed else state

    def apply(self, change: Change) -> None:
        if type(change) is Append:
            state = self.streams.get(change.stream_id) or self._writable(change.stream_id)
            state.append(change)
            state.pending += 1
            return
        super().apply(change)
        for stream_id in concerned(change):
            self.streams[stream_id].pending += 1

    def settle(self, change: Change) -> None:
        """Remove the overlays that are no longer needed, after ``change`` has been applied to the durable catalog."""
        for stream_id in (change.stream_id,) if type(change) is Append else concerned(change):
            state = self.streams[stream_id]
            state.pending -= 1
            if not state.pending:
                del self.streams[stream_id]
                if self.names.get(state.name) is state:
                    del self.names[state.name]

    def reset(self) -> None:
        """Discard all pending changes, because their commit has failed."""
        self.names.clear()
        self.streams.clear()

    def _writable(self, stream_id: int) -> StreamState:
        state = self.streams.get(stream_id)
        if state is None:
            state = self._durable.streams[stream_id].overlay()
            self.streams[stream_id] = state
            # If the name already belongs to another pending incarnation, keep that one, because it is newer.
            self.names.setdefault(state.name, state)
        return state

    def _insert(self, state: StreamState) -> None:
        self.names[state.name] = self.streams[state.id] = state

    def _remove(self, state: StreamState) -> None:
        state.removed = True
