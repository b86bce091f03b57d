"""The modes ``file-fast`` and ``file-durable``: the journal makes commits durable, and reads use data files.

A commit is one batch in the journal: written in ``file-fast``, written and synced in ``file-durable``. Its messages
stay in memory until a checkpoint writes them into the data files. The modules ``journal``, ``data_files`` and
``catalog`` describe the files; ``checkpoint`` writes from the journal into the others.

    <data_dir>/store.json   layout and format
    <data_dir>/lock         locked by the server that uses the directory
    <data_dir>/reserve      reserves space for deletes on a full disk
    <data_dir>/journal/     segments, and a spare segment
    <data_dir>/data/        the bytes of the streams
    <data_dir>/catalog.db   the state of the streams as of the last checkpoint

Recovery loads the catalog and replays the journal from the position in the catalog. It writes nothing into the data
files, so it can be interrupted and repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Self

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete
from dstreams.model.state import StreamState
from dstreams.runtime.progress import Progress
from dstreams.runtime.threads import Run, in_threads
from dstreams.storage.damage import DamageLog
from dstreams.storage.directory import FORMAT, DirectoryLock, check_manifest
from dstreams.storage.disk import Disk, OsDisk
from dstreams.storage.files.catalog import CatalogFile, check_catalog_wal
from dstreams.storage.files.checkpoint import Checkpoints, DirtyStreams
from dstreams.storage.files.data_files import DataFiles
from dstreams.storage.files.journal import Batch, Journal, Replay
from dstreams.storage.files.records import encode
from dstreams.storage.files.recovery import load_streams, replay_batches, replay_behind, replay_change
from dstreams.storage.files.reserve import RESERVE_BYTES, Reserve
from dstreams.storage.files.spare import AFTER_BYTES, PIECE_BYTES, SpareSegment
from dstreams.storage.interface import ByteSource, Charges, StorageError, StorageFull, Verified
from dstreams.storage.pieces import gather
from dstreams.storage.rebuild import Rebuild
from dstreams.storage.stream_rows import Connect, connect
from dstreams.storage.sync import Syncer, choose_syncer

_log = Logger()

RECLAIM_DELAY = 60.0
"""Seconds from a delete to the checkpoint that frees its space, unless another checkpoint does so earlier."""

LARGE_COMMIT_BYTES = 2 * 1024 * 1024
"""Maximum bytes of a group that is written without a thread.

The checksum and the copy into the page cache take 0.5 to 1 ms per MB.
"""

MANY_SEGMENTS = 64
"""Maximum number of segments that a start reads without making a checkpoint due, even if they are short.

Each start begins another segment, and opens all of them at the same time.
"""

CHARGES = Charges(stream=1024, message=8, producer=320)
"""The overhead of streams, measured and rounded up.

