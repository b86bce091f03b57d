"""Background work of a store: checkpoints, updates of stream rows, and removal of deleted streams' chunks.

One task runs at a time, in slices. A slice that writes to a shard holds the same lock as commits; the larger part of a
checkpoint runs in parallel with commits. An error is classified before the lock is released. Durability does not depend
on this work: if a crash interrupts it, it is done after the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.runtime.pending import Waiters
from dstreams.runtime.threads import Run
from dstreams.storage.acid.faults import StoreFailed, fault
from dstreams.storage.acid.shard import PURGE_ROWS, VACUUM_PAGES, Shard
from dstreams.storage.interface import StorageFull

_log = Logger()
_T = TypeVar("_T")

LEAST_WAL_PAGES: Final = 1000
NOTE_AFTER: Final = 10_000
"""Number of chunks added to a shard after which the rows of its streams are brought up to date."""

NOTE_PAGES: Final = 50
"""Approximate number of pages that a slice of bringing rows up to date writes."""

WAL_PAGES: Final = 16_384
"""Total number of pages in all WALs (64 MiB). A shard's WAL is copied into its database when it reaches WAL_PAGES
divided by the number of shards, but at least LEAST_WAL_PAGES (4 MiB). Each checkpoint costs two syncs."""

TIGHT_PAGES: Final = 256
"""Minimum number of pages written to a WAL (1 MiB) for which it is worth emptying when the disk is full."""


class _Stopped(Exception):
    """Maintenance has been stopped and starts nothing new."""


@define(eq=False)
class Maintenance:
    """Runs the background work of all shards.

    :param run: runs work in a thread.
    :param lock: the lock for writing to the shards.
    :param held: whether a deleted stream is still being read.
    :param fail: called with the reason if the store must take no more changes.
    """

    _shards: Sequence[Shard]
    _run: Run
    _write_lock: DeferredLock
    _held: Callable[[int], bool]
    _fail: Callable[[str], None]
    _wal_pages: list[int] = field(init=False)
    _limit: int = field(init=False)
    _unnoted: list[int] = field(init=False)
    _note_after: int = field(default=NOTE_AFTER, init=False)
    # Deleted streams by shard, in the order of deletion. A dict, used as a set that keeps its order.
    _removed: list[dict[int, None]] = field(init=False)
    # The shards whose WAL is long, those with rows that are behind, those in which something can be removed, and those
    # where everything that could be removed is still being read.
    _long: set[int] = field(factory=set, init=False)
    _behind: set[int] = field(factory=set, init=False)
    _crowded: set[int] = field(factory=set, init=False)
    _held_up: set[int] = field(factory=set, init=False)
    # The shards that could free more space if the disk were full, and those that are freeing it, because it is.
    _tight: set[int] = field(init=False)
    _short: set[int] = field(factory=set, init=False)
    _stopped: bool = field(default=False, init=False)
    _under_way: Deferred[None] | None = field(default=None, init=False)
    _waiting: Waiters = field(factory=Waiters, init=False)

    def __attrs_post_init__(self) -> None:
        count = len(self._shards)
        self._wal_pages = [0] * count
        self._unnoted = [0] * count
        self._limit = max(LEAST_WAL_PAGES, WAL_PAGES // count)
        self._removed = [{} for _ in self._shards]
        self._tight = set(range(count))

    @property
    def purging(self) -> int:
        """The number of deleted streams whose chunks are still stored."""
        return sum(map(len, self._removed))

    def written(self, shard: int, pages: int, chunks: int = 0) -> None:
        """Record that a commit has written to a shard.

        :param pages: the number of pages written.
        :param chunks: the number of chunks added.
        """
        self._unnoted[shard] += chunks
        if self._unnoted[shard] >= self._note_after:
            self.behind(shard)
        self._wal_pages[shard] += pages
        if self._wal_pages[shard] >= TIGHT_PAGES:
            self._tight.add(shard)
        if self._wal_pages[shard] >= self._limit:
            self._long.add(shard)

    def behind(self, shard: int) -> None:
        """Record that a shard has stream rows that are behind their chunks."""
        self._behind.add(shard)
        self._unnoted[shard] = 0

    def removed(self, shard: int, stream_ids: Sequence[int]) -> None:
        """Record that streams of a shard have been deleted."""
        self._removed[shard].update(dict.fromkeys(stream_ids))
        self._crowded.add(shard)
        self._tight.add(shard)

    def make_room(self) -> None:
        """Return all free pages and the WALs to the file system, because the disk is full.

        A repeated call has an effect only for shards in which streams were deleted or whose WAL has grown since.
        """
        self._crowded |= self._tight
        self._short |= self._tight
        self._tight.clear()
        self.go_on()

    def go_on(self) -> None:
        """Start the work that is due, if any; called after every commit."""
        if self._under_way is not None or self._stopped:
            return
        for shard in list(self._held_up):
            if not all(map(self._held, self._removed[shard])):
                self._held_up.discard(shard)
                self._crowded.add(shard)
        if self._long or self._behind or self._crowded:
            done = self._under_way = Deferred.fromCoroutine(self._work())
            done.addErrback(self._failed).addBoth(self._over)

    def halt(self) -> None:
        """Start no more work."""
        self._stopped = True

    def stop(self) -> Deferred[None]:
        """Start no more work.

        :return: a Deferred that fires when the work in progress has ended.
        """
        self.halt()
        return succeed(None) if self._under_way is None else self._waiting.wait()

    def _over(self, _: object) -> None:
        self._under_way = None
        self._waiting.notify()

    def _failed(self, failure: Failure) -> None:
        assert failure.value is not None
        if failure.check(_Stopped):
            return
        if not isinstance(fault(failure.value, ""), StorageFull):
            _log.failure("upkeep of the shards failed", failure)
        elif not self._stopped:  # otherwise closing the shards meets the same error, and reports it
            _log.warn("no room for upkeep of the shards: {why}", why=failure.getErrorMessage())

    def _do(self, work: Callable[..., _T], *arguments: Any) -> Deferred[_T]:
        """Run work in a thread, unless the store has failed while it waited for the lock.

        After a failed sync of a WAL nothing may be copied from it. A second sync would report no error, and after a
        power loss the copy could remain while the frames that it was made from are lost.
        """
        if self._stopped:
            raise _Stopped
        done: Deferred[_T] = self._run(work, *arguments)
        return done.addErrback(self._classify)

    def _classify(self, failure: Failure) -> Failure:
        assert failure.value is not None
        error = fault(failure.value, "upkeep of the shards")
        if isinstance(error, StoreFailed):
            self._fail(str(error))
        return failure

    async def _work(self) -> None:
        # A shard is removed from its set before the work, so that an error does not repeat the work immediately.
        while not self._stopped:
            if self._long:
                await self._checkpoint(self._long.pop())
            elif self._behind:
                await self._note(self._behind.pop())
            elif self._crowded:
                await self._clear(self._crowded.pop())
            else:
                return

    async def _checkpoint(self, number: int) -> None:
        shard = self._shards[number]
        self._wal_pages[number] = 0
        await self._do(shard.checkpoint_aside)
        await self._write_lock.run(self._do, shard.checkpoint)
        self._wal_pages[number] = 0
        self._long.discard(number)

    async def _note(self, number: int) -> None:
        """Bring stream rows up to date, for one slice of chunks."""
        more = await self._write_lock.run(self._do, self._shards[number].note)
        self.written(number, NOTE_PAGES)
        if more:
            self._behind.add(number)

    async def _clear(self, number: int) -> None:
        """Purge a slice of chunks, or else give back a slice of free pages, or else finish the shard."""
        shard, removed = self._shards[number], self._removed[number]
        ids = list(islice((each for each in removed if not self._held(each)), PURGE_ROWS))
        if ids:
            left, pages = await self._write_lock.run(self._do, shard.purge, ids)
            for each in set(ids).difference(left):
                del removed[each]
            self.written(number, pages)
        elif await self._write_lock.run(self._do, partial(shard.give_back, every_one=number in self._short)):
            self.written(number, VACUUM_PAGES)
        else:
            if number in self._short:
                self._short.discard(number)
                await self._write_lock.run(self._do, shard.empty_wal)
                self._wal_pages[number] = 0
                self._tight.discard(number)  # the pages that giving back wrote to the WAL have been removed from it
            if removed:
                self._held_up.add(number)
            return
        self._crowded.add(number)
