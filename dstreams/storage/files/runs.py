"""Checksums of the data and index files.

The bytes that a checkpoint writes for a stream are cut into *runs* of at most :data:`RUN_BYTES` bytes of data and
:data:`RUN_ENTRIES` index entries; a long message is cut too. Each run has an entry in ``<i>.sums``, 32 bytes,
little-endian:

    u64  the position after its last byte
    u64  the number of the stream's messages that end at or before that position
    u16  the number of its bytes
    u16  the number of messages that end in it
    u32  CRC-32 of its bytes in the data file
    u32  CRC-32 of its entries in the index file
    u32  CRC-32 of the 28 bytes before, started from a number that depends on stream and place: see :func:`_seed`

Entries ascend and never change. So the file is also a sparse index: a position is found by bisection, and then only one
run of the index file has to be read.

Which entries are valid
    All entries that end at or before the tail in the catalog. After them there may be leftovers of a checkpoint that a
    crash interrupted: entries that end after the tail, zeros, or fragments. The next checkpoint overwrites these, and
    truncates the file to its new length before the catalog changes.

    If an entry that should be valid has a wrong checksum, it is damaged. Entries do not depend on each other, so only
    the positions of that run cannot be read.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Final, NamedTuple, TypeVar
from zlib import crc32

from attrs import define, field

from dstreams.storage import index
from dstreams.storage.disk import File
from dstreams.storage.interface import StorageDamaged
from dstreams.storage.pieces import Chunk

_K = TypeVar("_K")

RUN_BYTES: Final = 8 * 1024
"""Maximum number of bytes in a run. A read verifies up to two more runs at its edges, which takes 4 us each."""

RUN_ENTRIES: Final = 1024
"""Maximum number of index entries in a run."""

SUM_BYTES: Final = 32

ENTRY_BYTES: Final = 8
"""The number of bytes of an entry in an index file."""

_ENTRY = struct.Struct("<QQHHII")
_CRC = struct.Struct("<I")

BLOCK_RUNS: Final = 128
"""Maximum number of entries that are read at a time: a page."""


class WouldWait(Exception):
    """The bytes to read are not in the page cache."""


class Run(NamedTuple):
    """A run, as described by its entry.

    :param end: the position after its last byte.
    :param messages: the number of the stream's messages that end at or before that position.
    :param size: the number of its bytes.
    :param ends: the number of messages that end in it.
    """

    end: int
    messages: int
    size: int
    ends: int
    data_crc: int
    index_crc: int

    @property
    def begin(self) -> int:
        """The position of its first byte."""
        return self.end - self.size

    @property
    def first(self) -> int:
        """The number of the first message that ends in it, if there is one."""
        return self.messages - self.ends


def cut(position: int, number: int, data: Sequence[Chunk], entries: index.Index) -> Iterator[Run]:
    """Cut consecutive messages into runs.

    :param position: the position of the first byte.
    :param number: the number of the stream's messages before these.
    :param data: the bytes of the messages, in pieces.
    :param entries: the index entries of the messages.
    """
    packed = memoryview(index.packed(entries))
    sums = _Summing(data)
    first, begin, end = 0, position, position + sum(map(len, data))
    while begin < end:
        stop = min(begin + RUN_BYTES, end)
        last = bisect_right(entries, stop << 1 | index.APPEND_END, first)
        if last - first > RUN_ENTRIES:
            last = first + RUN_ENTRIES
            stop = entries[last - 1] >> 1
        index_crc = crc32(packed[ENTRY_BYTES * first : ENTRY_BYTES * last])
        yield Run(stop, number + last, stop - begin, last - first, sums.take(stop - begin), index_crc)
        first, begin = last, stop


class _Summing:
    """Computes the checksums of consecutive parts of bytes that are in pieces."""

    def __init__(self, pieces: Sequence[Chunk]) -> None:
        self._pieces = iter(pieces)
        self._view = memoryview(b"")

    def take(self, size: int) -> int:
        """Return the checksum of the next ``size`` bytes."""
        checksum = 0
        while size > len(self._view):
            size -= len(self._view)
            checksum = crc32(self._view, checksum)
            self._view = memoryview(next(self._pieces))
        checksum = crc32(self._view[:size], checksum)
        self._view = self._view[size:]
        return checksum


def packed(stream_id: int, place: int, runs: Sequence[Run]) -> bytes:
    """Return entries in their form in the file.

    :param place: the number of the first entry.
    """
    found = bytearray()
    for number, run in enumerate(runs, place):
        entry = _ENTRY.pack(*run)
        found += entry + _CRC.pack(crc32(entry, _seed(stream_id, number)))
    return bytes(found)


def unpacked(data: bytes, offset: int, stream_id: int, place: int) -> Run | None:
    """Return an entry, or ``None`` if its checksum is wrong.

    :param offset: its offset in ``data``, which must contain all of it.
    :param place: its number.
    """
    end = offset + _ENTRY.size
    if crc32(data[offset:end], _seed(stream_id, place)) != _CRC.unpack_from(data, end)[0]:
        return None
    return Run._make(_ENTRY.unpack_from(data, offset))


def _seed(stream_id: int, place: int) -> int:
    """Return the start value of a checksum, so that an entry of another stream or place is not taken for this one.

    For the same bytes, two different start values never give the same CRC-32.
    """
    return (stream_id ^ stream_id >> 32 ^ (place + 1) * 0x9E3779B1) & 0xFFFFFFFF


def valid_runs(file: File, size: int, stream_id: int, tail: int) -> int:
    """Return how many entries a checkpoint keeps that continues from ``tail``.

    The search starts at the end of the file, because nearly always its last entry is the one that ends at the tail.

    :param size: the size of the file.
    :raise OSError: if the file cannot be read.
    """
    after = size // SUM_BYTES
    first = max(0, after - 1)
    while after:
        data = file.pread((after - first) * SUM_BYTES, first * SUM_BYTES)
        for place in range(first + len(data) // SUM_BYTES - 1, first - 1, -1):
            run = unpacked(data, (place - first) * SUM_BYTES, stream_id, place)
            if run is not None and run.end <= tail:
                return place + 1
        after, first = first, max(0, first - BLOCK_RUNS)
    return 0


@define(eq=False)
class Block:
    """Consecutive entries of a stream, in their form in its file.

    :param place: the number of the first entry.
    :param limit: the position up to which entries were valid when the block was read. A checkpoint may have changed
        later entries since then.
    """

    _stream_id: int
    place: int
    _data: bytes
    limit: int
    _known: dict[int, Run | None] = field(factory=dict, init=False)
    after: int = field(init=False)
    """The number after that of the last entry."""
    begin: int = field(default=0, init=False)
    """The position where the first run with a valid entry begins."""
    end: int = field(default=0, init=False)
    """The position where the last such run ends, at most the limit; 0 if there is none."""
    is_complete: bool = field(default=False, init=False)
    """Whether none of its entries can change any more."""

    def __attrs_post_init__(self) -> None:
        first, last = self.place, self.place + len(self._data) // SUM_BYTES
        self.after = last
        while first < last and self.run(first) is None:
            first += 1
        while first < last and self.run(last - 1) is None:
            last -= 1
        if first < last:
            begin, end = self.run(first), self.run(last - 1)
            assert begin is not None and end is not None  # noqa: PT018
            self.begin, self.end = begin.begin, min(end.end, self.limit)
            self.is_complete = self.after - self.place == BLOCK_RUNS and end.end <= self.limit

    def run(self, place: int) -> Run | None:
        """Return the run with that number, or ``None`` if its entry is damaged."""
        known = self._known
        if place not in known:
            known[place] = unpacked(self._data, (place - self.place) * SUM_BYTES, self._stream_id, place)
        return known[place]

    def find(self, position: int) -> int:
        """Return the number of the run with the byte before ``position``.

        The result is valid only if the run is in this block and no entry is damaged, which the caller checks.
        """
        low, high = self.place, self.after - 1
        while low < high:
            middle = (low + high) // 2
            run = self.run(middle)
            if run is not None and run[0] < position:
                low = middle + 1
            else:
                high = middle
        return low

    def runs(self, start: int, end: int) -> list[Run] | None:
        """Return the runs with the bytes from ``start`` up to ``end``.

        Return ``None`` if they are not all in this block, or if an entry is damaged.
        """
        if not self.begin <= start < end <= self.end:
            return None
        place = self.find(start + 1)
        run = self.run(place)
        if run is None or not run[0] - run[2] <= start < run[0]:
            return None
        found, reached = [run], run[0]
        while reached < end:
            place += 1
            run = self.run(place)
            if run is None or run[0] - run[2] != reached:
                return None
            found.append(run)
            reached = run[0]
        return found

    def look_for(self, position: int) -> tuple[Run | None, bool]:
        """Search all entries for the run with the byte before ``position``.

        :return: the run, and ``True``; or ``None``, and whether its entry should be in this block.
        """
        before = after = False
        for place in range(self.place, self.after):
            run = self.run(place)
            if run is None:
                continue
            if run.begin < position <= run.end:
                return run, True
            before = before or run.end < position
            after = after or run.begin >= position
        return None, before and after


@define(eq=False)
class Blocks:
    """A cache of the blocks read last, of all streams. May be used by several threads.

    :param most: maximum number of blocks.
    """

    _most: int
    _blocks: OrderedDict[tuple[int, int], Block] = field(factory=OrderedDict, init=False)
    _newest: OrderedDict[int, Block] = field(factory=OrderedDict, init=False)
    _lock: Lock = field(factory=Lock, init=False)

    def get(self, stream_id: int, number: int) -> Block | None:
        """Return the block with that number, if it is cached."""
        return self._blocks.get((stream_id, number))

    def newest(self, stream_id: int) -> Block | None:
        """Return the block of a stream that was used last, if it is cached."""
        return self._newest.get(stream_id)

    def add(self, stream_id: int, number: int, block: Block) -> None:
        """Add a block to the cache."""
        with self._lock:
            _keep(self._blocks, (stream_id, number), block, self._most)

    def use(self, stream_id: int, block: Block) -> None:
        """Record which block of a stream was used last."""
        if self._newest.get(stream_id) is not block:
            with self._lock:
                _keep(self._newest, stream_id, block, self._most)

    def forget(self, stream_id: int) -> None:
        """Evict the last used block of a deleted stream. Its other blocks may stay, because ids are never reused."""
        self._newest.pop(stream_id, None)


def _keep(blocks: OrderedDict[_K, Block], key: _K, block: Block, most: int) -> None:
    blocks[key] = block
    blocks.move_to_end(key)
    if len(blocks) > most:
        blocks.popitem(last=False)


@define(eq=False)
class RunTable:
    """The runs of one stream.

    :param file: the stream's ``.sums``.
    :param blocks: the cache of blocks.
    :param limit: the position up to which the entries are valid.
    :param wait: whether to wait for the disk; if not, :class:`WouldWait` is raised.
    """

    _file: File
    _stream_id: int
    _blocks: Blocks
    _limit: int
    _wait: bool
    block: Block | None = field(init=False)
    """The block that was used last."""
    # The number of entries in the file, once it has been read.
    _number: int | None = field(default=None, init=False)

    @block.default
    def _newest(self) -> Block | None:
        return self._blocks.newest(self._stream_id)

    def run_at(self, position: int) -> Run:
        """Return the run with the byte before ``position``.

        :raise StorageDamaged: if its entry is damaged or missing.
        """
        block = self.block
        if block is None or not block.begin < position <= block.end:
            block = self._block_of(position)
        if block is not None:
            run = block.run(block.find(position))
            if run is not None and run.end - run.size < position <= run.end:
                self.block = block
                return run
            run, here = block.look_for(position)
            if run is not None:
                self.block = block
                return run
            if here:
                raise self._missing(position)
        for run in self._all():
            if run.begin < position <= run.end:
                return run
        raise self._missing(position)

    def runs(self, start: int, end: int) -> list[Run]:
        """Return the runs with the bytes from ``start`` up to ``end``.

        :raise StorageDamaged: if an entry is damaged or missing.
        """
        run = self.run_at(start + 1)
        found, reached = [run], run.end
        while reached < end:
            block = self.block
            more = None if block is None else block.runs(reached, min(end, block.end))
            if not more:
                more = [self.run_at(reached + 1)]
            found += more
            reached = found[-1].end
        return found

    def run_with(self, message: int) -> Run:
        """Return the run with index entry number ``message``.

        :raise StorageDamaged: if the entry of that run is damaged or missing.
        """
        low, high = 0, self._count()
        while low < high:
            middle = (low + high) // 2
            run = self._run(middle)
            if run is not None and run.messages <= message:
                low = middle + 1
            else:
                high = middle
        run = self._run(low) if low < self._count() else None
        if run is not None and run.first <= message < run.messages:
            return run
        for run in self._all():
            if run.first <= message < run.messages:
                return run
        raise self._damaged(f"the entry for message {message}")

    def _run(self, place: int) -> Run | None:
        block = self.block
        if block is None or place // BLOCK_RUNS != block.place // BLOCK_RUNS:
            block = self.block = self._load(place // BLOCK_RUNS)
        # A checkpoint may be adding entries after the limit at this moment.
        return block.run(place) if place < block.after else None

    def _block_of(self, position: int) -> Block | None:
        """Return the block in which the run at a position should be."""
        low, high = 0, -(-self._count() // BLOCK_RUNS)
        found = None
        while low < high:
            middle = (low + high) // 2
            block = self._load(middle)
            if block.end < position:
                low = middle + 1
            else:
                high, found = middle, block
        return found

    def _all(self) -> Iterator[Run]:
        """Return all runs with valid entries."""
        if not self._wait:
            raise WouldWait  # this may take long
        for number in range(-(-self._count() // BLOCK_RUNS)):
            block = self.block = self._load(number)
            for place in range(block.place, block.after):
                run = block.run(place)
                if run is not None:
                    yield run

    def _count(self) -> int:
        if self._number is None:
            self._number = self._file.size() // SUM_BYTES
        return self._number

    def _load(self, number: int) -> Block:
        block = self._blocks.get(self._stream_id, number)
        if block is None or not (block.is_complete or block.limit >= self._limit):
            place = number * BLOCK_RUNS
            count = min(BLOCK_RUNS, self._count() - place)
            data = read(self._file, place * SUM_BYTES, count * SUM_BYTES, wait=self._wait)
            if len(data) != count * SUM_BYTES:
                raise self._damaged(f"the entry number {place}")
            block = Block(self._stream_id, place, data, self._limit)
            self._blocks.add(self._stream_id, number, block)
        return block

    def _missing(self, position: int) -> StorageDamaged:
        return self._damaged(f"the entry for byte {position - 1}")

    def _damaged(self, what: str) -> StorageDamaged:
        where = f"{self._stream_id:016x}.sums: {what}"
        return StorageDamaged(f"{where} is damaged or missing", self._stream_id, where)


def read(file: File, offset: int, size: int, *, wait: bool) -> bytes:
    """Read from a file. Fewer bytes than ``size`` are returned only at its end.

    :param wait: whether to wait for the disk.
    :raise WouldWait: if the bytes are not in the page cache, unless ``wait`` is set.
    """
    data = file.pread(size, offset) if wait else file.pread_nowait(size, offset)
    if data is None:
        raise WouldWait
    return data


def read_data(file: File, start: int, runs: Sequence[Run], stream_id: int, *, wait: bool) -> bytes:
    """Read and verify the bytes of consecutive runs.

    :param file: the stream's data file.
    :param start: the stream's own start.
    :raise StorageDamaged: if they differ from those written.
    """
    begin = runs[0].begin
    data = read(file, begin - start, runs[-1].end - begin, wait=wait)
    damaged = first_damaged(data, runs)
    if damaged is not None:
        raise damaged_data(file, damaged, stream_id)
    return data


def first_damaged(data: bytes, runs: Sequence[Run]) -> Run | None:
    """Return the first of consecutive runs whose bytes are missing or have a wrong checksum, or ``None``.

    :param data: the bytes of all the runs.
    """
    if len(runs) == 1:
        run = runs[0]
        return None if len(data) == run[2] and crc32(data) == run[4] else run
    begin = 0
    with memoryview(data) as view:
        for run in runs:
            after = begin + run[2]
            if crc32(view[begin:after]) != run[4] or after > len(view):
                return run
            begin = after
    return None


def read_entries(file: File, run: Run, stream_id: int, *, wait: bool) -> array[int]:
    """Read and verify the index entries of a run.

    :param file: the stream's index file.
    :raise StorageDamaged: if they differ from those written.
    """
    size = ENTRY_BYTES * run.ends
    data = read(file, ENTRY_BYTES * (run.first), size, wait=wait) if size else b""
    if len(data) != size or crc32(data) != run.index_crc:
        raise damaged_index(file, run, stream_id)
    return index.unpacked(data)


def damaged_data(file: File, run: Run, stream_id: int) -> StorageDamaged:
    """Return the error for a run whose bytes are missing or have a wrong checksum."""
    where = f"{file.path}: the bytes from position {run.begin} to {run.end}"
    return StorageDamaged(f"{where} are damaged or missing", stream_id, where)


def damaged_index(file: File, run: Run, stream_id: int) -> StorageDamaged:
    """Return the error for a run whose index entries are missing or have a wrong checksum."""
    where = f"{file.path}: the entries of the messages from number {run.first} to {run.messages}"
    return StorageDamaged(f"{where} are damaged or missing", stream_id, where)
