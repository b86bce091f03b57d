"""The index of message ends: where a read may begin and end.

An entry is the absolute position of a message's end, shifted left by one bit; the lowest bit says that this message
is the last of its append (the data boundary of PROTOCOL 4.2). Entries ascend. In memory they are an array, on disk
unsigned 64-bit little-endian numbers without gaps.

The queries below need no more than a sequence: they serve both.
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
"""The bit that marks the last message of an append."""

PACKED_AT_ONCE: Final = 32 * 1024
"""How many entries of a large append are computed in one go."""


def entries(ends: Sequence[int]) -> Iterable[int]:
    """The index entries of one append's messages."""
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
    """The entries of some or all messages of one large append, computed when they are asked for.

    :param ends: of all of its messages.
    :param first: how many of them are left out.
    """

    ends: ManyEnds
    first: int = 0

    def __len__(self) -> int:
        return len(self.ends) - self.first

    def __getitem__(self, number: int) -> int:
        place = self.first + number
        return self.ends[place] << 1 | (place == len(self.ends) - 1)

    def without(self, count: int) -> LargeAppend:
        """The entries after the first ``count``; nothing is copied."""
        return LargeAppend(self.ends, self.first + count)

    def count_up_to(self, position: int) -> int:
        """How many messages end at or before ``position``."""
        return bisect_right(self.ends.relative, position - self.ends.start, self.first) - self.first

    def packed(self) -> Iterator[bytes]:
        """All entries as they lie on the disk, in pieces of a few milliseconds' work."""
        for begin in range(self.first, len(self.ends), PACKED_AT_ONCE):
            some = self.ends.relative[begin : begin + PACKED_AT_ONCE]
            start = self.ends.start
            found = array("Q", [(start + end) << 1 for end in some])
            if begin + PACKED_AT_ONCE >= len(self.ends):
                found[-1] |= APPEND_END
            yield _packed(found)


@define(eq=False)
class BlockIndex(Sequence[int]):
    """The entries of a stream with large appends, each of which is a block; between them are arrays.

    An array alone would have to be extended by every message of a large append in one go.

    :param blocks: none of them empty. The index changes only the last one.
    """

    _blocks: list[array[int] | LargeAppend]
    _counts: list[int] = field(init=False)
    """How many entries come before each block."""
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
        """A copy without the first ``count`` entries; large blocks are shared."""
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
        """The array at the end."""
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
        """How many messages end at or before ``position``."""
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
        """A copy with entries that come before all others; large blocks are shared."""
        return BlockIndex([entries, *self._blocks]) if entries else BlockIndex([*self._blocks])

    def packed(self) -> Iterator[bytes]:
        """All entries as they lie on the disk, in pieces of a few milliseconds' work."""
        for block in self._blocks:
            if isinstance(block, array):
                yield _packed(block)
            else:
                yield from block.packed()


Index: TypeAlias = "array[int] | BlockIndex"
"""The entries of a stream in memory."""


def packed(entries: Index) -> bytes:
    """Entries as they lie on the disk. Where there may be many, in a thread."""
    return _packed(entries) if isinstance(entries, array) else b"".join(entries.packed())


def packed_pieces(entries: Index) -> Iterator[bytes]:
    """The same in pieces, each of a few milliseconds' work."""
    if isinstance(entries, array):
        yield _packed(entries)
    else:
        yield from entries.packed()


def joined(entries: array[int], following: Index) -> Index:
    """Entries, and those that follow them."""
    return entries + following if isinstance(following, array) else following.after(entries)


def _packed(entries: array[int]) -> bytes:
    if sys.byteorder == "big":
        entries = entries[:]
        entries.byteswap()
    return entries.tobytes()


def unpacked(data: bytes) -> array[int]:
    """The inverse of :func:`packed`.

    :raise ValueError: when ``data`` isn't a whole number of entries.
    """
    entries = array("Q", data)
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


def count_up_to(index: Sequence[int] | LargeAppend, position: int) -> int:
    """How many messages end at or before ``position``.

    :param index: where bisection isn't the best way, it has a method of this name.
    """
    count: Callable[[int], int] | None = getattr(index, "count_up_to", None)
    if count is not None:
        return count(position)
    return bisect_right(cast("Sequence[int]", index), position << 1 | APPEND_END)


def floor(index: Sequence[int], position: int, start: int) -> int:
    """The last message end at or before ``position``; ``start`` when there is none."""
    before = count_up_to(index, position)
    return index[before - 1] >> 1 if before else start


def extent(index: Sequence[int], start: int, limit: int) -> int:
    """The end of the last message within ``limit`` bytes from ``start``; of the first when none is."""
    after = count_up_to(index, start + limit)
    if after and index[after - 1] >> 1 > start:
        after -= 1
    return index[after] >> 1


def following(index: Sequence[int], position: int, most: int) -> list[int]:
    """The entries of the messages that end after ``position``, at most so many."""
    first = count_up_to(index, position)
    return [index[number] for number in range(first, min(first + most, len(index)))]


def append_ends(index: Sequence[int], position: int) -> list[int]:
    """The message ends after ``position``, up to the first that also ends an append."""
    found: list[int] = []
    for number in range(count_up_to(index, position), len(index)):
        entry = index[number]
        found.append(entry >> 1)
        if entry & APPEND_END:
            break
    return found
