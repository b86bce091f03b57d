"""The ``Forwarded`` header."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.forwarding.headers import parse_forwarded


class ParseTests:
    """RFC 7239 section 4."""

    @pytest.mark.parametrize(
        ("value", "elements"),
        [
            (b"for=192.0.2.43", [{b"for": b"192.0.2.43"}]),
            (b'For="[2001:db8:cafe::17]:4711"', [{b"for": b"[2001:db8:cafe::17]:4711"}]),
            (b"for=a;proto=http;by=b", [{b"for": b"a", b"proto": b"http", b"by": b"b"}]),
            (b"for=a, for=b", [{b"for": b"a"}, {b"for": b"b"}]),
            (b"for=a ,\tfor=b ", [{b"for": b"a"}, {b"for": b"b"}]),
            (b"for=a; proto=https ;host=h", [{b"for": b"a", b"proto": b"https", b"host": b"h"}]),
            (b'for="a, for=b;c";host=d', [{b"for": b"a, for=b;c", b"host": b"d"}]),
            (rb'for="a\"b\\c\d"', [{b"for": b'a"b\\cd'}]),
            (b'for=""', [{b"for": b""}]),
            (b"for=", [{b"for": b""}]),
            (b"FOR=a;pRoTo=HTTP", [{b"for": b"a", b"proto": b"HTTP"}]),
            (b"for=1.2.3.4:80;host=[::1]:8080", [{b"for": b"1.2.3.4:80", b"host": b"[::1]:8080"}]),
            (b";for=a;", [{b"for": b"a"}]),
            (b",,for=a,,", [{b"for": b"a"}]),
            (b"", []), (b" ", []), (b";,;", []),
        ],
    )  # fmt: skip
    def test_valid(self, value: bytes, elements: list[dict[bytes, bytes]]) -> None:
        """Commas and semicolons count outside quotation marks only; empty elements and pairs don't."""
        assert parse_forwarded(value) == elements

    @pytest.mark.parametrize(
        "value",
        [
            b"for", b"=a", b"for =a", b"for= a", b"for=a b", b'for="a', b'for="a\\', b'for="a\\"', b'for=a"b"',
            b'for="a"b', b"for=a;for=b", b"for=a;FOR=b", b"for=a/b", b"for=a=b", b"fo(r=a", b'"for"=a', b"for=\xff",
            b'for=a, "', b"a b=c", b'for="a""b"',
        ],
    )  # fmt: skip
    def test_malformed(self, value: bytes) -> None:
        """A header with any fault says nothing."""
        assert parse_forwarded(value) is None

    @given(st.binary(max_size=60) | st.text(alphabet='for=;,"\\ab1 \t:[]', max_size=60).map(str.encode))
    def test_any_bytes(self, value: bytes) -> None:
        """Nothing makes it raise."""
        elements = parse_forwarded(value)
        assert elements is None or all(elements)

    @pytest.mark.parametrize(
        "value",
        [
            b'"' * 30_000, b'a="' + b"\\" * 30_001, b'a="' + b"x" * 30_000, b"a=" + b" " * 30_000 + b"x",
            b" " * 30_000 + b"x", b"a" * 30_000, b"a=b;" * 7_000 + b"=", b"a=b" + b" " * 30_000 + b"x",
            b'a="' + b'\\"' * 15_000,
        ],
        ids=range(9),
    )  # fmt: skip
    def test_hostile(self, value: bytes) -> None:
        """The largest head is read in one pass from left to right, whatever is in it."""
        started = time.process_time()
        assert parse_forwarded(value) is None
        assert time.process_time() - started < 0.5  # it takes 0.001 s; going back and forth takes seven

    def test_many_elements(self) -> None:
        """As many elements as a head can hold are read."""
        assert len(parse_forwarded(b"for=a," * 5000) or []) == 5000
