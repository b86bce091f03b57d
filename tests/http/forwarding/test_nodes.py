"""How proxies write whom they got a request from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.forwarding.headers import parse_node


class NodeTests:
    """RFC 7239 section 6, and what proxies really send."""

    @pytest.mark.parametrize(
        ("raw", "node"),
        [
            (b"203.0.113.7", "203.0.113.7"), (b"203.0.113.7:4711", "203.0.113.7"), (b"203.0.113.7:_p", "203.0.113.7"),
            (b"2001:DB8::1", "2001:db8::1"), (b"[2001:db8::1]", "2001:db8::1"), (b"[2001:db8::1]:4711", "2001:db8::1"),
            (b"[2001:db8:0:0::1]:_x", "2001:db8::1"),
            (b"::ffff:203.0.113.7", "203.0.113.7"), (b"[::ffff:203.0.113.7]:1", "203.0.113.7"),
            (b"_hidden", "_hidden"), (b"_SEVKISEK:47", "_SEVKISEK"), (b"_a.b-c_d", "_a.b-c_d"),
        ],
    )  # fmt: skip
    def test_known(self, raw: bytes, node: str) -> None:
        """Brackets and ports are left out, and an address has one form only."""
        assert parse_node(raw) == node

    @pytest.mark.parametrize(
        "raw",
        [
            b"", b"unknown", b"unknown:80", b"localhost", b"example.org", b"203.0.113", b"203.0.113.256", b"010.0.0.1",
            b"203.0.113.7:", b"203.0.113.7:123456", b"203.0.113.7:x", b"[203.0.113.7", b"[]", b"[]:80", b"[::1]x",
            b"fe80::1%eth0", b"[fe80::1%25eth0]", b"_", b"_a b", b"-", b"203.0.113.7, 10.0.0.1", b"\xff", b"1" * 300,
            b"203.0.113.7\n", b"_a\n", b"3405803783",
        ],
    )  # fmt: skip
    def test_unknown(self, raw: bytes) -> None:
        """Names, numbers out of range, zones and anything else are nobody."""
        assert parse_node(raw) is None

    @given(st.binary(max_size=40) | st.text(alphabet="0123456789abf:.[]_%, ", max_size=40).map(str.encode))
    def test_any_bytes(self, raw: bytes) -> None:
        """Nothing makes it raise, and what it finds it finds again in its own answer."""
        node = parse_node(raw)
        assert node is None or parse_node(node.encode()) == node
