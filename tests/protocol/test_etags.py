"""Entity tags and If-None-Match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol.etags import format_etag, matches

counts = st.integers(0, 2**53)


class FormatTests:
    """The tag of an answer."""

    def test_form(self) -> None:
        """A tag holds the stream's id in hexadecimal, both ends, and whether the stream is closed."""
        assert format_etag(255, 0, 10, False) == b'"ff:0:10"'
        assert format_etag(255, 0, 10, True) == b'"ff:0:10:c"'

    @given(st.lists(st.tuples(counts, counts, counts, st.booleans()), unique=True, max_size=5))
    def test_different_answers_have_different_tags(self, answers: list[tuple[int, int, int, bool]]) -> None:
        """A change of incarnation, start, end or closure changes the tag."""
        assert len({format_etag(*answer) for answer in answers}) == len(answers)


class MatchesTests:
    """RFC 9110 section 13.1.2."""

    @pytest.mark.parametrize(
        "value",
        [
            b'"a:1:2"',
            b'W/"a:1:2"',
            b'"x", "a:1:2"',
            b'"x","a:1:2","y"',
            b'W/"x" , W/"a:1:2"',
            b'"a,b", "a:1:2"',
            b', ,"a:1:2",',
            b'  "a:1:2"\t',
            b'"\xff", "a:1:2"',
            b"*",
            b" * ",
        ],
    )
    def test_matches(self, value: bytes) -> None:
        """The tag is found alone, in a list, weak or strong; a star matches anything."""
        assert matches(value, b'"a:1:2"')

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b'"a:1:3"',
            b'"a:1:2:c"',
            b"a:1:2",
            b'"A:1:2"',
            b'w/"a:1:2"',
            b'W/ "a:1:2"',
            b'"a:1:2',
            b'"x" "a:1:2"',
            b'"x"; "a:1:2"',
            b'*, "a:1:2"',
            b'x"a:1:2"',
            b'"x\\"a:1:2"',
            b'"x", "a:1:2" junk',
            b"**",
        ],
    )
    def test_does_not_match(self, value: bytes) -> None:
        """Other tags don't match, and neither does anything that isn't a list of tags."""
        assert not matches(value, b'"a:1:2"')

    @given(counts, counts, counts, st.booleans(), st.lists(st.from_regex(rb'(W/)?"[!#-~]{0,5}"', fullmatch=True)))
    def test_own_tag_is_found_in_any_list(
        self, stream_id: int, start: int, end: int, closed: bool, others: list[bytes]
    ) -> None:
        """A tag we gave is recognised among any others."""
        etag = format_etag(stream_id, start, end, closed)
        assert matches(b", ".join([*others, etag]), etag)
        assert matches(b", ".join([b"W/" + etag, *others]), etag)

    def test_hostile_lists_are_judged_in_linear_time(self) -> None:
        """A long list that fails at its end doesn't make the grammar backtrack."""
        assert not matches(b'"a" , \t' * 4000 + b"!", b'"b"')
