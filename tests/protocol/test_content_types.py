"""Content types, as sent and as compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol.content_types import DEFAULT, MAX_BYTES, ContentType, media_type, parse_content_type
from dstreams.protocol.problems import BadRequest
from dstreams.protocol.sse import SseEncoding

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789abcXYZ"
tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=8)
quoted = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)


class ParseTests:
    """Reading the header."""

    @pytest.mark.parametrize(
        ("raw", "value", "compared"),
        [
            (b"text/plain", "text/plain", "text/plain"),
            (b" \tText/Plain\t ", "Text/Plain", "text/plain"),
            (b"application/JSON; charset=UTF-8", "application/JSON; charset=UTF-8", "application/json"),
            (b"a/b;c=d;e=f", "a/b;c=d;e=f", "a/b"),
            (b"a/b ; c=d", "a/b ; c=d", "a/b"),
            (b"a/b;", "a/b;", "a/b"),
            (b"a/b;;c=d", "a/b;;c=d", "a/b"),
            (b'multipart/x; boundary="a;b\\"c, d"', 'multipart/x; boundary="a;b\\"c, d"', "multipart/x"),
            (b"application/vnd.api+json", "application/vnd.api+json", "application/vnd.api+json"),
            (b'a/b;c=""', 'a/b;c=""', "a/b"),
        ],
    )
    def test_keeps_the_value_and_normalizes_the_type(self, raw: bytes, value: str, compared: str) -> None:
        """Readers get what was sent; only type and subtype, in lower case, are compared."""
        content_type = parse_content_type(raw)
        assert (content_type.value, content_type.media_type) == (value, compared)
        assert media_type(raw) == compared

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b" ",
            b"text",
            b"text/",
            b"/plain",
            b"text/plain/x",
            b"text /plain",
            b"text/ plain",
            b"a b/c",
            b";a=b",
            b"text/plain; charset",
            b"text/plain; =x",
            b"text/plain; charset=",
            b"text/plain; a =b",
            b"text/plain; a= b",
            b"text/plain, text/plain",
            b"text/plain charset=x",
            b'text/plain; a="b',
            b'text/plain; a="b"c',
            b"text/pl\xc3\xa4in",
            b'text/plain; a="\xe4"',
            b"text/plain\x00",
            b"text/plain\r\nX: y",
            b"a/" + b"b" * MAX_BYTES,
        ],
    )
    def test_refuses_malformed_values(self, raw: bytes) -> None:
        """A blank, malformed or oversized type is a bad request, from both functions."""
        with pytest.raises(BadRequest, match="Invalid header value for Content-Type"):
            parse_content_type(raw)
        with pytest.raises(BadRequest):
            media_type(raw)

    @given(tokens, tokens, st.lists(st.tuples(tokens, st.one_of(tokens, quoted)), max_size=4))
    def test_takes_whatever_the_grammar_allows(
        self, first: str, second: str, parameters: list[tuple[str, str]]
    ) -> None:
        """Every value built by the grammar is taken, and parameters never change what is compared."""
        value = f"{first}/{second}" + "".join(f"; {name}={text}" for name, text in parameters)
        content_type = parse_content_type(value.encode())
        assert content_type.value == value
        assert content_type.media_type == f"{first}/{second}".lower()

    @given(st.binary(max_size=40))
    def test_any_bytes_give_a_type_or_a_refusal(self, raw: bytes) -> None:
        """Whatever is taken can be written back as one ASCII header line."""
        try:
            content_type = parse_content_type(raw)
        except BadRequest:
            return
        assert content_type.value.isascii()
        assert "\r" not in content_type.value
        assert "\n" not in content_type.value

    def test_hostile_values_are_judged_in_linear_time(self) -> None:
        """A long value that fails at its end doesn't make the grammar backtrack."""
        with pytest.raises(BadRequest):
            parse_content_type(b"a/b" + b"; a=b ; ;" * 110 + b"=")

    def test_cached(self) -> None:
        """The same value gives the same object."""
        assert parse_content_type(b"text/x-cached") is parse_content_type(b"text/x-cached")


