"""The index of message ends where large appends are blocks of their own."""

from __future__ import annotations

from array import array
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.model.ends import ManyEnds
from dstreams.storage import index

APPENDS = st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 9), min_size=1, max_size=7)), max_size=8)
"""Appends: whether it is a large one, and the lengths of its messages."""


def many(start: int, lengths: list[int]) -> ManyEnds:
    return ManyEnds.of_lengths(start, array("I", lengths))


def both(start: int, appends: list[tuple[bool, list[int]]]) -> tuple[index.Index, array[int]]:
    """The same entries with blocks, and in one array."""
    blocks: index.Index = array("Q")
    plain: array[int] = array("Q")
    position = start
    for large, lengths in appends:
        ends = tuple(accumulate(lengths, initial=position))[1:]
        blocks = index.extend(blocks, many(position, lengths) if large else ends)
        assert index.extend(plain, ends) is plain
        position = ends[-1]
    return blocks, plain


class BlockIndexTests:
    @given(APPENDS, st.integers(0, 1 << 40))
    def test_it_is_the_array(self, appends: list[tuple[bool, list[int]]], start: int) -> None:
        """Every question has the answer that one array of all entries gives."""
        blocks, plain = both(start, appends)
        assert list(blocks) == list(plain)
        assert index.packed(blocks) == index.packed(plain)
        for position in range(start, start + sum(sum(lengths) for _, lengths in appends) + 1):
            assert index.count_up_to(blocks, position) == index.count_up_to(plain, position)
            assert index.floor(blocks, position, start) == index.floor(plain, position, start)
            assert index.append_ends(blocks, position) == index.append_ends(plain, position)
            assert index.following(blocks, position, 3) == index.following(plain, position, 3)
        for count in range(len(plain) + 1):
            assert list(blocks[count:]) == list(plain[count:])
            assert index.packed(blocks[count:]) == index.packed(plain[count:])

    @given(APPENDS, APPENDS, st.integers(0, 20))
    def test_a_copy_stays_as_it_was(
        self, first: list[tuple[bool, list[int]]], more: list[tuple[bool, list[int]]], count: int
    ) -> None:
        """What a reader or a checkpoint has taken doesn't change with the index."""
        blocks, plain = both(0, first)
        taken, expected = blocks[count:], list(plain[count:])
        position = blocks[-1] >> 1 if len(blocks) else 0
        for large, lengths in more:
            ends = tuple(accumulate(lengths, initial=position))[1:]
            blocks = index.extend(blocks, many(position, lengths) if large else ends)
            position = ends[-1]
        assert list(taken) == expected

    def test_many_entries_are_packed_in_pieces(self) -> None:
        """More entries than are computed in one go are the same on the disk."""
        lengths = [1 + number % 3 for number in range(index.PACKED_AT_ONCE * 2 + 5)]
        blocks, plain = both(7, [(True, lengths)])
        assert isinstance(blocks, index.BlockIndex)
        assert max(map(len, blocks.packed())) == 8 * index.PACKED_AT_ONCE
        assert index.packed(blocks) == index.packed(plain)

    def test_entries_that_are_not_there(self) -> None:
        """A number beyond the last entry is an error, and negative numbers count from the end."""
        blocks, _ = both(0, [(True, [1, 2]), (False, [3])])
        assert [blocks[-1], blocks[-3]] == [6 << 1 | 1, 1 << 1]
        with pytest.raises(IndexError):
            blocks[3]


class ManyEndsTests:
    def test_it_is_a_sequence(self) -> None:
        """It is what the tuple of the same ends is, wherever it begins."""
        ends = many(0, [1, 2, 3]).at(10)
        assert (len(ends), ends[0], ends[-1], list(ends), list(ends[1:])) == (3, 11, 16, [11, 13, 16], [13, 16])
