"""Listening addresses as an operator writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.config.addresses import BindAddress, parse_bind_address


class BindAddressTests:
    """An address is a literal IP address and a port."""

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("0.0.0.0:4437", BindAddress("0.0.0.0", 4437)),
            ("127.0.0.1:0", BindAddress("127.0.0.1", 0)),
            ("[::]:65535", BindAddress("::", 65_535)),
            ("[0:0::1]:80", BindAddress("::1", 80)),
        ],
    )
    def test_valid(self, text: str, address: BindAddress) -> None:
        """IPv4 as it is and IPv6 in brackets are read."""
        assert parse_bind_address(text) == address

    @pytest.mark.parametrize(
        "text",
        [
            "", ":", "4437", ":4437", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:-1",
            "127.0.0.1:65536", "127.0.0.1:+1", " 127.0.0.1:1", "127.0.0.1:1\n", "127.0.0.1:\u0661",
            "127.0.0.01:1",
            "256.0.0.1:1", "localhost:1", "::1:1", "[::1]", "[::1]1", "[127.0.0.1]:1", "[]:1", "[[::1]]:1",
        ],
    )  # fmt: skip
    def test_invalid(self, text: str) -> None:
        """Names, missing parts, blanks and impossible numbers are refused."""
        with pytest.raises(ValueError, match="must"):
            parse_bind_address(text)

    @given(st.ip_addresses(), st.integers(0, 65_535))
    def test_round_trip(self, host: object, port: int) -> None:
        """What an address prints is what it is read from."""
        address = BindAddress(str(host), port)
        assert parse_bind_address(str(address)) == address
