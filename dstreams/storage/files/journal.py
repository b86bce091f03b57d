"""The journal: an append-only log of batches, the only thing that a durable append waits for.

It lies in segments; see ``segments`` for their bytes. Batches are appended to the newest one. Sequence numbers go up by
one from batch to batch, also from segment to segment.

Where the log ends
    A segment is read up to the number with which the next one begins, the newest up to its end. The log ends at the
    first batch that is missing or invalid: a crash has torn it, or what was written after it reached the disk first.
    What is found behind that place doesn't belong to the log and is removed (``file-fast`` keeps it under names with
    ``.damaged`` behind, since it may have been acknowledged), unless it is proven that the missing
    batch was durable once: by a later batch with flag 1, or because a checkpoint covers it. Then it is damaged, not
    torn: that is corruption, and the journal refuses to open. So is a segment without a right header, and a gap
    between the catalog and the oldest segment.

Invariants
    J1. A segment's header and directory entry are durable before a batch is written into it.
    J2. Nothing is written behind bytes that may be torn: a failed write is cut away, or else the journal is dead.
    J3. After a failed sync nothing is acknowledged any more. The kernel may have dropped the pages, so a second
        sync that succeeds proves nothing.
    J4. A segment is removed only when a checkpoint covers all of its batches, or when it lies behind the log's end.
    J5. What recovery has read is durable before anything is written after it. It is synced; and because that sync may
        be such a second one that proves nothing, the newest batch, the only one that a failed sync can have left in
        doubt, is written once more, into the new segment.
    J6. A new segment may be written into a spare (``spare``), a file with any content. That bears no segment's name,
        durably, before its first byte is changed, and it gets one, by a rename, when its new header is durable. So J1
        holds for it, too, and a crash anywhere leaves no segment or a right one. Where it fails before the rename,
        nothing depends on it, and a plain file takes its place.

Room behind the end
    In a spare the newest segment is longer than what is written: behind its end are zeros, or leftovers, which are
    never taken for batches (see ``segments``). Appends overwrite them, and lengthen the file only when they are used
    up. Where a write is cut away (J2) they go with it: the file ends where the log does, and grows as a plain one does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from attrs import define, field, frozen
from twisted.logger import Logger

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
"""The end of the name of what is kept of a damaged segment."""


class Corruption(StorageError):
    """A file is damaged in a way that no crash explains.

    :param sequence: the number of the batch that isn't there.
    :param path: the segment in which it should be.
    :param offset: where it should begin.
    :param resume: the batch that the log is to go on with when what is damaged is given up.
    :param seen: the first batch that no row of the catalog tells of.
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
    """What is behind the end of the log.

    :param path: the segment in which the log ends.
    :param offset: where batch number ``sequence`` should begin, which is torn or damaged.
    :param count: how many whole batches follow, ``last`` the number of the last.
    """

    path: str
    offset: int
    sequence: int
    count: int
    last: int


@define(eq=False)
class Journal:
    """Appends batches to the newest segment.

    :param directory: where the segments are.
    :param next_sequence: the number of the next batch.
    :param synced: whether the mode promises durability, so that flag 1 can be set.
    """

    _disk: Disk
    _directory: str
    next_sequence: int
    _synced: bool
    _file: File | None = field(default=None, init=False)
    _end: int = field(default=0, init=False)
    # How long the file was when the segment was begun.
    _size: int = field(default=0, init=False)
    # How much was written into the segments that were rolled over, or that a start has read.
    _before: int = field(default=0, init=False)
    _first: int = field(default=0, init=False)
    _salt: int = field(default=0, init=False)
    _dead: str | None = field(default=None, init=False)

    @property
    def file(self) -> File:
        """The segment that has to be synced for what was appended last."""
        assert self._file is not None
        return self._file

    @property
    def synced(self) -> bool:
        """Whether every batch is synced before the next is written."""
        return self._synced

    @property
    def dead(self) -> str | None:
        """Why nothing can be appended any more, if so."""
        return self._dead

    @property
    def segment_bytes(self) -> int:
        """How much of the newest segment is written."""
        return self._end

    @property
    def grown_bytes(self) -> int:
        """How much is written since :meth:`begin_segment`: in the newest segment, in those that it has rolled over, and
        by earlier processes, as far as a start has read it.
        """
        return self._before + self._end

    @property
    def prepared_bytes(self) -> int:
        """How much more of the newest segment can be written without lengthening its file."""
        return self._size - self._end if self._size > self._end else 0

    @property
    def is_empty(self) -> bool:
        """Whether no batch is in the newest segment."""
        return self._file is not None and self.next_sequence == self._first

    def begin(
        self, found: Replay, spare: File | None = None, grown: int = 0, make_room: Callable[[], object] | None = None
    ) -> None:
        """Begin to write behind what was read (J5), which counts as growth until the next :meth:`begin_segment`.

        :param found: read to its end.
        :param spare: as for :meth:`begin_segment`.
        :param grown: as how much it counts at least.
        :param make_room: called on a full disk, when everything that was read is durable; then it is tried once more.
        :raise OSError:
        :raise StorageError: when that can't be made durable, or no segment can be begun.
        """
        failed = None
        for segment in found.read:
            try:
                segment.sync()
            except OSError as error:
                failed = error  # the others' failures are told only once too: hear them all now
        if failed is not None:
            raise storage_error(failed, f"making {self._directory} durable, whose sync failed before")
        if not self._synced:
            self._set_aside(found)
        # An empty segment behind the newest batch would come to stand in the middle of what is written from now on.
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
        """Keep what a start drops that may have been acknowledged: it is in no one's way under another name."""
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

        :param carried: the newest batch, when it has to be written once more; the segment begins with it then.
        :param spare: the file to write it into (J6); if that fails, another is made.
        :return: the number of the segment's first batch.
        :raise StorageError: when it can't be made; the old segment goes on then, unless the journal is dead.
        """
        first = self.next_sequence if carried is None else carried.sequence
        if self._file is not None and first == self._first:
            self._before = 0
            return first  # nothing in it yet
        self._switch(first, carried, spare, or_plain=True)
        self._before = 0
        return first

    def roll(self, spare: File) -> bool:
        """Go on in a spare, in the middle between two checkpoints.

        :param spare: the file to write it into (J6).
        :return: whether it could be used; else the newest segment goes on.
        :raise StorageError: as :meth:`begin_segment`.
        """
        before = self._before + self._end
        rolled = self._switch(self.next_sequence, None, spare, or_plain=False)
        if rolled:
            self._before = before
        return rolled

    def _switch(self, first: int, carried: Batch | None, spare: File | None, *, or_plain: bool) -> bool:
        """Begin a segment; whether there is one.

        :param or_plain: whether one is made of a new file when the spare can't be used.
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
            # From here on nobody knows whether a crash leaves the segment there or not.
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

        :param payload: in pieces, one at least, as :func:`dstreams.storage.pieces.gather` gives them.
        :param length: how many bytes are in them.
        :return: its sequence number.
        :raise StorageFull: when there is no room; nothing of it is left, and later appends may succeed.
        :raise StorageError: when it is too long, or the journal is dead, by this or an earlier failure.
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
        """Take no more writes (J3)."""
        if self._dead is None:
            self._dead = why

    def _cut_back(self, error: OSError) -> None:
        """Leave nothing of a failed write behind (J2)."""
        failure = storage_error(error, f"writing to the journal segment {self.file.path}")
        self._size = 0  # what was prepared goes with it, and gives its room back
        try:
            self.file.truncate(self._end)
        except OSError as second:
            self.fail(f"{failure}, and cutting it back failed: {second}")
            raise StorageError(self._dead) from second
        if not isinstance(failure, StorageFull):
            self.fail(str(failure))
        raise failure from error


