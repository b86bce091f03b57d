"""Which peers are trusted proxies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.forwarding import application as trust
from dstreams.http.forwarding.application import TrustedProxies


class TrustTests:
    """The entries of ``proxy.trusted_proxies`` against a peer's address."""

    @pytest.mark.parametrize(
        ("listed", "peer", "trusted"),
        [
            ("10.1.2.3", "10.1.2.3", True), ("10.1.2.3", "10.1.2.4", False),
            ("10.0.0.0/8", "10.255.255.255", True), ("10.0.0.0/8", "11.0.0.0", False), ("10.9.9.9/8", "10.0.0.1", True),
            ("0.0.0.0/0", "203.0.113.7", True), ("0.0.0.0/0", "::1", False), ("0.0.0.0/0", "2001:db8::1", False),
            ("::/0", "2001:db8::1", True), ("::/0", "10.0.0.1", False), ("::/0", "::ffff:10.0.0.1", False),
            ("10.0.0.0/8", "::ffff:10.0.0.1", True), ("10.0.0.0/8", "::ffff:a00:1", True),
            ("10.0.0.0/8", "::ffff:11.0.0.1", False), ("10.0.0.0/8", "::10.0.0.1", False),
            ("::ffff:10.0.0.0/104", "10.0.0.1", True), ("::ffff:10.0.0.1", "::ffff:10.0.0.1", True),
            ("127.0.0.1", "::1", False), ("::1", "127.0.0.1", False), ("::1", "0:0:0:0:0:0:0:1", True),
            ("fd00::/8", "fdff::1", True), ("fd00::/8", "fe00::1", False),
            ("fe80::/10", "fe80::1%eth0", True), ("fe80::1", "fe80::1%eth0", True),
            ("unix", "", True), ("10.0.0.0/8", "", False), ("0.0.0.0/0,::/0", "", False), ("unix", "127.0.0.1", False),
            ("unix,10.0.0.1", "10.0.0.1", True),
            ("0.0.0.0/0,::/0,unix", "unix", False), ("0.0.0.0/0,::/0,unix", "_hidden", False),
            ("0.0.0.0/0", "10.0.0.01", False), ("0.0.0.0/0", "10.0.0.1:80", False),
        ],
    )  # fmt: skip
    def test_peers(self, listed: str, peer: str, trusted: bool) -> None:
        """IPv4 and IPv6 never match each other, but for IPv4 in the form of IPv6; no text but an address matches."""
        proxies = TrustedProxies.parse(listed.split(","))
        assert proxies.trusts(peer) is trusted
        assert proxies.trusts(peer) is trusted, "the second answer is another one"

    def test_nobody(self) -> None:
        """An empty list trusts nobody."""
        assert not any(map(TrustedProxies.parse([]).trusts, ["127.0.0.1", "::1", ""]))

    def test_unreadable(self) -> None:
        """An entry that can't be read is told with its remedy."""
        with pytest.raises(ValueError, match="or unix for UNIX sockets"):
            TrustedProxies.parse(["10.0.0.1", "proxy.example"])

    def test_bounded_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many peers there are, few are remembered."""
        monkeypatch.setattr(trust, "_MOST_PEERS", 10)
        proxies = TrustedProxies.parse(["10.0.0.0/8"])
        for number in range(100):
            assert proxies.trusts(f"10.0.0.{number}")
            assert not proxies.trusts(f"11.0.0.{number}")
        assert len(proxies._known) <= 10

    @given(st.text(max_size=30))
    def test_any_text(self, peer: str) -> None:
        """Nothing makes it raise."""
        TrustedProxies.parse(["10.0.0.0/8", "fd00::/8"]).trusts(peer)