class EncodingTests:
    """What follows from the type."""

    @pytest.mark.parametrize(
        ("raw", "is_json", "encoding"),
        [
            (b"application/json", True, SseEncoding.JSON),
            (b"Application/Json;charset=utf-8", True, SseEncoding.JSON),
            (b"application/problem+json", False, SseEncoding.BASE64),
            (b"application/jsonx", False, SseEncoding.BASE64),
            (b"application/ndjson", False, SseEncoding.BASE64),
            (b"text/plain", False, SseEncoding.TEXT),
            (b"TEXT/HTML; charset=utf-8", False, SseEncoding.TEXT),
            (b"text/json", False, SseEncoding.TEXT),
            (b"textual/plain", False, SseEncoding.BASE64),
            (b"application/octet-stream", False, SseEncoding.BASE64),
        ],
    )
    def test_json_mode_and_events(self, raw: bytes, is_json: bool, encoding: SseEncoding) -> None:
        """JSON mode is for application/json only; text/* travels as text, all else as base64."""
        content_type = parse_content_type(raw)
        assert (content_type.is_json, content_type.sse_encoding) == (is_json, encoding)

    @pytest.mark.parametrize(
        "raw",
        [
            b"text/html", b"Text/HTML; charset=utf-8", b"application/xhtml+xml", b"image/svg+xml", b"text/xml",
            b"application/xml;charset=x", b"application/rss+xml", b"multipart/x-mixed-replace; boundary=a",
        ],
    )  # fmt: skip
    def test_active(self, raw: bytes) -> None:
        """What a browser could run scripts of is put into a sandbox."""
        policy = b"Content-Security-Policy: sandbox; default-src 'none'\r\n"
        assert parse_content_type(raw).line == b"Content-Type: %b\r\n%b" % (raw, policy)

    @pytest.mark.parametrize(
        "raw", [b"text/plain", b"application/json", b"text/htmlx", b"application/xml-dtd", b"image/png", b"x/html"]
    )
    def test_passive(self, raw: bytes) -> None:
        """Nothing else has a policy."""
        assert parse_content_type(raw).line == b"Content-Type: %b\r\n" % raw

    def test_default(self) -> None:
        """A stream created without a type is plain bytes."""
        assert parse_content_type(b"application/octet-stream") == DEFAULT
        assert ContentType("application/octet-stream", "application/octet-stream") == DEFAULT
        assert not DEFAULT.is_json


class CharsetTests:
    """What ``charset`` says about the bytes of a text."""

    @pytest.mark.parametrize(
        "value",
        [
            b"text/plain; charset=koi8-r",
            b"text/plain;charset=KOI8-R",
            b"TEXT/CSV ; Charset=koi8-r ; header=present",
            b'text/plain; charset="koi8-r"',
            b'text/plain; charset="koi\\8-r"',
            b'text/plain; a=";charset=utf-8"; charset=koi8-r',
            b'text/plain; a="\\"; charset=utf-8"; charset=koi8-r',
            b"text/plain;; ;charset=koi8-r; charset=utf-8",
        ],
    )
    def test_known(self, value: bytes) -> None:
        """The first ``charset`` counts, as a token or quoted."""
        table = parse_content_type(value).decoding_table
        assert table is not None
        assert table[0xE4] == "\u0414"

    @pytest.mark.parametrize(
        "value",
        [
            b"text/plain",
            b"text/plain; charset=utf-8",
            b"text/plain; charset=utf-16",
            b"text/plain; charset=utf-8; charset=koi8-r",
            b'text/plain; charset=""',
            b"text/plain; xcharset=koi8-r",
            b'text/plain; a="; charset=koi8-r"',
            b"application/json; charset=koi8-r",
            b"application/xml; charset=koi8-r",
        ],
    )
    def test_none(self, value: bytes) -> None:
        """UTF-8, what isn't decoded, and what isn't text."""
        assert parse_content_type(value).decoding_table is None
