"""Rebuilding the state from a snapshot and the changes after it.

A snapshot taken while requests go on may hold some of those changes already. They are recognized by what they
carry: a stream's id, and the position at which an append begins.
"""

from __future__ import annotations

from attrs import define, field

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete, SoftDelete
from dstreams.model.state import StreamState
from dstreams.storage.catalog_file import Coverage
from dstreams.storage.data_files import DataFiles
from dstreams.storage.disk import Disk
from dstreams.storage.interface import StorageError
from dstreams.storage.journal import Replay, replay, segments

_ADVICE = "restore the data directory from a backup"


def replay_behind(disk: Disk, directory: str, covered: Coverage, *, from_first: bool = False) -> Replay:
    """The batches of the journal that a catalog may lack; see ``journal.replay``.

    :param directory: the data directory.
    :raise StorageError: when the catalog holds nothing, though there was a checkpoint: what that covered isn't in the
        journal any more.
    """
    folder = f"{directory}/journal"
    if not covered.position:
        numbers = segments(disk, folder)
        if numbers[0] if numbers else disk.list(f"{directory}/data"):
            raise StorageError(
                f"{directory}/catalog.db is empty or new, though a checkpoint was taken: the file was cut off, removed"
                " or replaced. It held the state of all streams, which neither the journal nor the data files repeat:"
                " restore the data directory from a backup"
            )
    return replay(disk, folder, covered.position, covered.seen, from_first=from_first)


@define(eq=False)
class Rebuild:
    """Fills a catalog; call :meth:`finish` when all is in it."""

    catalog: Catalog
    _highest_id: int = field(default=0, init=False)

    @property
    def highest_id(self) -> int:
        """The highest stream id seen, deleted streams' included."""
        return self._highest_id

    def insert(self, state: StreamState) -> None:
        """A stream from the snapshot."""
        self.catalog.names[state.name] = self.catalog.streams[state.id] = state
        self._highest_id = max(self._highest_id, state.id)

    def apply(self, change: Change) -> Append | Create | None:
        """A change from the journal.

        :return: the change, when its bytes are new to the snapshot.
        :raise StorageError: when it doesn't fit: something before it is missing.
        """
        streams = self.catalog.streams
        if isinstance(change, Create):
            self._highest_id = max(self._highest_id, change.stream_id)
            known = streams.get(change.stream_id)
            if known is not None:
                # A stream before it, whose creation and deletion were just replayed, has taken its name and freed it.
                self.catalog.names[known.name] = known
                return None
            self.insert(StreamState.created(change))
            return change
        if isinstance(change, Delete):
            for stream_id in change.stream_ids:
                state = streams.pop(stream_id, None)
                if state is not None and self.catalog.names.get(state.name) is state:
                    del self.catalog.names[state.name]
            return None
        found = streams.get(change.stream_id)
        if found is None:
            return None  # deleted further on, and the snapshot knows it
        if isinstance(change, Append):
            return self._append(found, change)
        if isinstance(change, SoftDelete):
            found.soft_deleted = True
        else:
            found.touched_at = max(found.touched_at, change.at)
        return None

    def _append(self, state: StreamState, change: Append) -> Append | None:
        tail, messages, end = state.tail, state.messages, change.start + len(change.data)
        if change.start > tail or change.start < tail < end:
            raise StorageError(
                f"an append to stream {state.name!r} goes from {change.start} to {end}, but the stream ends at {tail};"
                f" {_ADVICE}"
            )
        if state.closed and tail < end:
            raise StorageError(f"an append to stream {state.name!r} at {tail} follows its closure; {_ADVICE}")
        state.append(change)
        if change.data and change.start < tail:
            state.tail, state.messages = tail, messages
            return None
        state.tail = max(tail, state.tail)
        return change if change.data else None

    def finish(self) -> None:
        """Derive what isn't stored: how many forks every stream has.

        :raise StorageError: when a fork's source is missing, or ends before the fork begins.
        """
        streams = self.catalog.streams
        for state in streams.values():
            state.forks = 0
        for state in streams.values():
            if state.fork is None:
                continue
            source = streams.get(state.fork.source_id)
            if source is None:
                raise StorageError(
                    f"the source of the fork {state.name!r}, stream {state.fork.source_id}, is missing; {_ADVICE}"
                )
            if state.fork.position > source.tail:
                raise StorageError(
                    f"the fork {state.name!r} begins at {state.fork.position}, but its source {source.name!r} ends at"
                    f" {source.tail}; {_ADVICE}"
                )
            source.forks += 1


def replay_change(rebuild: Rebuild, files: DataFiles, change: Change) -> None:
    """Apply a change from the journal, and keep its bytes if the data files lack them.

    :raise StorageError: as :meth:`Rebuild.apply`.
    """
    state = rebuild.catalog.get(change.stream_id) if isinstance(change, Append) else None
    messages = 0 if state is None else state.messages
    fresh = rebuild.apply(change)
    if isinstance(change, Delete):
        for stream_id in change.stream_ids:
            files.forget(stream_id)
    elif fresh is not None and fresh.data:
        files.append(fresh, fresh.start if state is None else state.start, messages)
