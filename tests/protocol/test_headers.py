"""Header names and the values that several of them share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol import headers
from dstreams.protocol.headers import (
    ALLOWED_REQUEST_HEADERS,
    EXPOSED,
    MAX_INTEGER,
    is_closed,
    parse_integer,
)
from dstreams.protocol.problems import BadRequest


class NameTests:
    """The two spellings of every name."""

    def test_keys_are_the_names_in_lower_case(self) -> None:
        """A request key is always the lower-case form of the name in responses."""
        pairs = [
            (getattr(headers, name), getattr(headers, name + "_KEY"))
            for name in dir(headers)
            if hasattr(headers, name + "_KEY")
        ]
        assert len(pairs) == 10
        assert all(key == name.lower() for name, key in pairs)

    def test_browsers_may_read_every_protocol_header(self) -> None:
        """Everything the protocol puts on a response is exposed, also what the fetch API hides by default."""
        protocol = {
            value for name, value in vars(headers).items() if isinstance(value, bytes) and not name.endswith("_KEY")
        }
        assert protocol <= set(EXPOSED)
        assert {b"Location", b"ETag", b"Retry-After", b"Stream-SSE-Data-Encoding"} <= set(EXPOSED)
        assert len(set(EXPOSED)) == len(EXPOSED)

    def test_browsers_may_send_every_request_header(self) -> None:
        """Every header that a request of the protocol can have passes a preflight."""
        keys = {value for name, value in vars(headers).items() if name.endswith("_KEY")}
        assert keys <= {name.lower() for name in ALLOWED_REQUEST_HEADERS}
        assert {b"Authorization", b"Cache-Control", b"Last-Event-ID"} <= set(ALLOWED_REQUEST_HEADERS)


class ClosedTests:
    """Stream-Closed in a request."""

    @pytest.mark.parametrize("value", [b"true", b"TRUE", b"True", b"tRuE"])
    def test_true_in_any_case(self, value: bytes) -> None:
        """Only the word true asks for closure, in any letter case."""
        assert is_closed({b"stream-closed": value})

    @pytest.mark.parametrize("value", [b"", b"false", b"yes", b"1", b"true ", b"true, true", b"truee", b"\xff"])
    def test_everything_else_is_absence(self, value: bytes) -> None:
        """Any other value is ignored, never an error."""
        assert not is_closed({b"stream-closed": value})

    def test_absent(self) -> None:
        """A request without the header doesn't close."""
        assert not is_closed({})


class IntegerTests:
    """Non-negative decimal integers."""

    @given(st.integers(0, MAX_INTEGER))
    def test_takes_the_canonical_form(self, value: int) -> None:
        """Every integer up to 2**53 - 1 is taken in its shortest decimal form."""
        assert parse_integer(b"Stream-TTL", b"%d" % value) == value

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b" 1",
            b"1 ",
            b"+1",
            b"-1",
            b"-0",
            b"00",
            b"01",
            b"1.0",
            b"1e3",
            b"0x1",
            b"1_000",
            b"\xd9\xa1",
            b"1\n",
            b"abc",
            b"1, 1",
            b"9007199254740992",
            b"9999999999999999",
            b"10000000000000000",
            b"9" * 10_000,
        ],
    )
    def test_refuses_everything_else(self, raw: bytes) -> None:
        """Signs, blanks, leading zeros, other notations and larger numbers name the header in the refusal."""
        with pytest.raises(BadRequest, match="Invalid header value for Producer-Seq: '"):
            parse_integer(b"Producer-Seq", raw)
