"""A spare segment: a preallocated file, whose blocks have already been written, for the next journal segment.

    <data_dir>/journal/spare

Why
    A sync after an append that lengthens its file waits until the file system has written the new length and the new
    blocks to its own journal. This takes 235 us on ext4, but only 145 us if the blocks have been written before. Only
    ``file-durable`` syncs; no other mode has a spare segment. Appends of 100 bytes over 32 connections, in four
    alternating runs each: 36,800 a second with a spare and 32,100 without, for 28 us of processor time and 32 us; over
    one connection 3,110 and 2,660 a second.

Life cycle
    1. It is made. Either a segment that a checkpoint covers is recycled (it is renamed, and the directory is synced),
       or a new file is filled with zeros, in pieces, each of which is synced before the next is written.
    2. It is ready. Its content does not matter, because leftovers of a segment are never taken for batches
       (``segments``).
    3. The journal uses it for its next segment (J6), or it is removed, because on a full disk it is removed first.
    A start uses the spare of an earlier process if its length is right, and removes any other.

There is never more than one. None is filled before the journal has grown by :data:`AFTER_BYTES` since the last
checkpoint, so that a small store stays small. A spare that cannot be made, or whose sync fails, is never used and does
no harm. The next attempt is after the next checkpoint, and the failure is logged once.

The state is used only in the reactor thread; only files are accessed in other threads.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.runtime.pending import Waiters
from dstreams.runtime.threads import Run
from dstreams.storage.disk import Disk, File, write_all

_log = Logger()

NAME: Final = "spare"
"""The name of the file. It is not a segment's name, so readers of the journal ignore it."""

AFTER_BYTES: Final = 1024 * 1024
"""Number of bytes by which the journal must have grown before a spare is filled. A tiny or idle store has none."""

PIECE_BYTES: Final = 64 * 1024
"""Number of bytes that are filled before they are synced, because the syncs of appends share the disk.

Such syncs took 200 us without filling (one in a hundred took 300 us). During the 0.4 s that filling 68 MiB takes, they
took 290 us (440 us) with pieces of 64 KiB, and 330 us (8,000 us) with pieces of 1 MiB.
"""

PIECES: Final = 16
"""Number of pieces that a thread fills before the reactor checks whether to continue."""

MAX_BYTES: Final = 128 * 1024 * 1024
"""Maximum number of bytes of a spare, even if checkpoints are rare."""

ROOM: Final = 4
"""Free space on the disk that is required to make or keep a spare, as a multiple of its length."""


