"""The ``acid`` mode's storage: opening, committing, reading, closing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Self, TypeVar
from weakref import WeakValueDictionary

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete
from dstreams.model.state import StreamState
from dstreams.runtime.progress import Progress
from dstreams.runtime.threads import Run, in_threads, run_inline
from dstreams.storage.acid import chunks
from dstreams.storage.acid.check import problems
from dstreams.storage.acid.faults import StoreFailed, Undecided, fault
from dstreams.storage.acid.group import PAGE_BYTES, Group, Planner, home
from dstreams.storage.acid.layout import Layout, close_all
from dstreams.storage.acid.maintenance import Maintenance
from dstreams.storage.acid.readers import Readers
from dstreams.storage.acid.recovery import Recovery
from dstreams.storage.acid.shard import Shard
from dstreams.storage.acid.source import PinnedBytes, StreamBytes
from dstreams.storage.acid.tails import Tail, Tails
from dstreams.storage.acid.writer import FreeSpace, Writer, free_space
from dstreams.storage.damage import DamageLog
from dstreams.storage.directory import DirectoryLock
from dstreams.storage.disk import Disk, OsDisk
from dstreams.storage.interface import Charges, StorageDamaged, StorageError, StorageFull, Verified
from dstreams.storage.stream_rows import Connect, connect

_log = Logger()
_T = TypeVar("_T")

MAX_SHARDS: Final = 256

PARALLEL_COMMITS: Final = 8

MAX_READS: Final = 6
"""Maximum number of reads in threads at the same time. A reactor's pool has ten threads, and commits must not wait for
reads from disk."""

SCRUB_CHUNKS: Final = 16
"""Maximum number of chunks that a step of the scrub reads: a megabyte at most."""

MEMORY_RECENT_BYTES: Final = 4 * 1024 * 1024
"""Maximum recent bytes that ``in-memory`` keeps besides the database, because reading from a database in memory is
cheap."""

CHARGES: Final = Charges(stream=1280, message=10, producer=480)
"""Bytes charged for each stream, message and producer: measured as this process's memory, with databases in memory, and
rounded up. With databases in files, a part of these bytes is on disk."""


@define(eq=False)
class AcidStorage:
    """The ``acid`` mode (a ``Storage``).

    :param directory: the data directory; not used with ``in_memory``.
    :param shard_count: a power of two, 1 to 256; a store keeps the number with which it was created.
    :param run: runs work in a thread.
    :param in_memory: whether the databases are in memory and do not outlive the process. The code is the same, but
        every operation runs immediately, in the reactor's thread.
    :param recent_bytes: the maximum number of the newest bytes that are kept in memory for live readers.
    :param parallel: the maximum number of shards that are committed in parallel.
    :param free_space: returns the free bytes of the disk; by default the file system is asked.
    :param exclusive: whether each database has only one connection, which needs no shared memory. Reads then wait for
        commits, so ``run`` must not use threads.
    :param now_ns: returns Unix time in nanoseconds. New stream ids start at this time divided by 1024, unless the store
        has higher ones.
    """

    _directory: str
    _shard_count: int
    _run: Run
    _in_memory: bool = field(default=False, kw_only=True)
    _recent_bytes: int = field(default=32 * 1024 * 1024, kw_only=True)
    _parallel: int = field(default=PARALLEL_COMMITS, kw_only=True)
    _disk: Disk = field(factory=OsDisk, kw_only=True)
    _connect: Connect = field(default=connect, kw_only=True)
    _lock: DirectoryLock | None = field(factory=DirectoryLock, kw_only=True)
    _free_space: FreeSpace | None = field(default=None, kw_only=True)
    _exclusive: bool = field(default=False, kw_only=True)
    _now_ns: Callable[[], int] = field(default=time.time_ns, kw_only=True)
    name: str = field(default="acid", init=False)
    immediate: bool = field(init=False)
    persistent: bool = field(init=False)
    charges: Charges = field(default=CHARGES, init=False)
    damage: DamageLog = field(factory=DamageLog, init=False)
    failure: str | None = field(default=None, init=False)
    """Why the store takes no more changes; ``None`` if it takes them."""
    _shards: list[Shard] = field(init=False)
    _catalog: Catalog = field(init=False)
    _writer: Writer = field(init=False)
    _readers: Readers = field(init=False)
    _tails: Tails = field(init=False)
    _planner: Planner = field(init=False)
    _maintenance: Maintenance = field(init=False)
    _fork_shards: dict[int, int] = field(init=False)
    # The lock for writing to the shards. Commits and slices of maintenance hold it; closing acquires it for ever.
    _write_lock: DeferredLock = field(factory=DeferredLock, init=False)
    _reading: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(MAX_READS), init=False)
    _holds: WeakValueDictionary[int, PinnedBytes] = field(factory=WeakValueDictionary, init=False)
    _last_id: int = field(default=0, init=False)
    _closing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        count = self._shard_count
        if not 1 <= count <= MAX_SHARDS or count & (count - 1):
            raise ValueError(f"the number of shards must be a power of two from 1 to {MAX_SHARDS}, not {count}")
        self.immediate, self.persistent = self._in_memory, not self._in_memory
        if self._in_memory:
            self._run, self._lock, self._parallel, self._free_space = run_inline, None, 1, _unlimited
            self._exclusive = True
            self._recent_bytes = min(self._recent_bytes, MEMORY_RECENT_BYTES)

    @classmethod
    def at(cls, directory: str, reactor: Any, *, shard_count: int = 16) -> Self:
        """Return a store in a directory, as the configuration describes it.

        :param directory: the data directory; it is created when the store is opened, if it is missing.
        :param reactor: runs threads.
        :param shard_count: the number of databases: a power of two, fixed for a directory.
        """
        return cls(directory, shard_count, in_threads(reactor))

    # --- opening -----------------------------------------------------------------------------------------------

    def open(self, catalog: Catalog, progress: Progress) -> None:
        """Lock the directory, rebuild the state of all streams, and start maintenance.

        :raise StorageError: if the store cannot be opened; the text says what is wrong and what to do.
        """
        if self._lock is not None:
            self._lock.acquire(self._directory)
        try:
            self._open(catalog, progress)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    def _open(self, catalog: Catalog, progress: Progress) -> None:
        layout = Layout(self._disk, self._directory, self._shard_count, self._connect, self._exclusive)
        try:
            shards = self._shards = layout.open_in_memory() if self._in_memory else layout.open()
        except OSError as error:
            raise StorageError(f"opening the store in {self._directory}: {error}") from error
        try:
            recovery = Recovery(catalog, shards)
            recovery.run(progress)
        except BaseException:
            close_all(shards)
            raise
        self._catalog = catalog
        self._fork_shards = recovery.fork_shards
        # An id must never be used again, even if only an ETag in a client's cache still refers to it.
        self._last_id = max(recovery.last_id, self._now_ns() >> 10)
        self._tails = Tails(self._recent_bytes)
        self._planner = Planner(catalog, self._shard_count, self._tails, self._fork_shards)
        self._writer = Writer(shards, self._free_space or free_space(self._directory), self._parallel)
        self._readers = Readers(shards, self._connect, layout.cache_bytes)
        self._maintenance = Maintenance(shards, self._run, self._write_lock, self._holds.__contains__, self._fail)
        for number, removed in recovery.to_clear.items():
            self._maintenance.removed(number, removed)
        for number in recovery.behind:
            self._maintenance.behind(number)
        self._maintenance.go_on()

    def next_stream_id(self) -> int:
        """Return an id that no stream of this store has ever had."""
        self._last_id += 1
        return self._last_id

    # --- committing --------------------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> Deferred[None] | None:
        """Write a group, in one transaction for each shard. It is durable when the Deferred fires."""
        if self.failure is not None or self._closing:
            raise StorageError(self.failure or "the store is closed")
        if not self.immediate:
            return self._write_lock.run(self._commit, changes).addCallback(self._committed)
        group = self._planner.plan(changes)
        try:
            self._writer.write(group)
        except StoreFailed as error:
            self._fail(str(error))
            raise
        self._keep(group)
        self._maintenance.go_on()
        return None

    def _commit(self, changes: Sequence[Change]) -> Deferred[None]:
        """Plan and write a group; called while the lock is held."""
        if self.failure is not None:  # maintenance has failed meanwhile
            raise StorageError(self.failure)
        group = self._planner.plan(changes)
        written: Deferred[None] = self._run(self._writer.write, group)
        return written.addCallbacks(lambda _: self._keep(group), self._not_written)

    def _not_written(self, failure: Failure) -> Failure:
        if failure.check(StoreFailed):
            self._fail(failure.getErrorMessage())
        elif failure.check(StorageFull, Undecided):
            self._maintenance.make_room()
        return failure

    def _committed(self, _: object) -> None:
        self._maintenance.go_on()

    def _fail(self, why: str) -> None:
        if self.failure is None:
            self.failure = f"the store takes no more changes until the server is restarted: {why}"
            self._maintenance.halt()
            _log.critical("{why}", why=self.failure)

    def _keep(self, group: Group) -> None:
        """Make the bytes of a committed group readable. The engine applies the group's changes after that."""
        self._fork_shards.update(group.forks)
        for change in group.changes:
            if isinstance(change, Append | Create):
                if change.data:
                    self._keep_bytes(change)
            elif isinstance(change, Delete):
                for stream_id in change.stream_ids:
                    self._tails.forget(stream_id)
                    self.damage.forget(stream_id)
                    self._fork_shards.pop(stream_id, None)
        for stream_id, run in group.runs.items():
            tail = self._tails.get(stream_id)
            if tail is not None:
                tail.run = run
        for batch in group.batches.values():
            self._maintenance.written(batch.shard, batch.pages, batch.chunk_count)
            if batch.removed:
                self._maintenance.removed(batch.shard, batch.removed)

    def _keep_bytes(self, change: Append | Create) -> None:
        state = self._catalog.streams.get(change.stream_id)
        if state is None:  # created in the same group
            self._tails.append(change, change.start, 0)
        else:
            self._tails.append(change, state.start, state.messages)

    # --- reading -----------------------------------------------------------------------------------------------

    def source(self, state: StreamState) -> StreamBytes:
        """Return the bytes of a stream."""
        stream_id = state.id
        tail = self._tails.get(stream_id) or Tail(state.start, state.tail, state.messages)
        hold = None
        if tail.written > state.start:
            hold = self._holds.get(stream_id)
            if hold is None:
                hold = self._holds[stream_id] = PinnedBytes()
        shard = self._fork_shards[stream_id] if state.fork is not None else home(state.name, self._shard_count)

        def fetch(question: Callable[..., _T], *arguments: int) -> _T | Deferred[_T]:
            if self._in_memory:
                return self._readers.ask(shard, question, *arguments)
            done: Deferred[_T] = self._reading.run(self._run, self._readers.ask, shard, question, *arguments)
            return done.addErrback(self._note_damage)

        return StreamBytes(fetch, stream_id, tail.written, tail.data, tail.entries, hold)

    def _note_damage(self, failure: Failure) -> Failure:
        if isinstance(failure.value, StorageDamaged):
            self.damage.note(failure.value)
        return failure

    def scrub(self) -> Iterator[Deferred[Verified]]:
        """Verify all chunks; see ``Storage.scrub``. Other rows are verified when they are read, which is at startup."""
        if self._in_memory:
            return
        for shard in range(self._shard_count):
            looks = [chunks.Look(0, 0, ())]
            while looks[-1].last is not None:
                after = looks.pop().last
                look = self._reading.run(self._run, self._readers.ask, shard, chunks.verify, after, SCRUB_CHUNKS)
                yield look.addErrback(self._unreadable, shard).addCallback(self._looked, looks)

    @staticmethod
    def _unreadable(failure: Failure, shard: int) -> chunks.Look:
        """Return the damage of a shard that SQLite cannot read any further. It does not belong to a single stream."""
        failure.trap(StorageDamaged)
        return chunks.Look(None, PAGE_BYTES, [StorageDamaged(failure.getErrorMessage(), -shard, "database")])

    def _looked(self, look: chunks.Look, looks: list[chunks.Look]) -> Verified:
        looks.append(look)
        # Damage in deleted streams is ignored, because their chunks will be removed.
        damaged = [each for each in look.damaged if each.stream_id <= 0 or each.stream_id in self._catalog.streams]
        return Verified(look.size, damaged)

    # --- the rest ----------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Check every shard against its invariants. This may take long, and the store must not be used meanwhile.

        :return: the problems found, one sentence each.
        """
        return problems(self._shards)

    def close(self) -> Deferred[None] | None:
        """Copy the WALs into the databases, so that the next start is quick, and unlock the directory."""
        self._closing = True
        done = self._maintenance.stop()
        done.addCallback(lambda _: self._write_lock.acquire())
        done.addCallback(lambda _: self._run(self._close))
        done.addErrback(lambda failure: _log.failure("closing the shards failed; their WALs have it all", failure))
        return done.addCallback(self._release)

    def _close(self) -> None:
        self._readers.close()
        self._writer.close()
        full: list[StorageFull] = []
        for shard in self._shards:
            if self.failure is not None:
                shard.abandon()
                continue
            try:
                shard.close(clean=True)
            except Exception as error:
                cause = fault(error, f"closing {shard.path}")
                if isinstance(cause, StorageFull):
                    full.append(cause)
                else:
                    _log.failure("closing {path} failed; its WAL has it all", path=shard.path)
        if full:
            _log.error(
                "no room to copy the WALs of {count} shards; they have it all: {why}", count=len(full), why=str(full[0])
            )

    def _release(self, result: _T) -> _T:
        if self._lock is not None:
            self._lock.release()
        return result


def _unlimited() -> None:
    """Return ``None``, because databases in memory are not limited by a disk."""
