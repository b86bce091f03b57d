"""The index of message ends: the positions where a read may begin and end.

An entry is the absolute position of a message's end, shifted left by one bit. The lowest bit is set if this message
is the last of its append (the data boundary of PROTOCOL 4.2). Entries ascend. In memory they are an array, on disk
unsigned 64-bit little-endian numbers without gaps.

The queries below need only a sequence, so they work on both forms.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, TypeAlias, cast, overload

from attrs import define, field

from dstreams.model.ends import ManyEnds

APPEND_END: Final = 1
"""The bit of an entry that marks the last message of an append."""

PACKED_AT_ONCE: Final = 32 * 1024
"""Maximum number of entries of a large append that are computed at a time."""


def entries(ends: Sequence[int]) -> Iterable[int]:
    """Return the index entries of one append's messages."""
    last = len(ends) - 1
    return (end << 1 | (APPEND_END if index == last else 0) for index, end in enumerate(ends))


def extend(index: Index, ends: Sequence[int]) -> Index:
    """Add the entries of one append's messages.

    :return: the index to use from now on.
    """
    if len(ends) == 1:
        index.append(ends[0] << 1 | APPEND_END)
    elif isinstance(ends, ManyEnds):
        if not isinstance(index, BlockIndex):
            index = BlockIndex([index] if index else [])
        index.add(ends)
    else:
        index.extend(entries(ends))
    return index


@define(eq=False)
class LargeAppend:
    """The entries of some or all messages of one large append, computed on demand.

    :param ends: the ends of all of its messages.
    :param first: the number of messages at the beginning that are omitted.
    """

    ends: ManyEnds
    first: int = 0

    def __len__(self) -> int:
        return len(self.ends) - self.first

    def __getitem__(self, number: int) -> int:
        place = self.first + number
        return self.ends[place] << 1 | (place == len(self.ends) - 1)

    def without(self, count: int) -> LargeAppend:
        """Return the entries after the first ``count``; nothing is copied."""
        return LargeAppend(self.ends, self.first + count)

    def count_up_to(self, position: int) -> int:
        """Return how many messages end at or before ``position``."""
        return bisect_right(self.ends.relative, position - self.ends.start, self.first) - self.first

    def packed(self) -> Iterator[bytes]:
        """Return all entries in their form on disk, in pieces that take a few milliseconds each."""
        for begin in range(self.first, len(self.ends), PACKED_AT_ONCE):
            some = self.ends.relative[begin : begin + PACKED_AT_ONCE]
            start = self.ends.start
            found = array("Q", [(start + end) << 1 for end in some])
            if begin + PACKED_AT_ONCE >= len(self.ends):
                found[-1] |= APPEND_END
            yield _packed(found)


