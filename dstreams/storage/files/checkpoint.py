"""Checkpoints: they write what the journal holds into the data files and the catalog, while requests are served.

The steps, and why a crash between any two of them loses nothing:

1. P is the number of the first batch that has not been applied to the state yet. A new journal segment begins, so
   that the older ones can be deleted at the next checkpoint at the latest. (There may be several older ones, because
   the journal may have rolled over to spare segments since the last checkpoint.)
2. The messages of every changed stream are written into its files. At the same time its row is copied from the state.
   The row includes at least the effects of all batches below P; it may include more.
3. The file system of the data files is synced. So the files hold all messages that the rows include.
4. In ``file-fast`` the file system of the journal, which may be another one, is synced too. The batches below P are
   durable in the data files already. But a row may include a batch at or after P, and the catalog must never be ahead
   of the journal.
5. One transaction writes into the catalog: the rows, P, the number of the first batch that no row includes, and the
   ids of the streams whose files step 6 deletes. Until it is durable, recovery uses the old catalog and the old
   segments. Bytes in the files beyond the old catalog are written again.
6. Segments that hold only batches below P are deleted (one may be kept as the next spare segment), and so are the files
   of streams that the catalog has recorded as removed. If a crash prevents a deletion, or a reader still needs a file,
   a later checkpoint deletes it.

The written messages stay in memory until step 3 is done. If that step fails, they are still read from memory.

On a full disk there may be too little space for steps 1 to 5. So the files of deleted streams are removed before these,
if their deletion is durable in the journal. The old catalog still has rows for such streams, but recovery replays the
deletion and reads no bytes of the files.

A checkpoint that fails because space, descriptors or memory are short is retried later; the journal has everything. Any
other failure ends all writing, because the disk is broken and the journal would only grow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Delete, concerned
from dstreams.runtime.pending import Waiters
from dstreams.runtime.sharded import SHARD_MASK, SHARD_SHIFT, ShardedDict
from dstreams.runtime.threads import Run
from dstreams.storage.disk import Disk, is_passing, storage_error
from dstreams.storage.files.catalog import CatalogFile, Coverage
from dstreams.storage.files.data_files import DataFiles, Unwritten
from dstreams.storage.files.journal import Journal, segment_name, segments
from dstreams.storage.files.spare import SpareSegment
from dstreams.storage.interface import StorageError, StorageFull
from dstreams.storage.stream_rows import StreamRow, row

_log = Logger()

SLICE_STREAMS = 500
"""Maximum number of streams that are collected in one turn of the reactor, which takes about 2 ms."""

SLICE_BYTES = 8 * 1024 * 1024
"""Number of bytes after which the collected streams are passed to the writing thread. The last one may exceed it."""

MAX_BACKLOG = 512 * 1024 * 1024
"""Maximum growth of the journal, in bytes, before commits wait for the checkpoint in progress.

