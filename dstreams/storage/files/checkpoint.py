"""Checkpoints: from the journal into the data files and the catalog, while requests go on.

The steps, and why a crash between any two loses nothing:

1. P is the number of the first batch that hasn't been applied to the state yet. A new journal segment begins, so
   that the older ones can be deleted at the next checkpoint at the latest. (There may be several: in between the
   journal may have rolled over to a spare segment.)
2. The messages of every stream that changed are written into its files, and with each stream its row is taken.
   It holds at least what batches below P did; it may hold more.
3. The file system that they are on is synced: the files have all that the rows say.
4. In ``file-fast`` the journal's is synced too (it may be another): the batches below P are durable in their place, and
   a row may tell of a batch at or after P, and the catalog must never know more than the journal.
5. One transaction puts the rows, P, and the number of the first batch that no row tells of into the catalog, and the
   ids of the streams whose files step 6 is to delete. Until it is durable, recovery uses the old catalog and the old
   segments, and whatever the files hold beyond is written again.
6. Segments that hold only batches below P (one may be kept as the next spare), and the files of streams whose removal
   the catalog knows now, are deleted. What a crash leaves of them, the next checkpoint deletes; so it does with files
   that a reader still needs.

What is written stays in memory until step 3 is done: if that fails, reads go on without the files.

On a full disk steps 1 to 5 may not have the room that they need. Before them, then, the files of streams whose
deletion the journal has durably are deleted: the old catalog still has rows for them, but a recovery replays the
deletion, and reads no bytes of the files.

A checkpoint that fails for want of room, descriptors or memory is tried again later; the journal has everything. Any
other failure ends all writing: the disk is broken, and the journal would only grow.
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
from dstreams.runtime.sharded import SHARD_MASK, SHARD_SHIFT, ShardedDict
from dstreams.runtime.waiters import Waiters
from dstreams.storage.disk import Disk, is_passing, storage_error
from dstreams.storage.files.catalog import CatalogFile, Coverage
from dstreams.storage.files.data_files import DataFiles, Unwritten
from dstreams.storage.files.journal import Journal, segment_name, segments
from dstreams.storage.files.spare import SpareSegment
from dstreams.storage.interface import StorageError, StorageFull
from dstreams.storage.stream_rows import StreamRow, row
from dstreams.storage.sync import Run

_log = Logger()

SLICE_STREAMS = 500
"""How many streams are collected in one turn of the reactor: about 2 ms."""

SLICE_BYTES = 8 * 1024 * 1024
"""How many bytes the writing thread gets at a time, and a stream more at most."""

MAX_BACKLOG = 512 * 1024 * 1024
"""How many bytes the journal may grow by while a checkpoint is under way before commits wait for it. What it holds
is in memory too, and is replayed at the next start."""


@define(eq=False)
class DirtyStreams:
    """What has changed since the last checkpoint.

    Of ``streams`` and ``removed`` only the keys count: they are sets that grow without a long pause.

    :param streams: the ids of changed streams.
    :param removed: the ids of deleted ones.
    :param producers: the ids of changed producers, by stream.
    """

    streams: ShardedDict[int, None] = field(factory=ShardedDict)
    removed: ShardedDict[int, None] = field(factory=ShardedDict)
    producers: dict[int, set[str]] = field(factory=dict)

    def note(self, change: Change) -> None:
        """A change has been committed."""
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
        """Take back what a failed checkpoint was to write."""
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

    :param last_id: gives the highest stream id ever given out.
    :param spare: what the journal goes on in, where there is one.
    :param dirty: what the journal has and the catalog hasn't.
    :param next_unapplied: the number of the first batch that hasn't been applied; kept up to date by the store.
    :param leftover: deleted streams whose files may still be there.
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
    # How far the journal has to have grown before somebody looks after the spare.
    _look_at: int = field(default=0, init=False)
    # How far the journal has to have grown before a checkpoint that failed is tried again.
    _retry_at: int = field(default=0, init=False)
    # Whether the next one deletes first what it can.
    _short_of_room: bool = field(default=False, init=False)
    _waiting_for_journal: Waiters = field(factory=Waiters, init=False)
    journal_busy: bool = field(default=False, init=False)
    """Whether a thread is using the journal, to begin a segment or to write a large group. All other writers wait."""
    count: int = field(default=0, init=False)
    """How many have been taken."""
    error: StorageError | None = field(default=None, init=False)
    """Why the last one failed, if it did."""
    # Whether it was logged that there is no room for one.
    _told_full: bool = field(default=False, init=False)

    def begin_if_due(self, size: int) -> bool:
        """Begin one when the journal has grown by ``size`` bytes since the last one began.

        :return: whether commits had better wait, because the one under way can't keep up with them.
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
        """Have a spare made in time, and let the journal roll over to it when its appends lengthen a file."""
        journal, spare = self._journal, self._spare
        if spare.after is None:
            self._look_at = sys.maxsize
            return
        self._look_at = max(spare.after, length + spare.after // 4)
        # A checkpoint begins a segment itself, and leaves one that can be recycled.
        if length < spare.after or self._under_way is not None or self.journal_busy or journal.dead is not None:
            return
        if not spare.ready:
            # For the journal to roll over to, or for the checkpoint to begin with.
            if not journal.prepared_bytes or length >= spare.size // 2:
                spare.prepare()
        elif not journal.prepared_bytes and not journal.is_empty:
            self._roll()

    def _roll(self) -> None:
        """Commits wait for it as for a checkpoint's new segment: 0.5 ms, once before all that is quicker then."""
        self.journal_busy = True
        rolled = self._run(self._journal.roll, self._spare.take())
        rolled.addErrback(lambda failure: _log.failure("rolling over to a spare journal segment failed", failure))
        rolled.addCallback(self._rolled)

    def _rolled(self, done: bool | None) -> None:
        if not done:
            self._spare.hold_off()
        self.release_journal()

    def finished(self) -> Deferred[None]:
        """Fires when the one under way is over, however it ended."""
        if self._under_way is None:
            return succeed(None)
        return self._waiting.wait()

    def journal_released(self) -> Deferred[None]:
        """Fires when no thread uses the journal any more."""
        return self._waiting_for_journal.wait()

    def run(self) -> Deferred[None]:
        """Take a checkpoint, after the one under way."""
        if self._under_way is not None:
            return self.finished().addCallback(lambda _: self.run())
        done = self._under_way = Deferred.fromCoroutine(self._take())
        finished = self.finished()
        done.addErrback(self._failed).addBoth(self._over)
        return finished

    def make_room(self) -> Deferred[None]:
        """The disk is full: take a checkpoint, and before it give back the space of deleted streams' files."""
        self._short_of_room = True
        self._spare.give_up()
        return self.run()

    def stop(self) -> Deferred[None]:
        """Take a last one, unless there is nothing to write or no writing any more."""
        if self.journal_busy:
            return self.journal_released().addCallback(lambda _: self.stop())
        if self._journal.dead is not None:
            return self.finished()
        if self._under_way is None:
            if not (self.dirty.streams or self.dirty.removed):
                return succeed(None)
            self._told_full = False
        return self.run()

    def close(self) -> None:
        """Close the catalog. No checkpoint is under way."""
        self._catalog_file.close()

    def _over(self, _: object) -> None:
        self._under_way = None
        self._waiting.tell()

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
            if not self._told_full:  # once until one succeeds, since the log may lie on the same disk, and at the end
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
        """What is to be written, a bounded part at a time; a row and its messages are of one moment.

        :param order: the streams that have changed.
        :param deleted: gets the streams that were deleted meanwhile. An old row of one can't stay: what the journal
            has of the stream from P on doesn't fit it.
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
        """A sync that fails ends all writing: what it was to make durable may be gone from the page cache."""
        try:
            await self._run(sync, *arguments)
        except OSError as error:
            self._journal.fail(f"a sync failed: {error}")
            raise

    async def _begin_segment(self) -> None:
        while self.journal_busy:  # it rolls over just now, or a large group is written
            await self.journal_released()
        self._check_alive()
        if not self._journal.synced:  # most commits don't wait for anything
            self._journal.begin_segment()
            return
        spare = None if self._journal.is_empty else self._spare.take()
        self.journal_busy = True
        self._look_at = 0
        try:
            # Two or three syncs: on a slow disk requests that don't write would wait for them, too.
            await self._run(self._journal.begin_segment, None, spare)
        except GeneratorExit:
            raise  # given up with everything else, not over: nobody is told to go on
        except BaseException:
            self.release_journal()
            raise
        self.release_journal()

    def release_journal(self) -> None:
        """Let others write to the journal: the thread that used it has finished."""
        self.journal_busy = False
        self._waiting_for_journal.tell()

    async def _delete_early(self) -> None:
        unneeded = await self._release(sorted(self.dirty.removed))
        if not unneeded:
            return
        if not self._journal.synced:
            await self._sync(self._disk.sync_all, f"{self._directory}/journal")
        await self._run(self._files.remove, unneeded)

    async def _release(self, stream_ids: Sequence[int]) -> list[int]:
        """Those of the deleted streams whose files nobody needs any more."""
        unneeded = []
        for number, stream_id in enumerate(stream_ids, 1):
            if self._files.release(stream_id):
                unneeded.append(stream_id)
            if not number % SLICE_STREAMS:
                await self._run(_nothing)
        return unneeded

    async def _clean_up(self, position: int) -> None:
        """Give back the space of what the catalog covers now."""
        unneeded = await self._release(sorted(self._leftover))
        await self._spare.recycle(partial(self._covered, position))
        try:
            await self._run(self._remove, position, unneeded)
        except OSError:
            _log.failure("what a checkpoint has made superfluous couldn't be deleted; the next one tries again")
        else:
            self._leftover = self._leftover.difference(unneeded)

    def _remove(self, position: int, unneeded: list[int]) -> None:
        """In the thread: delete segments and files."""
        for path in self._covered(position):
            self._disk.unlink(path)
        self._files.remove(unneeded)

    def _covered(self, position: int) -> list[str]:
        """The paths of the segments that hold only batches below ``position`` (J4)."""
        folder = f"{self._directory}/journal"
        numbers = segments(self._disk, folder)
        return [f"{folder}/{segment_name(first)}" for first, following in pairwise(numbers) if following <= position]


def _nothing() -> None:
    """Work for a thread that lets the reactor serve others meanwhile."""
