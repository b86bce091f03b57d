"""The journal: an append-only log of batches. A durable append waits for nothing else.

The log consists of segments; see ``segments`` for their format. Batches are appended to the newest segment. Sequence
numbers increase by one from batch to batch, also across segments.

Where the log ends
    A segment is read up to the number of the first batch in the next segment, the newest one up to its end. The log
    ends at the first batch that is missing or invalid: a crash tore it, or later writes reached the disk before it.
    Everything found after that place is not part of the log and is removed. (``file-fast`` keeps it under names that
    end in ``.damaged``, because it may have been acknowledged.)

    There is one exception: the missing batch is known to have been durable, because a later batch has flag 1, a
    checkpoint covers it, or rows of the catalog include it or a later one. Then it is damaged, not torn. This is
    corruption, and the journal refuses to open. A segment without a valid header, and a gap between the catalog and the
    oldest segment, are corruption too.

Invariants
    J1. The header and the directory entry of a segment are durable before a batch is written into it.
    J2. Nothing is written after bytes that may be torn: a failed write is truncated, or else the journal is dead.
    J3. After a failed sync nothing is acknowledged any more. The kernel may have dropped the pages, so a second
        sync that succeeds proves nothing.
    J4. A segment is removed only if a checkpoint covers all of its batches, or if it lies after the end of the log.
    J5. Everything that recovery has read is durable before anything is written after it. The segments are synced. But
        this may be such a second sync, which proves nothing. So the newest batch, the only one that a failed sync can
        have left in doubt, is written again, into the new segment.
    J6. A new segment may be written into a spare segment (``spare``), a file with arbitrary content. Before its first
        byte is changed, the spare durably has a name that is not a segment's. It is renamed to a segment's name when
        its new header is durable. So J1 holds for it too, and a crash at any time leaves either no segment or a valid
        one. If a step before the rename fails, nothing depends on the spare yet, and a plain file replaces it.
    J7. One user at a time: whoever writes in a thread, begins a segment there, or makes room for a group on a full
        disk, sets ``in_use`` first, and everybody else waits for ``released``.

Space after the end of the log
    A segment in a former spare is longer than the log: after the end of the log are zeros, or leftovers, which are
    never taken for batches (see ``segments``). Appends overwrite them, and lengthen the file only after they are used
    up. If a write is truncated (J2), they are removed too: the file then ends where the log does, and grows like a
    plain one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dstreams.runtime.pending import Waiters
from dstreams.storage.disk import Disk, File, copy_file, is_passing, storage_error, write_all, write_pieces
from dstreams.storage.files.segments import (
    DURABLE_BEFORE,
    HEADER_SIZE,
    MAX_BATCH_BYTES,
    Batch,
    Segment,
    is_segment,
    pack_batch,
    pack_batch_header,
    pack_header,
    segment_name,
    segments,
)
from dstreams.storage.interface import StorageError, StorageFull

__all__ = ["Batch", "Corruption", "Journal", "Replay", "begin_anew", "replay", "segment_name", "segments"]

_log = Logger()

_NEW = ".new"

ASIDE: Final = ".damaged"
"""The suffix of the name under which a damaged segment is kept."""


class Corruption(StorageError):
    """A file is damaged in a way that a crash cannot cause.

    :param sequence: the number of the missing batch.
    :param path: the segment in which it should be.
    :param offset: the offset at which it should begin.
    :param resume: the batch with which the log continues after a repair that discards the damaged part.
    :param seen: the first batch that no row of the catalog includes.
    """

    def __init__(self, text: str, sequence: int, path: str, offset: int, resume: int, seen: int) -> None:
        super().__init__(text)
        self.sequence = sequence
        self.path = path
        self.offset = offset
        self.resume = resume
        self.seen = seen


@frozen
class Dropped:
    """The bytes after the end of the log, which look like a part of it.

    :param path: the segment in which the log ends.
    :param offset: the offset at which batch number ``sequence`` should begin, which is torn or damaged.
    :param count: the number of valid batches that follow; ``last`` is the highest of their sequence numbers.
    """

    path: str
    offset: int
    sequence: int
    count: int
    last: int


@define(eq=False)
class Journal:
    """Appends batches to the newest segment.

    :param directory: the directory of the segments.
    :param next_sequence: the number of the next batch.
    :param synced: whether every batch is synced before the next is written, so that flag 1 can be set.
    """

    _disk: Disk
    _directory: str
    next_sequence: int
    _synced: bool
    _file: File | None = field(default=None, init=False)
    _end: int = field(default=0, init=False)
    # The length of the file when the segment was begun; 0 for a plain file.
    _size: int = field(default=0, init=False)
    # The number of bytes in earlier segments: those rolled over since the last checkpoint, or read at the start.
    _before: int = field(default=0, init=False)
    _first: int = field(default=0, init=False)
    _salt: int = field(default=0, init=False)
    _dead: str | None = field(default=None, init=False)
    in_use: bool = field(default=False, init=False)
    """Whether a thread writes to it, or begins a segment. Everybody else then waits for :meth:`released`."""
    _waiting: Waiters = field(factory=Waiters, init=False)

    def released(self) -> Deferred[None]:
        """Return a Deferred that fires when it is not in use any more. It may be in use again by then: check."""
        return self._waiting.wait()

    def release(self) -> None:
        """Let others use it: the one that had set ``in_use`` is done."""
        self.in_use = False
        self._waiting.notify()

    @property
    def file(self) -> File:
        """The segment to sync after an append."""
        assert self._file is not None
        return self._file

    @property
    def synced(self) -> bool:
        """Whether every batch is synced before the next is written."""
        return self._synced

    @property
    def dead(self) -> str | None:
        """Why nothing can be appended any more, or ``None``."""
        return self._dead

    @property
    def segment_bytes(self) -> int:
        """The number of bytes written in the newest segment."""
        return self._end

    @property
    def grown_bytes(self) -> int:
        """The number of bytes written since :meth:`begin_segment`.

        It includes the newest segment, the segments rolled over before it, and batches of earlier processes that were
        read at the start.
        """
        return self._before + self._end

    @property
    def prepared_bytes(self) -> int:
        """The number of bytes that can be written to the newest segment without lengthening its file."""
        return self._size - self._end if self._size > self._end else 0

    @property
    def is_empty(self) -> bool:
        """Whether the newest segment has no batch."""
        return self._file is not None and self.next_sequence == self._first

    def begin(
        self, found: Replay, spare: File | None = None, grown: int = 0, make_room: Callable[[], object] | None = None
    ) -> None:
        """Begin to write after the batches read (J5), which count as growth until the next :meth:`begin_segment`.

        :param found: the replay, which has been read to its end.
        :param spare: as for :meth:`begin_segment`.
        :param grown: minimum number of bytes that the batches read count as.
        :param make_room: called if the disk is full, once the batches are durable; then the segment is begun again.
        :raise OSError: if segments after the end of the log cannot be removed.
        :raise StorageError: if the batches cannot be made durable, or no segment can be begun.
        """
        failed = None
        for segment in found.read:
            try:
                segment.sync()
            except OSError as error:
                failed = error  # continue, because the kernel reports a failure of the other segments only once too
        if failed is not None:
            raise storage_error(failed, f"making {self._directory} durable, whose sync failed before")
        if not self._synced:
            self._set_aside(found)
        # An empty segment after the newest batch would be in the middle of the batches written from now on.
        last = None if found.last is None else segment_name(found.last.sequence)
        for name in self._disk.list(self._directory):
            behind = last is not None and is_segment(name) and name > last
            if behind or name in found.beyond or name.endswith(_NEW):
                self._disk.unlink(f"{self._directory}/{name}")
        self._disk.sync_directory(self._directory)
        carried = found.last if self._synced else None
        try:
            self.begin_segment(carried, spare)
        except StorageFull:
            if make_room is None:
                raise
            make_room()
            self.begin_segment(carried)
        self._before = max(found.size, grown)

    def _set_aside(self, found: Replay) -> None:
        """Keep the dropped part of the log under other names, because it may have been acknowledged."""
        dropped = found.dropped
        if dropped is None:
            return
        aside = [f"{self._directory}/{name}{ASIDE}" for name in found.beyond]
        kept: list[str] = []
        try:
            copy_file(self._disk, dropped.path, dropped.path + ASIDE)
            kept.append(dropped.path + ASIDE)
            for path in aside:
                self._disk.rename(path.removesuffix(ASIDE), path)
                kept.append(path)
        except OSError as error:
            _log.warn("what the journal has lost can't be set aside: {error}", error=error)
        _log.error(
            "the journal ends before batch {sequence}, at byte {offset} of {path}, which is torn or damaged. It is"
            " dropped with {count} whole batches behind it, up to number {last}; all of them are kept in {kept}",
            sequence=dropped.sequence,
            offset=dropped.offset,
            path=dropped.path,
            count=dropped.count,
            last=dropped.last,
            kept=", ".join(kept) or "nothing",
        )

    def begin_segment(self, carried: Batch | None = None, spare: File | None = None) -> int:
        """Begin a new segment with the next batch.

        :param carried: the newest batch, if it has to be written again; then the segment begins with it.
        :param spare: the file to write the segment into (J6); if that fails, a new file is created.
        :return: the number of the segment's first batch.
        :raise StorageError: if it cannot be created; then the old segment stays in use, unless the journal is dead.
        """
        first = self.next_sequence if carried is None else carried.sequence
        if self._file is not None and first == self._first:
            self._before = 0
            return first  # nothing in it yet
        self._switch(first, carried, spare, or_plain=True)
        self._before = 0
        return first

    def roll(self, spare: File) -> bool:
        """Roll over to a spare segment between two checkpoints.

        :param spare: the file to write the segment into (J6).
        :return: whether it could be used; if not, the newest segment stays in use.
        :raise StorageError: as for :meth:`begin_segment`.
        """
        before = self._before + self._end
        rolled = self._switch(self.next_sequence, None, spare, or_plain=False)
        if rolled:
            self._before = before
        return rolled

    def _switch(self, first: int, carried: Batch | None, spare: File | None, *, or_plain: bool) -> bool:
        """Begin a segment.

        :param or_plain: whether to create a new file if the spare cannot be used.
        :return: whether a segment was begun.
        """
        path = f"{self._directory}/{segment_name(first)}"
        salt = _salt()
        content = pack_header(first, salt)
        if carried is not None:
            content += pack_batch(salt, first, self._flags, carried.payload)
        doubt = False
        try:
            size = 0 if spare is None else _reuse(self._disk, spare, path, content)
            if spare is not None and size:
                file = spare
            elif or_plain:
                file = _prepare(self._disk, path, content)
            else:
                return False
            # From here on, it is undefined whether the segment exists after a crash.
            doubt = True
            self._disk.sync_directory(self._directory)
        except OSError as error:
            failure = storage_error(error, f"beginning the journal segment {path}")
            if doubt or not is_passing(error):
                self.fail(str(failure))
            raise failure from error
        self._file, self._first, self._end, self._salt = file, first, len(content), salt
        self._size = size
        return True

    @property
    def _flags(self) -> int:
        return DURABLE_BEFORE if self._synced else 0

    def append(self, payload: Sequence[bytes], length: int) -> int:
        """Write one batch; it is durable when :attr:`file` has been synced.

        :param payload: at least one piece, as returned by :func:`dstreams.storage.pieces.gather`.
        :param length: the number of bytes of all pieces.
        :return: the sequence number of the batch.
        :raise StorageFull: if there is no space; nothing of the batch is left, and later appends may succeed.
        :raise StorageError: if the batch is too long, or the journal is dead because of this or an earlier failure.
        """
        if self._dead is not None:
            raise StorageError(f"the journal takes no more writes since {self._dead}")
        if length > MAX_BATCH_BYTES:
            raise StorageError(f"a batch of {length} bytes is too long; the limit is {MAX_BATCH_BYTES}")
        assert self._file is not None
        sequence = self.next_sequence
        header = pack_batch_header(self._salt, sequence, self._flags, payload)
        try:
            if len(payload) == 1:
                write_all(self._file, header + payload[0], self._end)
            else:
                write_pieces(self._file, (header, *payload), self._end)
        except OSError as error:
            self._cut_back(error)
        self._end += len(header) + length
        self.next_sequence = sequence + 1
        return sequence

    def fail(self, why: str) -> None:
        """Reject all writes from now on (J3)."""
        if self._dead is None:
            self._dead = why

    def _cut_back(self, error: OSError) -> None:
        """Truncate a failed write (J2), and raise the error."""
        failure = storage_error(error, f"writing to the journal segment {self.file.path}")
        self._size = 0  # the prepared space is truncated too, and becomes free
        try:
            self.file.truncate(self._end)
        except OSError as second:
            self.fail(f"{failure}, and cutting it back failed: {second}")
            raise StorageError(self._dead) from second
        if not isinstance(failure, StorageFull):
            self.fail(str(failure))
        raise failure from error


def begin_anew(disk: Disk, directory: str, first: int, seen: int) -> None:
    """Begin a segment with batch ``first``, after a repair has discarded the damaged part of the log.

    :param seen: see :func:`replay`. Discarded batches below it are replaced with empty ones.
    :raise OSError: if the segment cannot be written.
    """
    salt = _salt()
    empty = [pack_batch(salt, sequence, 0, b"") for sequence in range(first, seen)]
    _prepare(disk, f"{directory}/{segment_name(first)}", b"".join((pack_header(first, salt), *empty)))
    disk.sync_directory(directory)


def _prepare(disk: Disk, path: str, content: bytes) -> File:
    """Create a segment completely or not at all (J1). The caller syncs its directory."""
    try:
        file = disk.open(path + _NEW, create=True)
        # A start that failed at this point may have left a file of this name.
        file.truncate(0)
        write_all(file, content, 0)
        file.sync()
        disk.rename(path + _NEW, path)
        file.path = path
    except OSError:
        with suppress(OSError):  # the name is not a segment's, and the next start removes the file
            disk.unlink(path + _NEW)
        raise
    return file


def _reuse(disk: Disk, spare: File, path: str, content: bytes) -> int:
    """Turn a spare into a segment (J6). The caller syncs its directory.

    :return: the length of the file; 0 if that failed and the spare was removed.
    :raise OSError: if the rename fails.
    """
    renaming = False
    try:
        size = spare.size()
        write_all(spare, content, 0)
        spare.sync()
        renaming = True
        disk.rename(spare.path, path)
    except OSError as error:
        with suppress(OSError):
            disk.unlink(spare.path)
        if renaming:
            raise
        # Nothing depends on it yet. If the disk is broken, creating a plain segment will fail too.
        _log.warn("the spare journal segment can't be used: {error}", error=error)
        return 0
    spare.path = path
    return size


def _salt() -> int:
    return int.from_bytes(os.urandom(4), "little")


def replay(disk: Disk, directory: str, start: int, seen: int = 0, *, from_first: bool = False) -> Replay:
    """Return all batches from number ``start`` on, in order. They are read during the iteration.

    :param start: the first batch that no checkpoint covers.
    :param seen: the first batch that no row of the catalog includes. The batches below it were durable.
    :param from_first: whether to include batches before ``start``, as far as they are in the same segment.
    """
    return Replay(disk, directory, start, max(start, seen), from_first)


@define(eq=False)
class Replay:
    """Reads the log, without writing to it. It can be iterated only once."""

    _disk: Disk
    _directory: str
    _start: int
    _seen: int
    _from_first: bool
    last: Batch | None = field(default=None, init=False)
    """The newest batch, unless a checkpoint covers it."""
    read: list[Segment] = field(factory=list, init=False)
    """The segments of the log."""
    size: int = field(default=0, init=False)
    """The number of bytes of the batches from the start on."""
    beyond: list[str] = field(factory=list, init=False)
    """The names of segments after the end of the log."""
    dropped: Dropped | None = field(default=None, init=False)
    """The bytes after the end of the log that look like a part of it, or ``None``."""

    def __iter__(self) -> Iterator[Batch]:
        """Return the batches in order.

        :raise Corruption: if a batch is missing or damaged; the text says where, and what to do.
        """
        numbers = self._numbers()
        for index, first in enumerate(numbers):
            segment = self._open(first)
            self.read.append(segment)
            following = numbers[index + 1] if index + 1 < len(numbers) else None
            sequence, offset = first, HEADER_SIZE
            for batch in segment.batches(following):
                sequence, offset = batch.sequence + 1, batch.end
                if batch.sequence >= self._start:
                    self.last = batch
                    self.size += batch.end - batch.offset
                    yield batch
                elif self._from_first:
                    yield batch
            segment.release()
            if sequence != following:
                self._end(segment, sequence, offset, numbers[index + 1 :])
                return

    def _numbers(self) -> list[int]:
        """Return the segments to read: the newest one that begins at or before the start, and all later ones."""
        numbers = segments(self._disk, self._directory)
        before = sum(number <= self._start for number in numbers)
        if before:
            return numbers[before - 1 :]
        if not numbers and not self._start:
            return []
        found = f"the oldest segment is {segment_name(numbers[0])}" if numbers else "it has no segments"
        raise Corruption(
            f"{self._directory}: batch {self._start} is missing, {found}. Segments were removed, or catalog.db has lost"
            " its newest checkpoint. Restore the whole data directory from a backup, or run 'durable-streams check"
            " --repair' to give up everything after the checkpoint that catalog.db has",
            self._start,
            f"{self._directory}/{segment_name(self._start)}",
            0,
            self._start,
            self._seen,
        )

    def _open(self, first: int) -> Segment:
        segment = Segment.open(self._disk, self._directory, first)
        if not segment.read_header():
            why = f"{segment.path} has no valid header; {_ADVICE}"
            raise Corruption(why, first, segment.path, 0, max(first, self._start), self._seen)
        return segment

    def _end(self, segment: Segment, sequence: int, offset: int, later: list[int]) -> None:
        """Decide whether batch ``sequence``, which is missing at ``offset``, is torn or damaged.

        :raise Corruption: if it is damaged.
        """
        proof, count, last = None, 0, sequence
        for each in (segment, *map(self._open, later)):
            for batch in each.later(offset if each is segment else HEADER_SIZE, sequence):
                count, last = count + 1, max(last, batch.sequence)
                if proof is None and batch.flags & DURABLE_BEFORE:
                    proof = batch.sequence
            each.release()
        why = None
        if proof is not None:
            why = f"but batch {proof} was written when it was durable"
        elif sequence < self._start:
            why = f"but a checkpoint covers it and all up to batch {self._start - 1}"
        elif sequence < self._seen:
            why = f"but catalog.db tells of batch {self._seen - 1}"
        if why is not None:
            what = f"{segment.path}: batch {sequence} at byte {offset} is missing or invalid"
            resume = max(sequence, self._start)
            raise Corruption(f"{what}, {why}; {_ADVICE}", sequence, segment.path, offset, resume, self._seen)
        self.beyond = [segment_name(first) for first in later]
        if count or segment.is_torn(offset, sequence):
            self.dropped = Dropped(segment.path, offset, sequence, count, last)


_ADVICE = (
    "the file is damaged, not torn by a crash. Restore it from a backup, or run 'durable-streams check --repair'"
    " to give up what follows"
)