If the growth that makes a checkpoint due is more than half of this, the maximum is twice that growth. Everything in the
journal is in memory too, and is replayed at the next start.
"""


@define(eq=False)
class DirtyStreams:
    """The streams and producers that have changed since the last checkpoint.

    Only the keys of ``streams`` and ``removed`` are used, because these are sets that grow without long pauses.

    :param streams: the ids of changed streams.
    :param removed: the ids of deleted streams.
    :param producers: the ids of changed producers, by stream id.
    """

    streams: ShardedDict[int, None] = field(factory=ShardedDict)
    removed: ShardedDict[int, None] = field(factory=ShardedDict)
    producers: dict[int, set[str]] = field(factory=dict)

    def note(self, change: Change) -> None:
        """Record a committed change."""
        if isinstance(change, Append):
            self.streams.shards[hash(change.stream_id) >> SHARD_SHIFT & SHARD_MASK][change.stream_id] = None
            if change.producer is not None:
                self.producers.setdefault(change.stream_id, set()).add(change.producer.id)
        elif isinstance(change, Delete):
            for stream_id in change.stream_ids:
                self.removed[stream_id] = None
                self.streams.shard(stream_id).pop(stream_id, None)
                self.producers.pop(stream_id, None)
        else:
            for stream_id in concerned(change):
                self.streams[stream_id] = None

    def merge(self, other: DirtyStreams) -> None:
        """Add the changes that a failed checkpoint was to write."""
        for stream_id in other.streams:
            if stream_id not in self.removed:
                self.streams[stream_id] = None
        self.removed.update(other.removed)
        for stream_id, producers in other.producers.items():
            if stream_id not in self.removed:
                self.producers.setdefault(stream_id, set()).update(producers)


@define(eq=False)
class Checkpoints:
    """Takes checkpoints, one at a time.

    :param last_id: returns the highest stream id ever assigned.
    :param spare: makes the spare segments.
    :param dirty: the changes in the journal that the catalog lacks.
    :param next_unapplied: the number of the first batch that has not been applied; the store updates it.
    :param leftover: the ids of deleted streams whose files may still exist.
    """

    _disk: Disk
    _directory: str
    _journal: Journal
    _files: DataFiles
    _catalog_file: CatalogFile
    _catalog: Catalog
    _run: Run
    _last_id: Callable[[], int]
    _spare: SpareSegment
    dirty: DirtyStreams
    next_unapplied: int
    _leftover: set[int]
    _under_way: Deferred[None] | None = field(default=None, init=False)
    _waiting: Waiters = field(factory=Waiters, init=False)
    # Growth of the journal, in bytes, at which the spare segment is checked next.
    _look_at: int = field(default=0, init=False)
    # Growth of the journal, in bytes, at which a failed checkpoint is retried.
    _retry_at: int = field(default=0, init=False)
    # Whether the next checkpoint first removes the files of deleted streams.
    _short_of_room: bool = field(default=False, init=False)
    count: int = field(default=0, init=False)
    """The number of completed checkpoints."""
    error: StorageError | None = field(default=None, init=False)
    """The error of the last checkpoint, or ``None`` if it succeeded."""
    # Whether it was logged that there is no space for a checkpoint.
    _told_full: bool = field(default=False, init=False)

    def begin_if_due(self, size: int) -> bool:
        """Begin a checkpoint if the journal has grown by ``size`` bytes since the last one began.

        :return: whether commits should wait, because the checkpoint in progress cannot keep up with them.
        """
        length = self._journal.grown_bytes
        if length < size or self._journal.dead is not None:
            if length >= self._look_at:
                self._look_after_spare(length)
            return False
        backlogged = length > max(MAX_BACKLOG, 2 * size)
        if self._under_way is None and (backlogged or length >= self._retry_at):
            self._retry_at = length + size // 4
            self.run()
        # A new segment may have been begun just now.
        return backlogged and self._journal.grown_bytes >= length

    def _look_after_spare(self, length: int) -> None:
        """Start making a spare segment in time, and roll the journal over to it once appends lengthen their file."""
        journal, spare = self._journal, self._spare
        if spare.after is None:
            self._look_at = sys.maxsize
            return
        self._look_at = max(spare.after, length + spare.after // 4)
        # A checkpoint in progress begins a segment itself, and leaves one that can be recycled.
        if length < spare.after or self._under_way is not None or journal.in_use or journal.dead is not None:
            return
        if not spare.ready:
            # The journal rolls over to it, or the next checkpoint begins a segment in it.
            if not journal.prepared_bytes or length >= spare.size // 2:
                spare.prepare()
        elif not journal.prepared_bytes and not journal.is_empty:
            self._roll()

    def _roll(self) -> None:
        """Roll over to the spare segment.

        Commits wait for it, as they do for a checkpoint's new segment: once for 0.5 ms, then appends are faster.
        """
        self._journal.in_use = True
        rolled = self._run(self._journal.roll, self._spare.take())
        rolled.addErrback(lambda failure: _log.failure("rolling over to a spare journal segment failed", failure))
        rolled.addCallback(self._rolled)

    def _rolled(self, done: bool | None) -> None:
        if not done:
            self._spare.hold_off()
        self._journal.release()

    def finished(self) -> Deferred[None]:
        """Return a Deferred that fires when the checkpoint in progress has ended, even if it failed."""
        if self._under_way is None:
            return succeed(None)
        return self._waiting.wait()

    def run(self) -> Deferred[None]:
        """Take a checkpoint, after the one in progress."""
        if self._under_way is not None:
            return self.finished().addCallback(lambda _: self.run())
        done = self._under_way = Deferred.fromCoroutine(self._take())
        finished = self.finished()
        done.addErrback(self._failed).addBoth(self._over)
        return finished

    def make_room(self) -> Deferred[None]:
        """Free space on a full disk: give up the spare, remove the files of deleted streams, and take a checkpoint."""
        self._short_of_room = True
        self._spare.give_up()
        return self.run()

    def stop(self) -> Deferred[None]:
        """Take a last checkpoint, unless there is nothing to write or the journal is dead."""
        if self._journal.in_use:
            return self._journal.released().addCallback(lambda _: self.stop())
        if self._journal.dead is not None:
            return self.finished()
        if self._under_way is None:
            if not (self.dirty.streams or self.dirty.removed):
                return succeed(None)
            self._told_full = False
        return self.run()

    def close(self) -> None:
        """Close the catalog. No checkpoint may be in progress."""
        self._catalog_file.close()

    def _over(self, _: object) -> None:
        self._under_way = None
        self._waiting.notify()

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        assert error is not None
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(error, OSError):
            error = storage_error(error, "a checkpoint failed")
        self.error = error if isinstance(error, StorageError) else StorageError(f"a checkpoint failed: {error}")
        if not isinstance(self.error, StorageFull):
            _log.failure("a checkpoint failed; the journal keeps what it was to write", failure)
        else:
            self._spare.give_up()
            # Logged once until a checkpoint succeeds, because the log may be on the same disk; and at shutdown.
            if not self._told_full:
                self._told_full = True
                why = str(self.error)
                _log.error("no room for a checkpoint; the journal keeps what it was to write: {why}", why=why)
        passing = isinstance(error, StorageFull) or (isinstance(cause, OSError) and is_passing(cause))
        if not passing:
            self._journal.fail(str(self.error))

    async def _take(self) -> None:
        self._check_alive()
        if self._short_of_room:
            self._short_of_room = False
            await self._delete_early()
        position = self.next_unapplied
        await self._begin_segment()
        dirty, self.dirty = self.dirty, DirtyStreams()
        try:
            await self._write(dirty, position)
        except BaseException:
            self.dirty.merge(dirty)
            raise
        self.count += 1
        self.error, self._retry_at, self._told_full = None, 0, False
        await self._clean_up(position)

    def _check_alive(self) -> None:
        if self._journal.dead is not None:
            raise StorageError(f"no checkpoint is taken since {self._journal.dead}")

    async def _write(self, dirty: DirtyStreams, position: int) -> None:
        rows: list[StreamRow] = []
        written: list[tuple[int, int, int]] = []
        deleted: set[int] = set()
        order = await self._run(self._files.in_order, dirty.streams)
        for pieces, taken in self._slices(dirty, order, deleted):
            await self._run(self._files.write, pieces)
            written += [(piece.stream_id, piece.size, len(piece.entries)) for piece in pieces]
            rows += taken
        seen = self.next_unapplied
        await self._sync(self._disk.sync_all, f"{self._directory}/data")
        for number, (stream_id, size, count) in enumerate(written, 1):
            self._files.written(stream_id, size, count)
            if not number % SLICE_STREAMS:
                await self._run(_nothing)
        if not self._journal.synced:
            await self._sync(self._disk.sync_all, f"{self._directory}/journal")
        removed = {*dirty.removed, *deleted, *self._leftover}
        await self._run(self._catalog_file.save, rows, sorted(removed), Coverage(position, seen, self._last_id()))
        self._leftover = removed

    def _slices(
        self, dirty: DirtyStreams, order: Sequence[int], deleted: set[int]
    ) -> Iterator[tuple[list[Unwritten], list[StreamRow]]]:
        """Return the messages and rows to write, in bounded slices. The row and messages of a stream are consistent.

        :param order: the ids of changed streams.
        :param deleted: receives the ids of streams deleted meanwhile. Their old rows have to be removed, because the
            changes of these streams in the journal from P on do not fit such rows.
        """
        pieces: list[Unwritten] = []
        rows: list[StreamRow] = []
        size = 0
        for stream_id in order:
            state = self._catalog.streams.get(stream_id)
            if state is None:
                deleted.add(stream_id)
                continue
            piece = self._files.take_unwritten(stream_id)
            if piece is not None:
                pieces.append(piece)
                size += piece.size
            rows.append(row(state, dirty.producers.get(stream_id, ())))
            if len(rows) >= SLICE_STREAMS or size >= SLICE_BYTES:
                yield pieces, rows
                pieces, rows, size = [], [], 0
        yield pieces, rows

    async def _sync(self, sync: Callable[..., None], *arguments: str) -> None:
        """Sync. A failure ends all writing, because the unsynced data may have been dropped from the page cache."""
        try:
            await self._run(sync, *arguments)
        except OSError as error:
            self._journal.fail(f"a sync failed: {error}")
            raise

    async def _begin_segment(self) -> None:
        while self._journal.in_use:  # it is rolling over, or a large group is being written
            await self._journal.released()
        self._check_alive()
        if not self._journal.synced:  # most commits return at once in this mode; a thread would delay them
            self._journal.begin_segment()
            return
        spare = None if self._journal.is_empty else self._spare.take()
        self._journal.in_use = True
        self._look_at = 0
        try:
            # This takes two or three syncs. Without a thread, requests that only read would wait for a slow disk.
            await self._run(self._journal.begin_segment, None, spare)
        except GeneratorExit:
            raise  # the coroutine was discarded with everything else, so waiting writers must not continue
        except BaseException:
            self._journal.release()
            raise
        self._journal.release()

    async def _delete_early(self) -> None:
        unneeded = await self._release(sorted(self.dirty.removed))
        if not unneeded:
            return
        if not self._journal.synced:
            await self._sync(self._disk.sync_all, f"{self._directory}/journal")
        await self._run(self._files.remove, unneeded)

    async def _release(self, stream_ids: Sequence[int]) -> list[int]:
        """Return the deleted streams whose files are not needed any more."""
        unneeded = []
        for number, stream_id in enumerate(stream_ids, 1):
            if self._files.release(stream_id):
                unneeded.append(stream_id)
            if not number % SLICE_STREAMS:
                await self._run(_nothing)
        return unneeded

    async def _clean_up(self, position: int) -> None:
        """Free the space of segments and files that are not needed after a checkpoint."""
        unneeded = await self._release(sorted(self._leftover))
        await self._spare.recycle(partial(self._covered, position))
        try:
            await self._run(self._remove, position, unneeded)
        except OSError:
            _log.failure("what a checkpoint has made superfluous couldn't be deleted; the next one tries again")
        else:
            self._leftover = self._leftover.difference(unneeded)

    def _remove(self, position: int, unneeded: list[int]) -> None:
        """Delete segments and files. Runs in a thread."""
        for path in self._covered(position):
            self._disk.unlink(path)
        self._files.remove(unneeded)

    def _covered(self, position: int) -> list[str]:
        """Return the paths of the segments that hold only batches below ``position`` (J4)."""
        folder = f"{self._directory}/journal"
        numbers = segments(self._disk, folder)
        return [f"{folder}/{segment_name(first)}" for first, following in pairwise(numbers) if following <= position]


def _nothing() -> None:
    """Do nothing. Running this in a thread lets the reactor handle other events meanwhile."""
