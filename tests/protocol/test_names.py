"""Stream names in URLs."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstreams.protocol.names import NameLimits, encode_name, parse_name
from dstreams.protocol.problems import InvalidStreamName, NotFound, ProtocolError

LIMITS = NameLimits()

_segment = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=20
).filter(lambda segment: segment not in (".", "..", "__ds"))
names = st.lists(_segment, min_size=1, max_size=LIMITS.max_segments).map("/".join)


class ParseNameTests:
    """From the path to the name."""

    @pytest.mark.parametrize(
        ("raw", "name"),
        [
            (b"a", "a"),
            (b"users/1/inbox", "users/1/inbox"),
            (b"a.b/c~d/_e-f", "a.b/c~d/_e-f"),
            (b".a/..b/c..", ".a/..b/c.."),
            (b"...", "..."),
            (b"a%2Fb", "a/b"),
            (b"a%2fb", "a/b"),
            (b"a%20b", "a b"),
            (b"a+b", "a+b"),
            (b"%C3%A9", "é"),
            (b"\xc3\xa9", "é"),
            (b"a%252Fb", "a%2Fb"),
            (b"x/__ds", "x/__ds"),
            (b"__dsx", "__dsx"),
            (b"__d", "__d"),
            (b"__DS", "__DS"),
            (b"a:b@c", "a:b@c"),
            (b"a%C2%A0b", "a\xa0b"),
        ],
    )
    def test_decodes_once(self, raw: bytes, name: str) -> None:
        """Escapes are decoded once, as UTF-8, and nothing else is changed."""
        assert parse_name(raw, LIMITS) == name

    @pytest.mark.parametrize(
        ("raw", "detail"),
        [
            (b"", "The stream name is empty."),
            (b"/", "The stream name ends with '/'."),
            (b"a/", "The stream name ends with '/'."),
            (b"a%2F", "The stream name ends with '/'."),
            (b"/a", "Segment 1 of the stream name is empty."),
            (b"a//b", "Segment 2 of the stream name is empty."),
            (b"a/%2Fb", "Segment 2 of the stream name is empty."),
            (b".", "Segment 1 of the stream name is '.', which is not allowed."),
            (b"a/./b", "Segment 2 of the stream name is '.', which is not allowed."),
            (b"a/../b", "Segment 2 of the stream name is '..', which is not allowed."),
            (b"..", "Segment 1 of the stream name is '..', which is not allowed."),
            (b"a%2F%2e%2E%2fb", "Segment 2 of the stream name is '..', which is not allowed."),
            (b"a%00b", "The stream name holds the control character U+0000; none is allowed."),
            (b"a%0Ab", "The stream name holds the control character U+000A; none is allowed."),
            (b"a\tb", "The stream name holds the control character U+0009; none is allowed."),
            (b"a%7F", "The stream name holds the control character U+007F; none is allowed."),
            (b"a%C2%85", "The stream name holds the control character U+0085; none is allowed."),
            (b"a%zzb", "Malformed percent-encoding: '%zz'."),
            (b"a%", "Malformed percent-encoding: '%'."),
            (b"a%2", "Malformed percent-encoding: '%2'."),
            (b"a%FF", "The stream name is not UTF-8 at byte 1."),
            (b"\xed\xa0\x80", "The stream name is not UTF-8 at byte 0."),
            (b"%C0%AF", "The stream name is not UTF-8 at byte 0."),
        ],
    )
    def test_refuses_what_cannot_be_a_name(self, raw: bytes, detail: str) -> None:
        """A bad name is refused with a sentence that says what is wrong and where."""
        with pytest.raises(InvalidStreamName) as caught:
            parse_name(raw, LIMITS)
        assert caught.value.detail == detail

    @pytest.mark.parametrize("raw", [b"__ds", b"__ds/a", b"__ds/", b"%5F%5Fds/a", b"__ds%2Fa", b"__ds/" + b"a/" * 50])
    def test_reserved_names_do_not_exist(self, raw: bytes) -> None:
        """A name whose first segment is reserved is 404 in every spelling, never a stream."""
        with pytest.raises(NotFound, match="reserved"):
            parse_name(raw, LIMITS)


class NameLimitsTests:
    """How large a name may be."""

    @pytest.mark.parametrize("raw", [b"aaaaa", b"%61aaaa", b"%C3%A9%C3%A9a"])
    def test_length_is_counted_in_decoded_bytes(self, raw: bytes) -> None:
        """The limit itself is allowed, one byte more isn't, and the escapes don't count."""
        assert len(parse_name(raw, NameLimits(max_bytes=5)).encode()) == 5
        with pytest.raises(InvalidStreamName, match=re.escape("has 5 bytes; at most 4 are allowed.")):
            parse_name(raw, NameLimits(max_bytes=4))

    @pytest.mark.parametrize("raw", [b"a/b/c", b"a%2Fb%2Fc"])
    def test_segments_are_counted_after_decoding(self, raw: bytes) -> None:
        """The limit itself is allowed, one segment more isn't."""
        assert parse_name(raw, NameLimits(max_segments=3)) == "a/b/c"
        with pytest.raises(InvalidStreamName, match=re.escape("has 3 segments; at most 2 are allowed.")):
            parse_name(raw, NameLimits(max_segments=2))

    def test_long_names_are_judged_in_linear_time(self) -> None:
        """A very long path is refused by its size, without backtracking over it."""
        with pytest.raises(InvalidStreamName, match="200001 bytes"):
            parse_name(b"a/" * 100_000 + b"a", LIMITS)


class EncodeNameTests:
    """From the name to the path."""

    @given(names)
    @example("a/b c/%2F/é/+&=?#")
    @example("a:b@c!$&'()*+,;=")
    def test_round_trip(self, name: str) -> None:
        """Every name survives being written into a URL and read back."""
        encoded = encode_name(name)
        assert parse_name(encoded, NameLimits(10_000, 100)) == name
        assert re.fullmatch(rb"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})+", encoded)

    @given(names)
    def test_any_way_of_escaping_means_the_same(self, name: str) -> None:
        """A name is the same whether only what must be escaped is, or everything."""
        everything = "".join(f"%{byte:02x}" for byte in name.encode()).encode()
        limits = NameLimits(10_000, 100)
        assert parse_name(everything, limits) == parse_name(quote(name).encode(), limits) == name


class AnyPathTests:
    """Input nobody expected."""

    @given(st.one_of(st.binary(), st.text("a./%2Fe_ds\x00é", max_size=12).map(str.encode)))
    def test_gives_a_name_or_a_refusal(self, raw: bytes) -> None:
        """Any bytes give a name that obeys every rule, or a protocol error."""
        try:
            name = parse_name(raw, LIMITS)
        except ProtocolError:
            return
        segments = name.split("/")
        assert not {"", ".", ".."} & set(segments)
        assert segments[0] != "__ds"
        assert not re.search("[\x00-\x1f\x7f-\x9f]", name)
        assert len(name.encode()) <= LIMITS.max_bytes
        assert len(segments) <= LIMITS.max_segments
        assert parse_name(encode_name(name), LIMITS) == name
