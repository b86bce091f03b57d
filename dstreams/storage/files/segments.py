"""Journal segments: the format of the files that the journal consists of.

Files
    ``journal/<n>.log``; ``<n>`` is the sequence number of the segment's first batch in 16 hexadecimal digits. A segment
    begins with a header of 24 bytes: ``b"DSJ1"``, u32 format version (1), u64 first sequence number, u32 salt (a random
    number), u32 CRC-32 of the 20 bytes before it. All numbers are little-endian. The header is written and synced under
    a name that is not a segment's (``<n>.log.new``, or ``spare``), and then the file is renamed. So a segment never
    exists without its header.

Batches
    They follow the header without gaps. A batch begins with a header of 28 bytes: ``b"DSB1"``, u32 payload length, u64
    sequence number, u32 flags, u32 CRC-32 of the payload, u32 CRC-32 of the segment's salt and the 24 bytes before it.
    The payload follows: the changes of one commit, as ``records`` writes them. Sequence numbers increase by one from
    batch to batch. Flag 1: every batch before this one was durable when this one was written.

Validity
    A batch is valid if its magic, its number and both checksums are correct. The salt excludes bytes that only look
    like a batch: reappearing blocks of a deleted segment, or a client's payload that contains a piece of a journal.

After the last batch
    There may be anything: the end of the file, zeros, or, in a segment that was written into an older one (``spare``),
    batches and fragments of batches from one or several earlier uses of the file. None of it is ever taken for a batch
    of the segment, or for the proof that a batch is damaged. There are two reasons:

    - Every use of a file has another salt. The CRC-32 of a batch header starts with the salt, and for the same bytes
      two different salts never give the same CRC-32. So an old header is valid only if the same 32 random bits recur.
    - Sequence numbers are never reused in a store, except those of batches that were torn or discarded. A file is
      recycled only when a checkpoint covers all of its batches in the log. So the complete batches of its earlier uses
      have smaller numbers than the segment's first batch. But a batch must have exactly the next number, and a proof
      must have a greater one. (``file-fast`` can leave greater numbers, because a power loss may end the log before
      batches that reached the disk. Only the salts exclude those.)

    A batch torn among leftovers is a mixture of both, which its checksums detect like any other damage.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Final
from zlib import crc32

from attrs import define, field, frozen

from dstreams.storage.disk import Disk, File
from dstreams.storage.interface import StorageError

_SEGMENT_HEADER = struct.Struct("<4sIQI")
_BATCH_HEADER = struct.Struct("<4sIQII")
_CRC = struct.Struct("<I")
_SEGMENT_MAGIC, _BATCH_MAGIC = b"DSJ1", b"DSB1"
_BATCH_HEADER_SIZE = _BATCH_HEADER.size + _CRC.size
_NUMBERED_SIZE = 16
"""The number of bytes of a batch header up to the end of the sequence number."""

HEADER_SIZE: Final = _SEGMENT_HEADER.size + _CRC.size

DURABLE_BEFORE: Final = 1
"""The flag of a batch that was written when all earlier batches were durable."""

MAX_BATCH_BYTES: Final = 1 << 30
"""Maximum number of bytes of a payload. A greater length in a header means that the header is damaged."""

_READ_BYTES = 1 << 20
"""Minimum number of bytes of a segment that are read at a time."""


@frozen
class Batch:
    """A valid batch that was read from a segment.

    :param offset: the offset of its header in the segment.
    :param end: the offset of its end.
    :param flags: see the module.
    """

    sequence: int
    payload: bytes
    offset: int
    end: int
    flags: int = 0


def segment_name(first: int) -> str:
    """Return the file name of the segment that begins with batch ``first``."""
    return f"{first:016x}.log"


def segments(disk: Disk, directory: str) -> list[int]:
    """Return the first sequence number of every segment, in ascending order."""
    return [int(name[:-4], 16) for name in disk.list(directory) if is_segment(name)]


def is_segment(name: str) -> bool:
    """Whether ``name`` is the file name of a segment."""
    return len(name) == 20 and name.endswith(".log")


def pack_header(first: int, salt: int) -> bytes:
    """Return the header of a segment."""
    header = _SEGMENT_HEADER.pack(_SEGMENT_MAGIC, 1, first, salt)
    return header + _CRC.pack(crc32(header))


def pack_batch(salt: int, sequence: int, flags: int, payload: bytes) -> bytes:
    """Return a batch in its form in a segment with this salt."""
    return pack_batch_header(salt, sequence, flags, (payload,)) + payload


def pack_batch_header(salt: int, sequence: int, flags: int, payload: Sequence[bytes]) -> bytes:
    """Return the header of a batch in a segment with this salt.

    :param payload: the payload of the batch, in pieces.
    """
    length = checksum = 0
    for piece in payload:
        length += len(piece)
        checksum = crc32(piece, checksum)
    header = _BATCH_HEADER.pack(_BATCH_MAGIC, length, sequence, flags, checksum)
    return header + _CRC.pack(crc32(header, salt))


@define(eq=False)
class Segment:
    """Reads one segment.

    :param first: the number in its name.
    """

    path: str
    first: int
    _data: _Window
    _salt: int = field(default=0, init=False)

    @classmethod
    def open(cls, disk: Disk, directory: str, first: int) -> Segment:
        """Open the segment that begins with batch ``first``.

        :raise OSError: if the file cannot be opened.
        """
        path = f"{directory}/{segment_name(first)}"
        return cls(path, first, _Window(disk.open(path, write=False)))

    def read_header(self) -> bool:
        """Read the header, which must be done before anything else is read.

        :return: whether it is valid.
        :raise StorageError: if it has another format.
        """
        header = self._data.read(0, HEADER_SIZE)
        if len(header) < HEADER_SIZE:
            return False
        magic, version, number, self._salt = _SEGMENT_HEADER.unpack_from(header)
        checksum = _CRC.unpack_from(header, _SEGMENT_HEADER.size)[0]
        if magic != _SEGMENT_MAGIC or checksum != crc32(header[: _SEGMENT_HEADER.size]):
            return False
        if version != 1:
            raise StorageError(f"{self.path} has format {version}; this version reads format 1")
        return bool(number == self.first)

    def batches(self, until: int | None) -> Iterator[Batch]:
        """Return the valid batches from the first on, until one is invalid or the next number is ``until``."""
        offset, sequence = HEADER_SIZE, self.first
        while sequence != until:
            batch = self._batch(offset)
            if batch is None or batch.sequence != sequence:
                return
            yield batch
            offset, sequence = batch.end, sequence + 1

    def later(self, offset: int, sequence: int) -> Iterator[Batch]:
        """Return the valid batches at or after ``offset`` whose numbers are greater than ``sequence``.

        If one of them has flag 1, batch ``sequence`` was durable.
        """
        later = _numbered_after(sequence)
        while (offset := self._data.find(later, offset)) >= 0:
            batch = self._batch(offset)
            if batch is not None and batch.sequence > sequence:
                yield batch
                offset = batch.end
            else:
                offset += 1

    def is_torn(self, offset: int, sequence: int) -> bool:
        """Whether the header of batch ``sequence`` begins at ``offset``, at which there is no valid batch."""
        header = self._data.read(offset, _NUMBERED_SIZE)
        return header[:4] == _BATCH_MAGIC and header[8:] == sequence.to_bytes(8, "little")

    def sync(self) -> None:
        """Sync the segment, so that everything read is durable.

        :raise OSError: if that fails.
        """
        self._data.file.sync()

    def release(self) -> None:
        """Discard the buffer after everything has been read."""
        self._data.clear()

    def _batch(self, offset: int) -> Batch | None:
        """Return the batch at ``offset`` if it is valid. It may have any number."""
        header = self._data.read(offset, _BATCH_HEADER_SIZE)
        if len(header) < _BATCH_HEADER_SIZE:
            return None
        magic, length, number, flags, checksum = _BATCH_HEADER.unpack_from(header)
        if magic != _BATCH_MAGIC or length > MAX_BATCH_BYTES:
            return None
        if _CRC.unpack_from(header, _BATCH_HEADER.size)[0] != crc32(header[: _BATCH_HEADER.size], self._salt):
            return None
        begin = offset + _BATCH_HEADER_SIZE
        if begin + length > self._data.size:
            return None
        payload = self._data.read(begin, length)
        if len(payload) != length or crc32(payload) != checksum:
            return None
        return Batch(number, payload, offset, begin + length, flags)


def _numbered_after(sequence: int) -> re.Pattern[bytes]:
    """Return a pattern that matches possible headers of batches with greater numbers.

    A recycled segment is full of older batches. Rejecting them one by one took 0.41 s for 64 MiB of batches of 68
    bytes, and 0.19 s for batches of 168 bytes. A single pattern takes 0.18 s and 0.09 s (64 MiB of zeros: 0.04 s).
    """
    number = sequence.to_bytes(8, "little")
    # One byte is greater, and all more significant bytes are equal.
    greater = [
        b".{%d}[%b-\xff]%b" % (place, re.escape(bytes([number[place] + 1])), re.escape(number[place + 1 :]))
        for place in range(7, -1, -1)
        if number[place] < 0xFF
    ]
    return re.compile(_BATCH_MAGIC + b"(?=.{4}(?:" + b"|".join(greater) + b"))", re.DOTALL)


class _Window:
    """Reads a file through a buffer that moves forward."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.size = file.size()
        self._start = 0
        self._buffer = b""

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes at ``offset``, or fewer at the end of the file."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._buffer):
            self._start = offset
            self._buffer = self.file.pread(max(size, _READ_BYTES), offset)
            begin = 0
        return self._buffer[begin : begin + size]

    def clear(self) -> None:
        """Discard the buffer."""
        self._buffer = b""

    def find(self, pattern: re.Pattern[bytes], offset: int) -> int:
        """Return the first offset, from ``offset`` on, at which ``pattern`` matches, or -1.

        :param pattern: matches within ``_NUMBERED_SIZE`` bytes of a header.
        """
        while offset + _NUMBERED_SIZE <= self.size:
            self.read(offset, _NUMBERED_SIZE)
            found = pattern.search(self._buffer, offset - self._start)
            if found is not None:
                return self._start + found.start()
            after = self._start + len(self._buffer) - _NUMBERED_SIZE + 1
            if after <= offset:
                break  # the file has become shorter since it was opened
            offset = after
        return -1
