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
from collections.abc import Callable, Iterable, Sequence
from typing import Final

APPEND_END: Final = 1
"""The bit that marks the last message of an append."""


def entries(ends: tuple[int, ...]) -> Iterable[int]:
    """The index entries of one append's messages."""
    last = len(ends) - 1
    return (end << 1 | (APPEND_END if index == last else 0) for index, end in enumerate(ends))


def extend(index: array[int], ends: tuple[int, ...]) -> None:
    """Add the entries of one append's messages."""
    if len(ends) == 1:
        index.append(ends[0] << 1 | APPEND_END)
    else:
        index.extend(entries(ends))


def packed(entries: array[int]) -> bytes:
    """Entries as they lie on the disk."""
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


def count_up_to(index: Sequence[int], position: int) -> int:
    """How many messages end at or before ``position``.

    :param index: where bisection isn't the best way, it has a method of this name.
    """
    count: Callable[[int], int] | None = getattr(index, "count_up_to", None)
    if count is not None:
        return count(position)
    return bisect_right(index, position << 1 | APPEND_END)


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
