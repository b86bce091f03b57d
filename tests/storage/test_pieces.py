"""Bytes in several pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from dstreams.storage.pieces import LARGE_BYTES, gather

SMALL, LARGE = st.binary(max_size=20), st.integers(0, 255).map(lambda byte: bytes([byte]) * LARGE_BYTES)


class GatherTests:
    @given(st.lists(SMALL | LARGE, min_size=1, max_size=12))
    @example([b"x" * LARGE_BYTES])
    def test_same_bytes(self, pieces: list[bytes]) -> None:
        """The bytes stay the same, and no two pieces that are left could have been joined."""
        found = gather(pieces)
        assert b"".join(found) == b"".join(pieces)
        small = [len(piece) < LARGE_BYTES for piece in found]
        assert (True, True) not in pairwise(small)

    def test_large_pieces_are_not_copied(self) -> None:
        """A large piece stays the object that it is, wherever it stands."""
        large = b"x" * LARGE_BYTES
        assert gather([large, b"a", b"b", large])[0] is large
        assert gather([b"a", b"b", large]) == [b"ab", large]
        assert gather([b"a", large, b"b"])[1] is large
