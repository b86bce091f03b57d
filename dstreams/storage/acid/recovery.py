"""Rebuilds the state of all streams from the shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define, field
from twisted.logger import Logger

from dstreams.model.catalog import Catalog
from dstreams.model.state import StreamState
from dstreams.runtime.progress import Progress
from dstreams.storage import stream_rows
from dstreams.storage.acid.group import home
from dstreams.storage.acid.layout import unusable
from dstreams.storage.acid.shard import Shard
from dstreams.storage.interface import StorageError
from dstreams.storage.rebuild import Rebuild

_log = Logger()


@define(eq=False)
class Recovery:
    """Fills a catalog from shards.

    :param catalog: an empty catalog.
    :param writes: whether a group that a crash interrupted may be completed in the shards too.
    """

    _catalog: Catalog
    _shards: Sequence[Shard]
    _writes: bool = True
    fork_shards: dict[int, int] = field(factory=dict, init=False)
    """The shards of all forks, by stream id."""
    last_id: int = field(default=0, init=False)
    """The highest id of all streams that the store ever committed."""
    to_clear: dict[int, list[int]] = field(factory=dict, init=False)
    """The shards with unfinished maintenance, and their deleted streams."""
    behind: list[int] = field(factory=list, init=False)
    """The shards with stream rows that are behind their chunks."""
    _replaced: list[tuple[StreamState, int]] = field(factory=list, init=False)

    def run(self, progress: Progress) -> None:
        """Load all shards.

        :raise StorageError: if they cannot be read or contradict each other.
        """
        rebuild = Rebuild(self._catalog)
        for shard in self._shards:
            try:
                self._load(rebuild, shard, progress)
            except StorageError:
                raise
            except Exception as error:
                raise unusable(shard.path, error) from error
        self._check_forks()
        rebuild.finish()
        self.last_id = max(self.last_id, rebuild.highest_id)
        for older, number in self._replaced:
            self._settle(older, self._shards[number])

    def _load(self, rebuild: Rebuild, shard: Shard, progress: Progress) -> None:
        self.last_id = max(self.last_id, shard.last_id())
        total, before = shard.count(), len(self._catalog.streams)
        for number, state in enumerate(shard.load(), 1):
            self._insert(rebuild, shard, state)
            if not number % 10_000:
                # Shards have about the same size, so the number of streams in the others is estimated by this one's.
                known = before + total * (len(self._shards) - shard.number)
                progress("loading streams", before + number, known)
        if shard.is_behind():
            self.behind.append(shard.number)
        removed = shard.removed()
        if removed or shard.has_free_pages():
            self.to_clear[shard.number] = removed

    def _insert(self, rebuild: Rebuild, shard: Shard, state: StreamState) -> None:
        if state.fork is not None:
            self.fork_shards[state.id] = shard.number
        elif home(state.name, len(self._shards)) != shard.number:
            raise StorageError(f"{shard.path} holds the stream {state.name!r}, which belongs into another shard")
        other = self._catalog.names.get(state.name)
        rebuild.insert(state)
        if other is not None:
            older, newer = sorted((other, state), key=lambda each: each.id)
            self._catalog.names[state.name] = newer
            self._replaced.append((older, self._shard(older)))

    def _shard(self, state: StreamState) -> int:
        return home(state.name, len(self._shards)) if state.fork is None else self.fork_shards[state.id]

    def _check_forks(self) -> None:
        """Check invariant S2 for forks. ``Rebuild.finish`` detects a source that does not exist."""
        for stream_id, shard in self.fork_shards.items():
            fork = self._catalog.streams[stream_id].fork
            source = None if fork is None else self._catalog.streams.get(fork.source_id)
            if source is not None and self._shard(source) != shard:
                raise StorageError(f"{self._shards[shard].path} holds a fork of a stream in another shard")

    def _settle(self, older: StreamState, shard: Shard) -> None:
        """Complete a group that a crash interrupted between the commits of two shards.

        A fork is stored in its source's shard, so a name may move: it is deleted in one shard and created in another,
        in one group. If only the creation was committed, the name has two streams. Then the older one was deleted,
        because the newer one exists. If the older one still has forks, the same lost transaction would have deleted
        them.
        """
        if older.soft_deleted:
            return
        _log.warn("completing the deletion of {name}, which a crash interrupted", name=older.name)
        ids: list[int] = []
        if older.forks:
            older.soft_deleted = True
        else:
            ids += self._remove_family(older)
            self.to_clear.setdefault(shard.number, []).extend(ids)
        if not self._writes:
            return
        try:
            shard.begin()
            if ids:
                shard.remove(ids, max(ids))
            else:
                shard.update([stream_rows.stream_values(older)])
            shard.commit()
        except Exception as error:
            raise unusable(shard.path, error) from error

    def _remove_family(self, state: StreamState) -> Iterator[int]:
        """Remove a stream and the soft-deleted ancestors that had no other fork; yield their ids."""
        streams = self._catalog.streams
        while True:
            del streams[state.id]
            self.fork_shards.pop(state.id, None)
            if self._catalog.names.get(state.name) is state:
                del self._catalog.names[state.name]
            yield state.id
            if state.fork is None:
                return
            state = streams[state.fork.source_id]
            state.forks -= 1
            if state.forks or not state.soft_deleted:
                return