@define(eq=False)
class SpareSegment:
    """Makes the spare and keeps it until it is used.

    :param directory: the directory of the journal.
    :param run: runs work in a thread.
    :param checkpoint_bytes: the number of bytes by which the journal grows between two checkpoints.
    :param after: see :data:`AFTER_BYTES`; ``None`` if no spare is ever made.
    :param piece: see :data:`PIECE_BYTES`.
    """

    _disk: Disk
    _directory: str
    _run: Run
    _checkpoint_bytes: int
    after: int | None = AFTER_BYTES
    _piece: int = PIECE_BYTES
    size: int = field(init=False)
    """The length of the spare: a little more than the growth that makes a checkpoint due."""
    _least: int = field(init=False)
    _file: File | None = field(default=None, init=False)
    _filling: File | None = field(default=None, init=False)
    # Whether a thread is making the next spare.
    _busy: bool = field(default=False, init=False)
    # Whether the last attempt failed and there has been no checkpoint since.
    _failed: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)
    _stopping: bool = field(default=False, init=False)
    _idle: Waiters = field(factory=Waiters, init=False)

    def __attrs_post_init__(self) -> None:
        self._least = min(self._checkpoint_bytes, MAX_BYTES)
        self.size = min(self._checkpoint_bytes + self._checkpoint_bytes // 16, MAX_BYTES)

    @property
    def _path(self) -> str:
        return f"{self._directory}/{NAME}"

    @property
    def ready(self) -> bool:
        """Whether there is a spare."""
        return self._file is not None

    def adopt(self) -> File | None:
        """Return the spare of an earlier process, or remove it if it does not fit. Called at start before any write.

        The caller syncs the directory, because the file may have been renamed just before a crash.
        """
        if NAME not in self._disk.list(self._directory):
            return None
        with suppress(OSError):
            file = self._disk.open(self._path)
            if self.after is not None and self._least <= file.size() <= self.size:
                return file
        with suppress(OSError):
            self._disk.unlink(self._path)
        return None

    def take(self) -> File | None:
        """Return the spare for the journal's next segment, and forget it."""
        file, self._file = self._file, None
        return file

    def prepare(self) -> None:
        """Begin to fill a spare with zeros, if there is none and none is being made."""
        if self.after is None or self._file is not None or self._busy or self._failed or self._stopping:
            return
        self._busy = True
        Deferred.fromCoroutine(self._fill()).addErrback(_log_failure).addCallback(self._over)

    def recycle(self, covered: Callable[[], list[str]]) -> Deferred[None]:
        """Keep one of the segments that a finished checkpoint covers, if there is no spare.

        :param covered: returns the paths of these segments; called in a thread. The caller removes the other segments.
        """
        self._failed = False
        if self.after is None or self._file is not None or self._busy:
            return succeed(None)
        self._busy = True
        kept: Deferred[None] = Deferred.fromCoroutine(self._keep(covered))
        return kept.addErrback(_log_failure).addCallback(self._over)

    def hold_off(self) -> None:
        """Make no other spare before the next checkpoint, because the last one could not be used."""
        self._failed = True

    def give_up(self) -> bool:
        """Remove the spare, because the disk is full.

        :return: whether there was one.
        """
        file = self._file or self._filling
        self._file = self._filling = None
        if file is None:
            return False
        self._failed = True
        with suppress(OSError):
            file.truncate(0)  # the space of an unlinked file is not freed while a thread still writes to it
        with suppress(OSError):
            self._disk.unlink(self._path)
        return True

    def stop(self) -> Deferred[None]:
        """Stop making spares; the Deferred fires when no thread is making one."""
        self._stopping = True
        if self._filling is not None:
            self.give_up()
        return self._idle.wait() if self._busy else succeed(None)

    def _over(self, _: object) -> None:
        self._busy = False
        self._idle.notify()

    async def _fill(self) -> None:
        try:
            self._filling = file = await self._run(self._create)
            if self._stopping:
                self.give_up()
            offset = 0
            # _filling changes if the spare is given up meanwhile.
            while self._filling is file and offset < self.size:
                offset = await self._run(self._fill_some, file, offset)
        except OSError as error:
            self._filling = None
            await self._dismiss(error)
        else:
            self._file, self._filling = self._filling, None
            self._told = self._told and self._file is None

    async def _keep(self, covered: Callable[[], list[str]]) -> None:
        try:
            self._file = await self._run(self._recycle, covered)
        except OSError as error:
            await self._dismiss(error)
        else:
            self._told = self._told and self._file is None

    async def _dismiss(self, error: OSError) -> None:
        """Remove the remains of a spare that could not be made."""
        self._failed = True
        if not self._told:
            self._told = True
            _log.warn(
                "no spare journal segment is kept for now, so appends to it sync more slowly: {error}", error=error
            )
        with suppress(OSError):
            await self._run(self._disk.unlink, self._path)

    # --- in threads ---

    def _check_room(self) -> None:
        free = self._disk.free_bytes(self._directory)
        if free < ROOM * self.size:
            raise OSError(errno.ENOSPC, f"of {ROOM * self.size} bytes that have to be free {free} are", self._path)

    def _create(self) -> File:
        self._check_room()
        file = self._disk.open(self._path, create=True)
        file.truncate(0)
        return file

    def _fill_some(self, file: File, offset: int) -> int:
        """Fill some pieces, and return the offset of the next one."""
        for _ in range(PIECES):
            size = min(self._piece, self.size - offset)
            if size:
                write_all(file, bytes(size), offset)
                file.sync()
                offset += size
        return offset

    def _recycle(self, covered: Callable[[], list[str]]) -> File | None:
        for path in covered():
            file = self._disk.open(path)
            size = file.size()
            if size < self._least:
                continue
            self._check_room()
            if size > self.size:
                file.truncate(self.size)
            self._disk.rename(path, self._path)
            # Otherwise a power loss could restore the segment's name while the journal writes into the file (J6).
            self._disk.sync_directory(self._directory)
            file.path = self._path
            return file
        return None


def _log_failure(failure: Failure) -> None:
    _log.failure("making a spare journal segment failed", failure)
