"""What a store does beside its commits: checkpoints, and clearing away what was deleted.

One thing at a time, a slice at a time. A slice that writes to a shard takes its turn with the commits; a
checkpoint's larger part goes on beside them. What it means when one fails is decided before the turn passes
on. Nothing here is needed for a promise: what a crash cuts off is done after the next start.
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

from dstreams.runtime.waiters import Waiters
from dstreams.storage.acid.faults import StoreFailed, fault
from dstreams.storage.acid.shard import PURGE_ROWS, VACUUM_PAGES, Shard
from dstreams.storage.sync import Run

_log = Logger()
_T = TypeVar("_T")

LEAST_WAL_PAGES: Final = 1000
NOTE_AFTER: Final = 10_000
"""The rows of a shard's streams are brought up to date when it has got so many chunks."""

NOTE_PAGES: Final = 50
"""About how many pages a slice of that writes."""

WAL_PAGES: Final = 16_384
"""A shard's WAL is copied into its database when it has so many pages: WAL_PAGES (64 MiB) divided by the number of
shards, but at least LEAST_WAL_PAGES (4 MiB). Each time costs two syncs."""

TIGHT_PAGES: Final = 256
"""A WAL in which so many pages were written, 1 MiB, is worth giving back when the disk is full."""


class _Stopped(Exception):
    """Nothing new is begun."""


@define(eq=False)
class Maintenance:
    """Looks after the shards.

    :param run: runs work in a thread.
    :param turn: held by whatever writes to the shards.
    :param held: whether somebody reads a deleted stream.
    :param fail: called when the store can't go on.
    """

    _shards: Sequence[Shard]
    _run: Run
    _turn: DeferredLock
    _held: Callable[[int], bool]
    _fail: Callable[[str], None]
    _wal_pages: list[int] = field(init=False)
    _limit: int = field(init=False)
    _unnoted: list[int] = field(init=False)
    _note_after: int = field(default=NOTE_AFTER, init=False)
    # In the order of deletion: a dict, used as a set that keeps it.
    _removed: list[dict[int, None]] = field(init=False)
    # The shards whose WAL is long, those with rows that are behind, those in which something can be cleared away, and
    # those where somebody reads what could be.
    _long: set[int] = field(factory=set, init=False)
    _behind: set[int] = field(factory=set, init=False)
    _crowded: set[int] = field(factory=set, init=False)
    _held_up: set[int] = field(factory=set, init=False)
    # Those that could give back more if the disk is full, and those that do, since it is.
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
        """How many deleted streams' chunks are still there."""
        return sum(map(len, self._removed))

    def written(self, shard: int, pages: int, chunks: int = 0) -> None:
        """A commit has written to a shard.

        :param chunks: how many chunks it has added.
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
        """Rows of streams don't say yet what is in their chunks."""
        self._behind.add(shard)
        self._unnoted[shard] = 0

    def removed(self, shard: int, stream_ids: Sequence[int]) -> None:
        """Streams have been deleted."""
        self._removed[shard].update(dict.fromkeys(stream_ids))
        self._crowded.add(shard)
        self._tight.add(shard)

    def make_room(self) -> None:
        """The disk is full: give back all that is free in the shards, and their WALs.

        It is of use once, and again when something has been deleted or a WAL has grown.
        """
        self._crowded |= self._tight
        self._short |= self._tight
        self._tight.clear()
        self.go_on()

    def go_on(self) -> None:
        """Do what is due, if anything; called after every commit."""
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
        """Begin nothing new."""
        self._stopped = True

    def stop(self) -> Deferred[None]:
        """Begin nothing new; fires when what is under way is over."""
        self.halt()
        return succeed(None) if self._under_way is None else self._waiting.wait()

    def _over(self, _: object) -> None:
        self._under_way = None
        self._waiting.tell()

    def _failed(self, failure: Failure) -> None:
        if failure.check(_Stopped):
            return
        _log.failure("upkeep of the shards failed", failure)

    def _do(self, work: Callable[..., _T], *arguments: Any) -> Deferred[_T]:
        """Do something in a thread, unless the store has failed while this waited for its turn.

        After a failed sync of a WAL nothing may be copied from it: a second sync says nothing, and what the copy is
        made of may be gone with the power, while the copy stays.
        """
        if self._stopped:
            raise _Stopped
        done: Deferred[_T] = self._run(work, *arguments)
        return done.addErrback(self._validate_head)

    def _validate_head(self, failure: Failure) -> Failure:
        assert failure.value is not None
        error = fault(failure.value, "upkeep of the shards")
        if isinstance(error, StoreFailed):
            self._fail(str(error))
        return failure

    async def _work(self) -> None:
        # A shard is taken off its set before the work: an error must not make it begin again at once.
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
        await self._turn.run(self._do, shard.checkpoint)
        self._wal_pages[number] = 0
        self._long.discard(number)

    async def _note(self, number: int) -> None:
        """Bring a slice of rows up to date."""
        more = await self._turn.run(self._do, self._shards[number].note)
        self.written(number, NOTE_PAGES)
        if more:
            self._behind.add(number)

    async def _clear(self, number: int) -> None:
        """Purge a slice, or give back a slice of free pages, or be done with a shard."""
        shard, removed = self._shards[number], self._removed[number]
        ids = list(islice((each for each in removed if not self._held(each)), PURGE_ROWS))
        if ids:
            left, pages = await self._turn.run(self._do, shard.purge, ids)
            for each in set(ids).difference(left):
                del removed[each]
            self.written(number, pages)
        elif await self._turn.run(self._do, partial(shard.give_back, every_one=number in self._short)):
            self.written(number, VACUUM_PAGES)
        else:
            if number in self._short:
                self._short.discard(number)
                await self._turn.run(self._do, shard.empty_wal)
                self._wal_pages[number] = 0
                self._tight.discard(number)  # what giving back wrote into the WAL has gone with it
            if removed:
                self._held_up.add(number)
            return
        self._crowded.add(number)
