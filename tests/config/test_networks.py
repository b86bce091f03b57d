"""IP addresses and networks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.config.addresses import parse_network, parse_trusted


class ParseTests:
    """An address or a network, IPv4 or IPv6."""

    @pytest.mark.parametrize(
        ("text", "network"),
        [
            ("10.1.2.3", "10.1.2.3/32"), ("10.0.0.0/8", "10.0.0.0/8"), ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1/128"), ("fd00::1/8", "fd00::/8"), ("::/0", "::/0"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"), ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:0:0/96", "0.0.0.0/0"),
        ],
    )  # fmt: skip
    def test_valid(self, text: str, network: str) -> None:
        """Bits below the prefix don't matter; what is IPv4 in disguise becomes IPv4."""
        assert str(parse_network(text)) == network

    @pytest.mark.parametrize(
        "text",
        [
            "", " ", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/255.0.0.0", "10.0.0", "10.0.0.01",
            "localhost", "10.0.0.1:80", "[::1]", "fe80::1%eth0", "10.0.0.0/8/8", "10.0.0.0/\u0668", " 10.0.0.1", "unix",
        ],
    )  # fmt: skip
    def test_invalid(self, text: str) -> None:
        """Names, ports, zones, netmasks and impossible prefixes are refused."""
        with pytest.raises(ValueError, match="must be an IP address or a network"):
            parse_network(text)

    @given(st.ip_addresses())
    def test_addresses(self, address: object) -> None:
        """An address is the network that holds only it."""
        assert parse_network(str(address)).num_addresses == 1


class TrustedTests:
    """An item of ``proxy.trusted_proxies``."""

    def test_valid(self) -> None:
        """A network, or the word for UNIX sockets."""
        assert parse_trusted("10.1.2.3/8") == parse_network("10.0.0.0/8")
        assert parse_trusted("unix") is None

    @pytest.mark.parametrize("text", ["", "UNIX", "unix:", "unix:/run/streams.sock", "localhost", "10.0.0.0/33"])
    def test_invalid(self, text: str) -> None:
        """Anything else gets the remedy with all that may stand there."""
        with pytest.raises(ValueError, match=r"must be an IP address or a network, .* or unix for UNIX sockets"):
            parse_trusted(text)
