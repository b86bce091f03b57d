"""What the headers of a trusted proxy say of the client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.forwarding.application import TrustedProxies
from dstreams.http.forwarding.headers import MAX_PROXIES, read_forwarded, read_x_forwarded
from dstreams.http.forwarding.headers import ForwardedRequest as Forwarded

TRUSTS = TrustedProxies.parse(["10.0.0.0/8", "fd00::/8"]).trusts

REAL, SPOOFED = "203.0.113.7", "198.51.100.66"

ANYTHING = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")) | st.sampled_from(
    [
        b"", b"198.51.100.66", b'for="', b"for=198.51.100.66", b'for=198.51.100.66;host=evil.example;x="', b'x="\\',
        b";", b'"',
    ]
) | st.text(alphabet='for=;,"\\1.:[]_ x', max_size=40).map(str.encode)  # fmt: skip
"""What a client may send before the proxies add to it."""


class XForwardedForTests:
    """The client by ``X-Forwarded-For``."""

    @pytest.mark.parametrize(
        ("value", "client"),
        [
            (b"203.0.113.7", "203.0.113.7"),
            (b" 203.0.113.7\t", "203.0.113.7"),
            (b"198.51.100.66, 203.0.113.7", "203.0.113.7"),
            (b"198.51.100.66, 203.0.113.7, 10.0.0.5", "203.0.113.7"),
            (b"198.51.100.66, 203.0.113.7, fd00::5, 10.0.0.5", "203.0.113.7"),
            (b"203.0.113.7,::ffff:10.0.0.5", "203.0.113.7"),
            (b"198.51.100.66,[2001:db8::1]:4711", "2001:db8::1"),
            (b"203.0.113.7:4711", "203.0.113.7"),
            (b"10.0.0.9, 10.0.0.5", "10.0.0.9"),
            (b"198.51.100.66, unknown, 10.0.0.5", "10.0.0.5"),
            (b"198.51.100.66, nonsense", None),
            (b"198.51.100.66,", None),
            (b"198.51.100.66, _hidden", "_hidden"),
            (b"", None),
            (b",", None),
        ],
    )
    def test_client(self, value: bytes, client: str | None) -> None:
        """The first from the right that isn't a trusted proxy; nothing stands behind what can't be read."""
        assert read_x_forwarded({b"x-forwarded-for": value}, TRUSTS).client == client

    def test_long_chain(self) -> None:
        """A chain of trusted proxies is followed so far and no further."""
        hops = b", ".join(b"10.0.0.%d" % number for number in range(200))
        assert read_x_forwarded({b"x-forwarded-for": hops}, TRUSTS).client == f"10.0.0.{200 - MAX_PROXIES}"

    @given(ANYTHING)
    def test_spoofing(self, sent: bytes) -> None:
        """Whatever a client sends, it is the one that the nearest proxy saw."""
        for added in (b", 203.0.113.7", b",203.0.113.7", b", 203.0.113.7, 10.0.0.5"):
            assert read_x_forwarded({b"x-forwarded-for": sent + added}, TRUSTS).client == REAL


class XForwardedUrlTests:
    """The scheme and the authority that the client asked."""

    @pytest.mark.parametrize(
        ("value", "scheme"),
        [
            (b"https", b"https"), (b"http", b"http"), (b"HTTPS", b"https"), (b"javascript", None), (b"wss", None),
            (b"https, http", b"http"), (b"javascript, https", b"https"), (b"https, javascript", None),
            (b"https,", None), (b"", None), (b"https://x", None), (b"https\xff", None),
        ],
    )  # fmt: skip
    def test_scheme(self, value: bytes, scheme: bytes | None) -> None:
        """The last value, and only if it is one of HTTP's."""
        assert read_x_forwarded({b"x-forwarded-proto": value}, TRUSTS).scheme == scheme

    @pytest.mark.parametrize(
        ("value", "authority"),
        [
            (b"streams.example", b"streams.example"), (b"streams.example:8443", b"streams.example:8443"),
            (b"[2001:db8::1]:8443", b"[2001:db8::1]:8443"), (b"evil.example, streams.example", b"streams.example"),
            (b"", None), (b":80", None), (b"a b", None), (b"a/b", None), (b"user@a", None), (b"a\\b", None),
            (b"a?b", None), (b"a:b", None), (b"[::1", None), (b"<a>", None), (b"\xc3\xa4.example", None),
            (b"a, ", None), (b"//a", None),
        ],
    )  # fmt: skip
    def test_authority(self, value: bytes, authority: bytes | None) -> None:
        """The last value, and only if it is a host with or without a port."""
        assert read_x_forwarded({b"x-forwarded-host": value}, TRUSTS).authority == authority

    def test_port(self) -> None:
        """``X-Forwarded-Port`` changes nothing: what has a port of its own has it in the host."""
        assert read_x_forwarded({b"x-forwarded-port": b"8443"}, TRUSTS) == Forwarded()

    def test_other_family(self) -> None:
        """``Forwarded`` isn't looked at."""
        assert read_x_forwarded({b"forwarded": b"for=203.0.113.7;proto=https;host=a"}, TRUSTS) == Forwarded()


