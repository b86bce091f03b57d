"""Offsets as clients see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol.offsets import NOW, format_offset, parse_offset
from dstreams.protocol.problems import InvalidOffset

positions = st.integers(0, 10**16 - 1)


class FormatTests:
    """The token of a position."""

    def test_form(self) -> None:
        """A token is two groups of sixteen digits, the first of them zero."""
        assert format_offset(0) == b"0000000000000000_0000000000000000"
        assert format_offset(1234) == b"0000000000000000_0000000000001234"

    @given(positions)
    def test_round_trip(self, position: int) -> None:
        """A token gives back its position."""
        assert parse_offset(format_offset(position)) == position

    @given(positions, positions)
    def test_sorts_like_positions(self, one: int, other: int) -> None:
        """Tokens compare as strings the way their positions do."""
        assert (format_offset(one) < format_offset(other)) == (one < other)

    @given(positions)
    def test_needs_no_escaping(self, position: int) -> None:
        """A token has none of the characters that mean something in a query, and is never a sentinel."""
        token = format_offset(position)
        assert not set(token) & set(b",&=?/%+ ")
        assert token not in (b"-1", b"now")


class ParseTests:
    """What a client may send."""

    def test_sentinels(self) -> None:
        """-1 is the start and now is the tail."""
        assert parse_offset(b"-1") == 0
        assert parse_offset(b"now") == NOW

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"0",
            b"1",
            b"-2",
            b"NOW",
            b"now ",
            b" -1",
            b"0_0",
            b"0,1",
            b"0 1",
            b"../x",
            b"0000000000000000_000000000000000",
            b"0000000000000000_00000000000000000",
            b"0000000000000001_0000000000000000",
            b"00000000000000000000000000000000_",
            b"0000000000000000-0000000000000000",
            b"0000000000000000_000000000000000a",
            b"0000000000000000_+000000000000001",
            b"0000000000000000_0000_00000000000",
            b"0000000000000000_000000000000000\n",
            b"0000000000000000_\xd9\xa1\xd9\xa1\xd9\xa1\xd9\xa1\xd9\xa1\xd9\xa1\xd9\xa1\xd9\xa1",
        ],
    )
    def test_refuses_everything_else(self, raw: bytes) -> None:
        """A token this server never wrote is refused."""
        with pytest.raises(InvalidOffset):
            parse_offset(raw)

    def test_echo_is_safe(self) -> None:
        """The refused token is repeated with control characters escaped."""
        with pytest.raises(InvalidOffset) as caught:
            parse_offset(b"a\r\nb\xff")
        assert caught.value.detail == r"Malformed offset: 'a\r\nb\xff'."

    @given(st.one_of(st.binary(), st.text("0123456789_-now", max_size=40).map(str.encode)))
    def test_takes_only_canonical_tokens(self, raw: bytes) -> None:
        """Whatever is taken is a sentinel or exactly the token of its position."""
        try:
            position = parse_offset(raw)
        except InvalidOffset:
            return
        assert raw in (b"-1", b"now") or raw == format_offset(position)
