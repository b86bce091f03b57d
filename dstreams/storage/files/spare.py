"""A spare segment: a file whose blocks were written before, for the journal to go on in.

    <data_dir>/journal/spare

Why
    A sync after an append that lengthens its file waits until the file system has put the new length and the new blocks
    into a journal of its own: 235 us measured on ext4, 145 us where the blocks were written before. Only
    ``file-durable`` syncs; no other mode has a spare. Appends of 100 bytes over 32 connections, four runs each in turn:
    36,800 a second against 32,100 without, for 28 us of processor time against 32; over one connection 3,110 against
    2,660.

Life
    1. It is made: a segment that a checkpoint covers is recycled (it gets this name, and the directory is synced), or
       a new file is filled with zeros, in pieces, each synced before the next is written.
    2. It is ready. What is in it doesn't matter: leftovers of a segment are never taken for batches (``segments``).
    3. The journal takes it for its next segment (J6), or it is given up: it is the first thing to go on a full disk.
    A start takes one that a process left behind, if its length is right, and removes any other.

There is never more than one, and none before the journal has grown by :data:`AFTER_BYTES` since the last checkpoint, so
that a small store stays small. One that can't be made, or isn't synced without an error, is never used and harms
nothing: the next try is after the next checkpoint, and the log says it once.

Which thread: the state is the reactor's; only files are touched in threads.
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

from dstreams.runtime.waiters import Waiters
from dstreams.storage.disk import Disk, File, write_all
from dstreams.storage.sync import Run

_log = Logger()

NAME: Final = "spare"
"""No segment's name, so that no reader of the journal sees it."""

AFTER_BYTES: Final = 1024 * 1024
"""How far the journal has to have grown before a spare is made: a tiny or an idle store never gets there."""

PIECE_BYTES: Final = 64 * 1024
"""How much is filled before it is synced. The syncs of appends share the disk with that: alone they took 200 us
(one in a hundred 300), beside pieces of 64 KiB 290 (440) for the 0.4 s that 68 MiB take, of 1 MiB 330 (8,000)."""

PIECES: Final = 16
"""How many pieces a thread fills before it asks whether to go on."""

MAX_BYTES: Final = 128 * 1024 * 1024
"""The longest spare, however seldom checkpoints are."""

ROOM: Final = 4
"""No spare is made or kept unless so many times its length are free: on a small disk the room has better uses."""


@define(eq=False)
class SpareSegment:
    """Makes the spare and keeps it until it is taken.

    :param directory: the journal's.
    :param run: runs work in a thread.
    :param checkpoint_bytes: how far the journal grows between two checkpoints.
    :param after: see :data:`AFTER_BYTES`; ``None`` when none is wanted at all.
    :param piece: see :data:`PIECE_BYTES`.
    """

    _disk: Disk
    _directory: str
    _run: Run
    _checkpoint_bytes: int
    after: int | None = AFTER_BYTES
    _piece: int = PIECE_BYTES
    size: int = field(init=False)
    """Its length: a segment is a little longer than what makes a checkpoint due."""
    _least: int = field(init=False)
    _file: File | None = field(default=None, init=False)
    _filling: File | None = field(default=None, init=False)
    # Whether a thread is at work on the next one.
    _busy: bool = field(default=False, init=False)
    # Whether the last try failed and no checkpoint was taken since.
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
        """Whether there is one."""
        return self._file is not None

    def adopt(self) -> File | None:
        """Take what an earlier process left, or remove it: at a start, before anything is written.

        The caller syncs the directory: its name may have been given to it just before a crash.
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
        """The spare, for the journal's next segment; there is none any more."""
        file, self._file = self._file, None
        return file

    def prepare(self) -> None:
        """Begin to fill one with zeros, if there is none and none on its way."""
        if self.after is None or self._file is not None or self._busy or self._failed or self._stopping:
            return
        self._busy = True
        Deferred.fromCoroutine(self._fill()).addErrback(_log_failure).addCallback(self._over)

    def recycle(self, covered: Callable[[], list[str]]) -> Deferred[None]:
        """A checkpoint is over: keep one of the segments that it covers, if there is no spare.

        :param covered: gives their paths, called in a thread; what isn't kept is the caller's to remove.
        """
        self._failed = False
        if self.after is None or self._file is not None or self._busy:
            return succeed(None)
        self._busy = True
        kept: Deferred[None] = Deferred.fromCoroutine(self._keep(covered))
        return kept.addErrback(_log_failure).addCallback(self._over)

    def hold_off(self) -> None:
        """The spare couldn't be used: make no other before the next checkpoint."""
        self._failed = True

    def give_up(self) -> bool:
        """The disk is full: give its room back; whether there was any."""
        file = self._file or self._filling
        self._file = self._filling = None
        if file is None:
            return False
        self._failed = True
        with suppress(OSError):
            file.truncate(0)  # a thread that writes to it would keep the room beyond the name
        with suppress(OSError):
            self._disk.unlink(self._path)
        return True

    def stop(self) -> Deferred[None]:
        """Make no more; fires when no thread is at work."""
        self._stopping = True
        if self._filling is not None:
            self.give_up()
        return self._idle.wait() if self._busy else succeed(None)

    def _over(self, _: object) -> None:
        self._busy = False
        self._idle.tell()

    async def _fill(self) -> None:
        try:
            self._filling = file = await self._run(self._create)
            if self._stopping:
                self.give_up()
            offset = 0
            # Unless it is given up meanwhile.
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
        """It couldn't be made: leave nothing of it."""
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
        """Fill some pieces; where the next begins."""
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
            # Else a power loss could give the segment's name back to what the journal is about to write into (J6).
            self._disk.sync_directory(self._directory)
            file.path = self._path
            return file
        return None


def _log_failure(failure: Failure) -> None:
    _log.failure("making a spare journal segment failed", failure)