class ForwardedTests:
    """The account of ``Forwarded``."""

    @pytest.mark.parametrize(
        ("value", "account"),
        [
            (b"for=203.0.113.7;proto=https;host=a.example", Forwarded("203.0.113.7", b"https", b"a.example")),
            (b'for="[2001:db8::1]:4711";host="a.example:8443"', Forwarded("2001:db8::1", None, b"a.example:8443")),
            # The client's own element is the outermost trusted proxy's; those to its left are the client's word.
            (
                b"for=198.51.100.6;proto=http;host=evil.test,for=203.0.113.7;proto=https;host=a.example,for=10.1.1.1",
                Forwarded("203.0.113.7", b"https", b"a.example"),
            ),
            (
                b"for=203.0.113.7;proto=https;host=a.example, for=10.0.0.5;proto=http;host=inner",
                Forwarded("203.0.113.7", b"https", b"a.example"),
            ),
            # What it lacks is taken from the next proxy, never from the client.
            (
                b"for=1.1.1.1;host=evil.example, for=203.0.113.7, for=10.0.0.5;proto=https",
                Forwarded("203.0.113.7", b"https"),
            ),
            # Whom a proxy doesn't name, it hides; nothing to the left counts.
            (b"for=198.51.100.66;host=evil.example, for=unknown;proto=https", Forwarded(None, b"https")),
            (b"for=198.51.100.66, proto=https", Forwarded(None, b"https")),
            (b"for=198.51.100.66, for=_hidden", Forwarded("_hidden")),
            (b"for=198.51.100.66, for=unknown, for=10.0.0.5", Forwarded("10.0.0.5")),
            (b'for=203.0.113.7;proto=javascript;host="a/b"', Forwarded("203.0.113.7")),
            (b"for=203.0.113.7;proto=HTTPS", Forwarded("203.0.113.7", b"https")),
            (b"", Forwarded()), (b"nonsense", Forwarded()), (b'for=203.0.113.7, for="', Forwarded()),
        ],
    )  # fmt: skip
    def test_account(self, value: bytes, account: Forwarded) -> None:
        """Read from the right, as far as trusted proxies have written it."""
        assert read_forwarded({b"forwarded": value}, TRUSTS) == account

    def test_other_family(self) -> None:
        """The ``X-Forwarded`` headers aren't looked at."""
        others = {b"x-forwarded-for": b"203.0.113.7", b"x-forwarded-host": b"a", b"x-forwarded-proto": b"https"}
        assert read_forwarded(others, TRUSTS) == Forwarded()

    @given(
        ANYTHING,
        st.sampled_from(
            [
                b"for=203.0.113.7;proto=https;host=a.example",
                b'for="203.0.113.7";proto="https";host="a.example"',
                b'proto=https;host="a.example";for="203.0.113.7:80"',
                b'for=203.0.113.7;proto=https;host="a.example", for="10.0.0.5"',
                b'for=203.0.113.7;proto=https;host=a.example, for="[fd00::1]";by="_proxy"',
            ]
        ),
    )
    def test_spoofing(self, sent: bytes, added: bytes) -> None:
        """Whatever a client sends, it can hide what the proxies say but never say anything in their place."""
        account = read_forwarded({b"forwarded": sent + b", " + added}, TRUSTS)
        assert account in (Forwarded(), Forwarded(REAL, b"https", b"a.example"))