@define(eq=False)
class BlockIndex(Sequence[int]):
    """The entries of a stream with large appends. Each large append is a block; the blocks between them are arrays.

    A single array would have to be extended with all messages of a large append at once.

    :param blocks: nonempty blocks. The index changes only the last one.
    """

    _blocks: list[array[int] | LargeAppend]
    _counts: list[int] = field(init=False)
    """The number of entries before each block."""
    _length: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._counts = list(accumulate(map(len, self._blocks), initial=0))
        self._length = self._counts.pop()

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, number: int) -> int: ...
    @overload
    def __getitem__(self, number: slice) -> BlockIndex: ...
    def __getitem__(self, number: int | slice) -> int | BlockIndex:
        if isinstance(number, slice):
            assert number.stop is None and number.step is None, "only what follows an entry"  # noqa: PT018
            return self._without(number.start or 0)
        if number < 0:
            number += self._length
        if not 0 <= number < self._length:
            raise IndexError(number)
        place = bisect_right(self._counts, number) - 1
        return self._blocks[place][number - self._counts[place]]

    def _without(self, count: int) -> BlockIndex:
        """Return a copy without the first ``count`` entries; blocks of large appends are shared."""
        blocks: list[array[int] | LargeAppend] = []
        for before, block in zip(self._counts, self._blocks, strict=True):
            skipped = max(0, count - before)
            if skipped < len(block):
                blocks.append(block[skipped:] if isinstance(block, array) else block.without(skipped))
        return BlockIndex(blocks)

    def append(self, entry: int) -> None:
        """Add an entry."""
        self._array().append(entry)
        self._length += 1

    def extend(self, entries: Iterable[int]) -> None:
        """Add entries."""
        block = self._array()
        before = len(block)
        block.extend(entries)
        self._length += len(block) - before

    def add(self, ends: ManyEnds) -> None:
        """Add the entries of a large append."""
        self._begin(LargeAppend(ends))
        self._length += len(ends)

    def _array(self) -> array[int]:
        """Return the array at the end, after adding one if necessary."""
        last = self._blocks[-1] if self._blocks else None
        if isinstance(last, array):
            return last
        begun: array[int] = array("Q")
        self._begin(begun)
        return begun

    def _begin(self, block: array[int] | LargeAppend) -> None:
        self._counts.append(self._length)
        self._blocks.append(block)

    def count_up_to(self, position: int) -> int:
        """Return how many messages end at or before ``position``."""
        blocks = self._blocks
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            if len(blocks[middle]) and blocks[middle][len(blocks[middle]) - 1] >> 1 <= position:
                low = middle + 1
            else:
                high = middle
        if low == len(blocks):
            return self._length
        return self._counts[low] + count_up_to(blocks[low], position)

    def after(self, entries: array[int]) -> BlockIndex:
        """Return a copy with additional entries before all others; blocks of large appends are shared."""
        return BlockIndex([entries, *self._blocks]) if entries else BlockIndex([*self._blocks])

    def packed(self) -> Iterator[bytes]:
        """Return all entries in their form on disk, in pieces that take a few milliseconds each."""
        for block in self._blocks:
            if isinstance(block, array):
                yield _packed(block)
            else:
                yield from block.packed()


Index: TypeAlias = "array[int] | BlockIndex"
"""The entries of a stream in memory."""


def packed(entries: Index) -> bytes:
    """Return entries in their form on disk. If there may be many, call this in a thread."""
    return _packed(entries) if isinstance(entries, array) else b"".join(entries.packed())


def packed_pieces(entries: Index) -> Iterator[bytes]:
    """Return entries in their form on disk, in pieces that take a few milliseconds each."""
    if isinstance(entries, array):
        yield _packed(entries)
    else:
        yield from entries.packed()


def joined(entries: array[int], following: Index) -> Index:
    """Return the concatenation of ``entries`` and ``following``."""
    return entries + following if isinstance(following, array) else following.after(entries)


def _packed(entries: array[int]) -> bytes:
    if sys.byteorder == "big":
        entries = entries[:]
        entries.byteswap()
    return entries.tobytes()


def unpacked(data: bytes) -> array[int]:
    """Return the entries from which :func:`packed` made ``data``.

    :raise ValueError: if ``data`` is not a whole number of entries.
    """
    entries = array("Q", data)
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


def count_up_to(index: Sequence[int] | LargeAppend, position: int) -> int:
    """Return how many messages end at or before ``position``.

    :param index: its own method of this name is used if it has one, else bisection.
    """
    count: Callable[[int], int] | None = getattr(index, "count_up_to", None)
    if count is not None:
        return count(position)
    return bisect_right(cast("Sequence[int]", index), position << 1 | APPEND_END)


def floor(index: Sequence[int], position: int, start: int) -> int:
    """Return the last message end at or before ``position``, or ``start`` if there is none."""
    before = count_up_to(index, position)
    return index[before - 1] >> 1 if before else start


def extent(index: Sequence[int], start: int, limit: int) -> int:
    """Return the end of the last message within ``limit`` bytes from ``start``; if there is none, of the first."""
    after = count_up_to(index, start + limit)
    if after and index[after - 1] >> 1 > start:
        after -= 1
    return index[after] >> 1


def following(index: Sequence[int], position: int, most: int) -> list[int]:
    """Return the entries of the messages that end after ``position``, at most ``most``."""
    first = count_up_to(index, position)
    return [index[number] for number in range(first, min(first + most, len(index)))]


def append_ends(index: Sequence[int], position: int) -> list[int]:
    """Return the message ends after ``position``, up to the first that also ends an append."""
    found: list[int] = []
    for number in range(count_up_to(index, position), len(index)):
        entry = index[number]
        found.append(entry >> 1)
        if entry & APPEND_END:
            break
    return found
