"""Twisted's endpoint strings, as far as the configuration understands them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints as twisted_endpoints

from dstreams.config.endpoints import (
    collide,
    is_loopback,
    known_types,
    on_loopback,
    place_of,
    split_endpoint,
    tcp_places,
)


class SplitTests:
    """Taking a string apart."""

    @given(st.text(alphabet="ab:=\\\\ 1", max_size=12).filter(lambda text: not text.endswith("\\")))
    def test_as_twisted(self, text: str) -> None:
        """Every string is taken apart as Twisted does it."""
        endpoint = split_endpoint(text)
        arguments, named = twisted_endpoints._parse(text)
        assert endpoint.named == named
        assert [endpoint.type, *endpoint.arguments] == (arguments or [""])


class PlaceTests:
    """Where TCP endpoints and addresses are."""

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("tcp:80", ("", 80)),
            ("tcp:80:10.0.0.1", ("10.0.0.1", 80)),
            ("tcp:port=80:interface=10.0.0.1", ("10.0.0.1", 80)), (r"tcp6:80:interface=\:\:1", ("::1", 80)),
            ("dstls:443:cert=c:key=k", ("", 443)), (r"dstls:endpoint=tcp\:443:cert=c:key=k", None),
            ("unix:/a:80", None), ("systemd:domain=INET:index=0", None), ("tcp:x", None), ("", None),
        ],
    )  # fmt: skip
    def test_place(self, text: str, place: tuple[str, int] | None) -> None:
        """What has no port of its own has no place."""
        assert place_of(text) == place

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("tcp:80", "tcp:80:interface=127.0.0.1"), ("tcp6:port=80", r"tcp6:port=80:interface=\:\:1"),
            ("tcp:80:interface=10.0.0.1", None), ("tcp:80:10.0.0.1", None), ("unix:/a", None),
            ("systemd:domain=INET:index=0", None),
        ],
    )  # fmt: skip
    def test_on_loopback(self, text: str, expected: str | None) -> None:
        """TCP without an interface gets the loopback one; everything else stays."""
        assert on_loopback(text) == (expected or text)

    @pytest.mark.parametrize(
        ("interface", "expected"),
        [
            ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("", False),
            ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("a.b", False),
            ("::ffff:127.0.0.1", True), ("::ffff:10.0.0.1", False),
        ],
    )  # fmt: skip
    def test_is_loopback(self, interface: str, expected: bool) -> None:
        """Only loopback addresses are closed to other machines."""
        assert is_loopback(interface) is expected

    def test_endpoints_replace_the_address(self) -> None:
        """The address counts only where there are no endpoints."""
        assert tcp_places("127.0.0.1:1", ()) == [("127.0.0.1", 1)]
        assert tcp_places("127.0.0.1:1", ("tcp:2", "unix:/a")) == [("", 2)]

    @pytest.mark.parametrize(
        ("one", "other", "expected"),
        [
            (("", 1), ("10.0.0.1", 1), True), (("0.0.0.0", 1), ("10.0.0.1", 1), True), (("::", 1), ("", 1), True),
            (("10.0.0.1", 1), ("10.0.0.1", 1), True), (("10.0.0.1", 1), ("10.0.0.2", 1), False),
            (("", 1), ("", 2), False), (("", 0), ("", 0), False),
        ],
    )  # fmt: skip
    def test_collide(self, one: tuple[str, int], other: tuple[str, int], expected: bool) -> None:
        """Two can't have the same port on the same interface; port 0 is never the same."""
        assert collide(one, other) is collide(other, one) is expected


class KnownTypesTests:
    """What an endpoint string may begin with."""

    def test_known(self) -> None:
        """Twisted's own types, those of its plugins, and ours."""
        assert {"tcp", "tcp6", "unix", "ssl", "systemd", "dstls"} <= set(known_types())
