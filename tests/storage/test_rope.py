"""Ropes: growing bytes in several chunks."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dstreams.storage.pieces import LARGE_BYTES
from dstreams.storage.rope import Rope

BEGIN = 1000

SMALL = st.binary(min_size=1, max_size=5)
LARGE = st.integers(0, 255).map(lambda byte: bytes([byte, byte ^ 1]) * (LARGE_BYTES // 2 + 1))
OPERATIONS = st.lists(SMALL | LARGE | st.just("pieces") | st.floats(0, 1), max_size=12)


def check(rope: Rope, begin: int, data: bytes, positions: list[int]) -> None:
    """It has these bytes, and any range of them reads right."""
    assert (rope.begin, rope.end, len(rope)) == (begin, begin + len(data), len(data))
    places = sorted({0, len(data), *(position % (len(data) + 1) for position in positions)})
    for number, start in enumerate(places):
        for end in places[number:]:
            found = rope.read(begin + start, begin + end)
            assert type(found) is bytes
            assert found == data[start:end]


class RopeTests:
    @given(OPERATIONS, st.lists(st.integers(0, 1 << 20), max_size=6))
    def test_against_plain_bytes(self, operations: list[Any], positions: list[int]) -> None:
        """It reads as plain bytes would, whatever was added, sealed and dropped; so do the ropes it was before."""
        rope, begin, data = Rope(BEGIN), BEGIN, b""
        earlier: list[tuple[Rope, int, bytes]] = []
        for operation in operations:
            if isinstance(operation, bytes):
                rope.append(operation)
                data += operation
            elif operation == "pieces":
                assert b"".join(rope.pieces()) == data
            else:
                earlier.append((rope, begin, data))
                size = int(operation * len(data))
                rope, begin, data = rope.without(size), begin + size, data[size:]
            check(rope, begin, data, positions)
        for each in earlier:
            check(*each, positions)

    def test_large_additions_are_not_copied(self) -> None:
        """Neither when they are added, nor when what lies before them is dropped."""
        rope, large = Rope(0), b"x" * LARGE_BYTES
        for addition in (b"ab", large, b"cd"):
            rope.append(addition)
        assert rope.pieces()[1] is large
        assert rope.without(2).pieces()[0] is large
        assert rope.without(2 + LARGE_BYTES).pieces() == [b"cd"]

    def test_pieces_do_not_change(self) -> None:
        """What is written in a thread stays as it is when more is added meanwhile."""
        rope = Rope(0)
        rope.append(b"ab")
        pieces = rope.pieces()
        rope.append(b"cd")
        assert pieces == [b"ab"]
        assert rope.read(0, 4) == b"abcd"