def begin_anew(disk: Disk, directory: str, first: int, seen: int) -> None:
    """Let the log go on with batch ``first``: what is missing before it has been given up.

    :param seen: see :func:`replay`. Batches up to it that are given up become empty ones.
    :raise OSError:
    """
    salt = _salt()
    empty = [pack_batch(salt, sequence, 0, b"") for sequence in range(first, seen)]
    _prepare(disk, f"{directory}/{segment_name(first)}", b"".join((pack_header(first, salt), *empty)))
    disk.sync_directory(directory)


def _prepare(disk: Disk, path: str, content: bytes) -> File:
    """Put a segment there as a whole or not at all (J1); its directory isn't synced yet."""
    try:
        file = disk.open(path + _NEW, create=True)
        # One of this name may be left over from a start that failed right here.
        file.truncate(0)
        write_all(file, content, 0)
        file.sync()
        disk.rename(path + _NEW, path)
        file.path = path
    except OSError:
        with suppress(OSError):  # it is no segment under that name, and the next start removes it
            disk.unlink(path + _NEW)
        raise
    return file


def _reuse(disk: Disk, spare: File, path: str, content: bytes) -> int:
    """Make a spare a segment (J6), if it lets us; its directory isn't synced yet.

    :return: how long it is, or 0: there is no spare any more.
    :raise OSError: when it doesn't get its name.
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
        # Nothing depends on it yet. If it is the disk that is broken, a plain segment will tell.
        _log.warn("the spare journal segment can't be used: {error}", error=error)
        return 0
    spare.path = path
    return size


def _salt() -> int:
    return int.from_bytes(os.urandom(4), "little")


def replay(disk: Disk, directory: str, start: int, seen: int = 0, *, from_first: bool = False) -> Replay:
    """All batches from number ``start`` on, in order, read as they are asked for.

    :param start: the first batch that no checkpoint covers.
    :param seen: the first batch that no row of the catalog tells of. Those below it were durable.
    :param from_first: whether batches before ``start`` are wanted, too, as far as its segment has them.
    """
    return Replay(disk, directory, start, max(start, seen), from_first)


@define(eq=False)
class Replay:
    """Reads the log; iterate it once. Writes nothing."""

    _disk: Disk
    _directory: str
    _start: int
    _seen: int
    _from_first: bool
    last: Batch | None = field(default=None, init=False)
    """The newest batch."""
    read: list[Segment] = field(factory=list, init=False)
    """The segments that hold the log."""
    size: int = field(default=0, init=False)
    """How many bytes the batches from the start on take."""
    beyond: list[str] = field(factory=list, init=False)
    """The names of segments behind the log's end: they hold nothing of it."""
    dropped: Dropped | None = field(default=None, init=False)
    """What was found behind the log's end and looks like a part of it."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches.

        :raise Corruption: when one is missing or damaged; the text says where and what to do.
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
        """The segments to read: from the newest on that begins at or before the start."""
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
        """Batch ``sequence`` should be at ``offset`` and isn't: is it torn, or damaged?"""
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
