"""Names of hosts in lists and in headers."""

from __future__ import annotations

import pytest

from dstreams.config.addresses import host_of, parse_host


class ParseHostTests:
    """What an operator may list."""

    @pytest.mark.parametrize(
        ("text", "host"),
        [
            ("metrics.example.org", "metrics.example.org"),
            ("Metrics.Example.ORG.", "metrics.example.org"),
            ("a_b-1", "a_b-1"),
            ("10.1.2.3", "10.1.2.3"),
            ("::1", "::1"),
            ("[FD00:0::1]", "fd00::1"),
        ],
    )
    def test_read(self, text: str, host: str) -> None:
        """Names and addresses have one form each."""
        assert parse_host(text) == host

    @pytest.mark.parametrize(
        "text", ["", " ", "a:80", "a..b", ".a", "a b", "http://a", "*", "[a]", "[::1]:80", "fe80::1%eth0", "ä.example"]
    )
    def test_refused(self, text: str) -> None:
        """Everything else is told how to write it."""
        with pytest.raises(ValueError, match="without a port, such as"):
            parse_host(text)


class HostOfTests:
    """What a client says."""

    @pytest.mark.parametrize(
        ("header", "host"),
        [
            ("a", "a"),
            ("A.b:80", "a.b"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1:9090", "127.0.0.1"),
            ("[::1]", "::1"),
            ("[::1]:9090", "::1"),
            ("[0:0::1]:", "::1"),
        ],
    )
    def test_with_and_without_port(self, header: str, host: str) -> None:
        """The port is left off, in all forms."""
        assert host_of(header) == host

    @pytest.mark.parametrize("header", ["", ":80", "a/b", "a@b", "[::1", "::1]:1x", "a:b:c", "\xe4"])
    def test_no_host(self, header: str) -> None:
        """What is no host is none."""
        assert host_of(header) is None
