"""Rebuilds the state of all streams from stored rows and the changes after them.

The rows may already include some of these changes. Such changes are recognized by the stream's id, and by the position
at which an append begins.
"""

from __future__ import annotations

from attrs import define, field

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete, SoftDelete
from dstreams.model.state import StreamState
from dstreams.storage.interface import StorageError

_ADVICE = "restore the data directory from a backup"


@define(eq=False)
class Rebuild:
    """Fills a catalog. Call :meth:`finish` after all rows and changes."""

    catalog: Catalog
    _highest_id: int = field(default=0, init=False)

    @property
    def highest_id(self) -> int:
        """The highest stream id seen, including those of deleted streams."""
        return self._highest_id

    def insert(self, state: StreamState) -> None:
        """Insert a stream from a stored row."""
        self.catalog.names[state.name] = self.catalog.streams[state.id] = state
        self._highest_id = max(self._highest_id, state.id)

    def apply(self, change: Change) -> Append | Create | None:
        """Apply a change from the journal.

        :return: the change, if its bytes are not included in the stored rows.
        :raise StorageError: if it does not fit, because something before it is missing.
        """
        streams = self.catalog.streams
        if isinstance(change, Create):
            self._highest_id = max(self._highest_id, change.stream_id)
            known = streams.get(change.stream_id)
            if known is not None:
                # The replay may have created and deleted an earlier stream of the same name, and so removed the name.
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
            return None  # deleted by a later change, which the rows already include
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
        """Compute how many forks every stream has, because that is not stored.

        :raise StorageError: if the source of a fork is missing, or ends before the fork begins.
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
