"""The query of a read."""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol.offsets import NOW, format_offset
from dstreams.protocol.problems import BadRequest, InvalidOffset
from dstreams.protocol.queries import Live, ReadQuery, parse_read_query

FIVE = format_offset(5)


class ParseTests:
    """What a read may ask for."""

    @pytest.mark.parametrize(
        ("query", "parsed"),
        [
            (b"", ReadQuery(None, None, None)),
            (b"offset=-1", ReadQuery(0)),
            (b"offset=now", ReadQuery(NOW)),
            (b"offset=" + FIVE, ReadQuery(5)),
            (b"offset=%2D1", ReadQuery(0)),
            (b"%6Fffset=-1", ReadQuery(0)),
            (b"offset=-1&live=long-poll", ReadQuery(0, Live.LONG_POLL)),
            (b"live=sse&offset=now", ReadQuery(NOW, Live.SSE)),
            (b"cursor=1000&live=long-poll&offset=" + FIVE, ReadQuery(5, Live.LONG_POLL, 1000)),
            (b"offset=-1&live=lon%67-poll&cursor=%31", ReadQuery(0, Live.LONG_POLL, 1)),
            (b"cursor=5", ReadQuery(None, None, 5)),
            (b"offset=-1&cursor=abc", ReadQuery(0)),
            (b"offset=-1&cursor=", ReadQuery(0)),
            (b"offset=-1&cursor", ReadQuery(0)),
        ],
    )
    def test_known_parameters(self, query: bytes, parsed: ReadQuery) -> None:
        """The three parameters are read in any order and encoding; a foreign cursor is no cursor."""
        assert parse_read_query(query) == parsed

    @pytest.mark.parametrize(
        "query",
        [
            b"x=1",
            b"x=1&x=2",
            b"&&",
            b"=",
            b"Offset=5",
            b"offsets=1",
            b"x=%zz",
            b"%zz=1",
            b"%6=1",
            b"timeout=5&_=%",
            b"x=offset=1",
        ],
    )
    def test_unknown_parameters_are_ignored(self, query: bytes) -> None:
        """Extensions, repeated or malformed, don't concern us."""
        assert parse_read_query(query) == ReadQuery()
        assert parse_read_query(query + b"&offset=-1") == ReadQuery(0)

    @pytest.mark.parametrize(
        ("query", "detail"),
        [
            (b"offset=-1&offset=-1", "The parameter 'offset' is repeated."),
            (b"offset=a&offset=b", "The parameter 'offset' is repeated."),
            (b"offset=-1&%6fffset=-1", "The parameter 'offset' is repeated."),
            (b"offset&offset=-1", "The parameter 'offset' is repeated."),
            (b"live=sse&offset=-1&live=sse", "The parameter 'live' is repeated."),
            (b"offset=-1&cursor=1&cursor=1", "The parameter 'cursor' is repeated."),
            (b"offset=%", "Malformed percent-encoding in the parameter 'offset': '%'."),
            (b"offset=-1&live=%zz", "Malformed percent-encoding in the parameter 'live': '%zz'."),
            (b"offset=-1&cursor=%1", "Malformed percent-encoding in the parameter 'cursor': '%1'."),
            (b"offset=-1&live=poll", "Unknown value of the parameter 'live': 'poll'; use long-poll or sse."),
            (b"offset=-1&live=SSE", "Unknown value of the parameter 'live': 'SSE'; use long-poll or sse."),
            (b"offset=-1&live=", "Unknown value of the parameter 'live': ''; use long-poll or sse."),
            (b"offset=-1&live", "Unknown value of the parameter 'live': ''; use long-poll or sse."),
            (b"live=poll", "Unknown value of the parameter 'live': 'poll'; use long-poll or sse."),
            (b"live=sse", "A live read needs the parameter 'offset'."),
            (b"live=long-poll&cursor=5", "A live read needs the parameter 'offset'."),
        ],
    )
    def test_refusals(self, query: bytes, detail: str) -> None:
        """A parameter of ours that is repeated, malformed or alone is a bad request that says which."""
        with pytest.raises(BadRequest) as caught:
            parse_read_query(query)
        assert caught.value.detail == detail

    @pytest.mark.parametrize(
        "query",
        [
            b"offset=",
            b"offset",
            b"offset=0,1",
            b"offset=0%201",
            b"offset=+1",
            b"offset=-1;live=sse",
            b"offset=now%00",
            b"offset=x&live=sse",
            b"live=sse&offset=" + FIVE + b"x",
        ],
    )
    def test_malformed_offsets(self, query: bytes) -> None:
        """A malformed offset is refused as such; a plus sign isn't a blank, a semicolon no separator."""
        with pytest.raises(InvalidOffset):
            parse_read_query(query)

    @given(
        st.sampled_from([None, b"-1", b"now", FIVE]),
        st.sampled_from([None, b"sse", b"long-poll"]),
        st.none() | st.integers(0, 10**18 - 1).map(lambda cursor: b"%d" % cursor),
        st.permutations([b"offset", b"live", b"cursor"]),
        st.booleans(),
    )
    def test_order_and_encoding_do_not_matter(
        self, offset: bytes | None, live: bytes | None, cursor: bytes | None, order: list[bytes], encode: bool
    ) -> None:
        """The same parameters mean the same in any order, escaped or not."""
        values = {b"offset": offset, b"live": live, b"cursor": cursor}

        def write(value: bytes) -> bytes:
            return re.sub(rb".", lambda m: b"%%%02X" % m.group()[0], value, flags=re.DOTALL) if encode else value

        query = b"&".join(b"%b=%b" % (name, write(value)) for name in order if (value := values[name]) is not None)
        if live is not None and offset is None:
            with pytest.raises(BadRequest, match="needs the parameter 'offset'"):
                parse_read_query(query)
            return
        parsed = parse_read_query(query)
        assert parsed.offset == (None if offset is None else {b"-1": 0, b"now": NOW}.get(offset, 5))
        assert parsed.live == (None if live is None else Live(live.decode()))
        assert parsed.cursor == (None if cursor is None else int(cursor))

    @given(st.one_of(st.binary(), st.text("offset=livcur-1&%2snw", max_size=30).map(str.encode)))
    def test_any_bytes_give_a_query_or_a_refusal(self, query: bytes) -> None:
        """Nothing but a protocol error is raised."""
        try:
            parsed = parse_read_query(query)
        except (BadRequest, InvalidOffset):
            return
        assert parsed.live is None or parsed.offset is not None

    @given(st.binary())
    def test_encoded_offsets_are_judged_decoded(self, raw: bytes) -> None:
        """Whatever bytes are sent as an escaped offset, only a real token is taken."""
        query = b"offset=" + quote_from_bytes(raw, safe="").encode()
        if raw in (b"-1", b"now"):
            assert parse_read_query(query).offset in (0, NOW)
        else:
            with pytest.raises(InvalidOffset):
                parse_read_query(query)