A stream takes about 500 bytes in memory and 250 on disk, a message 8 bytes on disk, and a producer 200 bytes in memory
and 100 on disk.
"""

LAYOUT = {"layout": "files", "format": FORMAT}


@define(eq=False)
class FileStorage:
    """The file modes (a ``Storage``).

    :param directory: the data directory.
    :param make_syncer: returns the syncer of ``file-durable``, called in :meth:`open`; ``None`` for ``file-fast``.
    :param run: runs work in a thread.
    :param call_later: the reactor's ``callLater``, so that the space of deleted streams is freed on an idle server too.
    :param checkpoint_bytes: a checkpoint is due when the journal has grown by this number of bytes.
    :param reserve_bytes: the number of bytes reserved for deletes on a full disk.
    :param spare_after: the growth of the journal, in bytes, before a spare segment is made in ``file-durable``;
        ``None`` disables spare segments.
    :param spare_piece: the number of bytes of a spare segment that are written before they are synced.
    :param now_ns: returns the Unix time in nanoseconds. Stream ids start from it (divided by 1024), unless the store
        has higher ones.
    """

    _directory: str
    _make_syncer: Callable[[], Syncer] | None
    _run: Run
    _checkpoint_bytes: int = 64 * 1024 * 1024
    _disk: Disk = field(factory=OsDisk)
    _connect: Connect = connect
    _lock: DirectoryLock | None = field(factory=DirectoryLock)
    _call_later: Callable[[float, Callable[[], object]], object] | None = None
    # Whether a checkpoint is scheduled to free the space of deleted streams.
    _reclaiming: bool = field(default=False, init=False)
    _closing: bool = field(default=False, init=False)
    _now_ns: Callable[[], int] = time.time_ns
    _reserve_bytes: int = RESERVE_BYTES
    _spare_after: int | None = field(default=AFTER_BYTES, kw_only=True)
    _spare_piece: int = field(default=PIECE_BYTES, kw_only=True)
    persistent: bool = field(default=True, init=False)
    charges: Charges = field(default=CHARGES, init=False)
    damage: DamageLog = field(factory=DamageLog, init=False)
    _syncer: Syncer | None = field(default=None, init=False)
    _catalog: Catalog = field(init=False)
    _journal: Journal = field(init=False)
    _files: DataFiles = field(init=False)
    _reserve: Reserve = field(init=False)
    _spare: SpareSegment = field(init=False)
    _checkpoints: Checkpoints = field(init=False)
    _last_id: int = field(default=0, init=False)

    @classmethod
    def at(
        cls, directory: str, reactor: Any, *, durable: bool = True, checkpoint_bytes: int = 64 * 1024 * 1024
    ) -> Self:
        """Create the store of a directory, with the options that the configuration has.

        :param directory: the data directory; :meth:`open` creates it if it does not exist.
        :param reactor: watches descriptors and runs threads.
        :param durable: whether a change is synced before it is acknowledged: ``file-durable``, else ``file-fast``.
        :param checkpoint_bytes: the growth of the journal, in bytes, after which it is written into the data files.
        """
        run = in_threads(reactor)
        make_syncer = partial(choose_syncer, reactor, run) if durable else None
        return cls(directory, make_syncer, run, checkpoint_bytes, call_later=reactor.callLater)

    @property
    def name(self) -> str:
        """The name of the mode."""
        return "file-fast" if self._make_syncer is None else "file-durable"

    @property
    def immediate(self) -> bool:
        """True for ``file-fast``, which promises only a write; only large writes are done in a thread."""
        return self._make_syncer is None

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more, or ``None``."""
        journal = getattr(self, "_journal", None)  # the attribute is missing before the store is open
        return None if journal is None else journal.dead

    def open(self, catalog: Catalog, progress: Progress) -> None:
        """Lock the directory, rebuild the state of all streams, and prepare the store for commits.

        :raise StorageError: if that fails; the text says what is wrong and what to do.
        """
        if self._lock is not None:
            self._lock.acquire(self._directory)
        try:
            self._open(catalog, progress)
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError):
                raise StorageError(f"opening the store in {self._directory}: {error}") from error
            raise

    def _open(self, catalog: Catalog, progress: Progress) -> None:
        directory, disk = self._directory, self._disk
        check_manifest(disk, directory, LAYOUT)
        for folder in ("journal", "data"):
            disk.make_directories(f"{directory}/{folder}")
        disk.sync_directory(directory)
        self._catalog = catalog
        self._files = DataFiles(disk, f"{directory}/data", self._run, self.damage)
        self._reserve = Reserve(disk, directory, self._reserve_bytes)
        self._reserve.lend()
        check_catalog_wal(disk, directory, repairs=True)
        catalog_file = CatalogFile(f"{directory}/catalog.db", self._connect)
        try:
            self._recover(catalog_file, progress)
        except BaseException:
            catalog_file.close()
            raise

    def _recover(self, catalog_file: CatalogFile, progress: Progress) -> None:
        """Load the catalog, replay the journal, and prepare to write after it."""
        directory, disk = self._directory, self._disk
        dirty = DirtyStreams()
        covered = catalog_file.coverage()
        found = replay_behind(disk, directory, covered)
        rebuild = Rebuild(self._catalog)
        load_streams(catalog_file, rebuild, progress)
        self._replay(found, rebuild, dirty, progress)
        # An id must never be reused, even if the only trace of it is an ETag in a client's cache.
        self._last_id = max(rebuild.highest_id, covered.last_id, self._now_ns() >> 10)
        if self._make_syncer is not None:
            self._syncer = self._make_syncer()
            _log.info("journal syncs: {name}", name=self._syncer.name)
        next_sequence = covered.position if found.last is None else found.last.sequence + 1
        self._journal = Journal(disk, f"{directory}/journal", next_sequence, self._syncer is not None)
        self._spare = SpareSegment(
            disk, f"{directory}/journal", self._run, self._checkpoint_bytes,
            self._spare_after if self._syncer is not None else None, self._spare_piece,
        )  # fmt: skip
        # Otherwise the journal of a server that is always killed before its next checkpoint would grow without bound.
        grown = self._checkpoint_bytes if len(found.read) > MANY_SEGMENTS else 0
        make_room = partial(self._files.free_uncovered, dirty.removed)
        self._journal.begin(found, self._spare.adopt(), grown, make_room)
        self._checkpoints = Checkpoints(
            disk, directory, self._journal, self._files, catalog_file, self._catalog, self._run, self._newest_id,
            self._spare, dirty, next_sequence, catalog_file.removed(),
        )  # fmt: skip
        self._reserve.make()
        for folder in ("journal", "data"):
            # If a sync failed because there is no descriptor, that would be treated as a loss of data.
            disk.hold_directory(f"{directory}/{folder}")

    def _replay(self, found: Replay, rebuild: Rebuild, dirty: DirtyStreams, progress: Progress) -> None:
        def apply(_batch: Batch, change: Change) -> None:
            replay_change(rebuild, self._files, change)
            dirty.note(change)

        replay_batches(found, apply, progress)
        if found.beyond and (found.dropped is None or self._make_syncer is not None):
            _log.warn(
                "the journal ends with batch {last}; what a crash left behind it is removed: {beyond}",
                last=None if found.last is None else found.last.sequence,
                beyond=", ".join(found.beyond),
            )
        rebuild.finish()

    def _newest_id(self) -> int:
        return self._last_id

    def next_stream_id(self) -> int:
        """Return a number that no stream of this store has ever had."""
        self._last_id += 1
        return self._last_id

    def commit(self, changes: Sequence[Change]) -> Deferred[None] | None:
        """Write a group as one batch. With a syncer, it is durable when the Deferred fires."""
        if self._checkpoints.begin_if_due(self._checkpoint_bytes):
            return self._checkpoints.finished().addCallback(self._commit_after, changes)
        if self._journal.in_use:
            return self._journal.released().addCallback(lambda _: self.commit(changes))
        payload = gather(encode(changes))
        length = sum(map(len, payload))
        if length > LARGE_COMMIT_BYTES:
            write = partial(self._journal.append, payload, length)
            # All other writers wait until the thread has finished.
            self._journal.in_use = True
            return self._run(write).addBoth(self._written, changes, write)
        try:
            self._journal.append(payload, length)
        except StorageFull:
            # A checkpoint that starts now to make room must not switch segments until the group's sync has begun.
            self._journal.in_use = True
            done = self._written(Failure(), changes, partial(self._journal.append, payload, length))
            if isinstance(done, Failure):
                done.raiseException()
            return done
        if self._syncer is None:
            self._keep(changes)
            return None
        return self._syncer.sync(self._journal.file).addCallbacks(self._synced, self._sync_failed, (changes,))

    def _written(
        self, result: object, changes: Sequence[Change], write: Callable[[], object]
    ) -> Deferred[None] | Failure | None:
        """Continue after a write while the journal is reserved for it; on a full disk write again after making room.

        :param result: a ``Failure`` if the write failed.
        :param write: writes the group to the journal.
        """
        try:
            if isinstance(result, Failure) and not (result.check(StorageFull) and self._find_room(changes, write)):
                return result
            if self._syncer is None:
                self._keep(changes)
                return None
            return self._syncer.sync(self._journal.file).addCallbacks(self._synced, self._sync_failed, (changes,))
        finally:
            self._journal.release()

    def _find_room(self, changes: Sequence[Change], write: Callable[[], object]) -> bool:
        """Write a group that did not fit on the disk, if removing the spare segment or the reserve makes space for it.

        :param write: writes the group to the journal.
        :return: whether the group was written.
        """
        return self._write_without_spare(write) or self._write_on_full_disk(changes, write)

    def _write_without_spare(self, write: Callable[[], object]) -> bool:
        """Remove the spare segment, if there is one, and write a group into its space.

        :return: whether the group was written.
        """
        if not self._spare.give_up():
            return False
        try:
            write()
        except StorageFull:
            return False
        return True

    def _write_on_full_disk(self, changes: Sequence[Change], write: Callable[[], object]) -> bool:
        """Begin to free the space of deleted streams; if the group contains a delete, release the reserve and write it.

        :return: whether the group was written.
        """
        if self._checkpoints.dirty.removed:
            self._make_room()
        if not any(isinstance(change, Delete) for change in changes) or not self._reserve.release():
            return False
        # The other changes of the group are written too, because a group is committed as a whole.
        write()
        return True

    def _make_room(self) -> None:
        self._checkpoints.make_room().addCallback(lambda _: self._run(self._reserve.make))

    def _commit_after(self, _: None, changes: Sequence[Change]) -> Deferred[None] | None:
        """Commit a group after the checkpoint that it had to wait for."""
        if self._checkpoints.error is not None:
            raise self._checkpoints.error
        return self.commit(changes)

    def _synced(self, _: None, changes: Sequence[Change]) -> None:
        self._keep(changes)

    def _sync_failed(self, failure: Failure) -> None:
        self._journal.fail(f"a sync failed: {failure.getErrorMessage()}")
        raise StorageError(self._journal.dead)

    def _keep(self, changes: Sequence[Change]) -> None:
        """Make the bytes of a committed group readable. The engine applies the group next."""
        self._checkpoints.next_unapplied = self._journal.next_sequence
        files, streams, note = self._files, self._catalog.streams, self._checkpoints.dirty.note
        for change in changes:
            note(change)
            if isinstance(change, Append):
                if change.data:
                    state = streams.get(change.stream_id)
                    if state is None:  # created in the same group
                        files.append(change, change.start, 0)
                    else:
                        files.append(change, state.start, state.messages)
            elif isinstance(change, Create):
                if change.data:
                    files.append(change, change.start, 0)
            elif isinstance(change, Delete):
                for stream_id in change.stream_ids:
                    files.forget(stream_id)
                self._reclaim_soon()

    def _reclaim_soon(self) -> None:
        """Schedule a checkpoint that frees the space of deleted streams."""
        if self._call_later is not None and not self._reclaiming:
            self._reclaiming = True
            self._call_later(RECLAIM_DELAY if self._reserve.is_there else 0, self._reclaim)

    def _reclaim(self) -> None:
        self._reclaiming = False
        if self._closing or self._journal.dead is not None:
            return
        if self._reserve.is_there:
            self._checkpoints.run()
        else:
            self._make_room()

    def source(self, state: StreamState) -> ByteSource:
        """Return the bytes of a stream."""
        return self._files.source(state)

    def scrub(self) -> Iterator[Deferred[Verified]]:
        """Verify the data files of all streams, once; see ``Storage``."""
        streams = self._catalog.streams
        # Nearly in the order of the ids, and so of the last use of the directories.
        return self._files.scrub(filter(None, map(streams.get, chain.from_iterable(streams.key_lists()))))

    def checkpoint(self) -> Deferred[None]:
        """Take a checkpoint now: write everything into the data files and the catalog."""
        return self._checkpoints.run()

    def close(self) -> Deferred[None]:
        """Take a last checkpoint, so that the next start is fast, and release the directory."""
        self._closing = True
        idle = self._spare.stop()
        done = self._checkpoints.stop()
        done.addErrback(lambda failure: _log.failure("the last checkpoint failed; the journal has it all", failure))
        return done.addCallback(lambda _: idle).addCallback(self._release)

    def _release(self, _: None) -> None:
        self._checkpoints.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._syncer is not None:
            self._syncer.close()
        if self._lock is not None:
            self._lock.release()
