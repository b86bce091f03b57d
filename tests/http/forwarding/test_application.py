"""Requests behind reverse proxies, as the application and the transports see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, LogLevel
from twisted.web.server import Site

import dstreams
from dstreams.config.schema import Config, Identity, Proxy, Transport
from dstreams.http.access_log import RequestFields
from dstreams.http.forwarding import application as application_module
from dstreams.http.forwarding.application import WARNING_SECONDS, ForwardingApplication
from dstreams.http.http1.channel import HttpChannel
from dstreams.http.messages import Application, HeadCacheEntry, Request, Via
from tests.http.fakes import FakeApplication, FakeTransport
from tests.http.http2.client import Client
from tests.support.logs import logged

pytestmark = pytest.mark.usefixtures("failures")

PROXY, CLIENT, STRANGER = "10.0.0.5", "203.0.113.7", "198.51.100.66"

X_FORWARDED = Proxy(enabled=True, forwarded_headers="x-forwarded", trusted_proxies=("10.0.0.0/8",))
FORWARDED = evolve(X_FORWARDED, forwarded_headers="forwarded")
IDENTITY = Identity(mode="header", header_name="X-Client-Identity")

ALL = {
    b"host": b"inner",
    b"x-forwarded-for": b"203.0.113.7",
    b"x-forwarded-proto": b"https",
    b"x-forwarded-host": b"streams.example",
    b"x-forwarded-port": b"443",
    b"x-forwarded-prefix": b"/prefix",
    b"x-real-ip": b"192.0.2.1",
    b"forwarded": b"for=203.0.113.8;proto=https;host=other.example",
    b"x-client-identity": b"CN=alice",
}


@pytest.fixture
def warnings() -> Iterator[list[LogEvent]]:
    """What is warned of."""
    with logged(lambda event: event["log_level"] is LogLevel.warn) as events:
        yield events


class Behind:
    """An application behind proxies."""

    def __init__(self, proxy: Proxy = X_FORWARDED, *, mutual_tls: bool = False) -> None:
        self.clock = Clock()
        self.inner = FakeApplication()
        self.application: Application = ForwardingApplication(self.inner, proxy, mutual_tls, self.clock.seconds)

    def see(self, peer: str = PROXY, scheme: bytes = b"http", **headers: bytes) -> Request:
        """A request as it comes out; without headers it has all of them."""
        named = {name.replace("_", "-").encode(): value for name, value in headers.items()} or dict(ALL)
        return self.answer(Request(b"GET", b"/echo", b"", named, scheme=scheme, peer=peer, body=b""))

    def answer(self, request: Request) -> Request:
        """What becomes of a request, and that its headers, which others share, don't change."""
        shared = request.headers
        before = dict(shared)
        self.application.respond(request)
        assert shared == before
        return request


def names(request: Request) -> set[str]:
    return {name.decode() for name in request.headers}


class TrustedTests:
    """A trusted proxy's request becomes its client's."""

    def test_x_forwarded(self) -> None:
        """Scheme, host and client are what the headers say; the other family is removed."""
        request = Behind().see()
        assert (request.scheme, request.peer, request.headers[b"host"]) == (b"https", CLIENT, b"streams.example")
        assert request.via == Via(PROXY, True)
        assert names(request) == {
            "host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
            "x-forwarded-prefix", "x-real-ip", "x-client-identity",
        }  # fmt: skip

    def test_forwarded(self) -> None:
        """The same for ``Forwarded``."""
        request = Behind(FORWARDED).see()
        assert (request.scheme, request.peer, request.headers[b"host"]) == (b"https", "203.0.113.8", b"other.example")
        assert names(request) == {"host", "forwarded", "x-forwarded-prefix", "x-real-ip", "x-client-identity"}

    @pytest.mark.parametrize("proxy", [X_FORWARDED, FORWARDED])
    def test_nothing_said(self, proxy: Proxy) -> None:
        """What the proxy doesn't say is as it came: the client is then the proxy itself."""
        request = Behind(proxy).see(host=b"inner")
        assert (request.scheme, request.peer, request.headers[b"host"]) == (b"http", PROXY, b"inner")
        assert request.via == Via(PROXY, True)

    def test_invalid(self) -> None:
        """What isn't valid is as it came."""
        request = Behind().see(
            scheme=b"https",
            host=b"inner",
            x_forwarded_for=b"<script>",
            x_forwarded_proto=b"javascript",
            x_forwarded_host=b"a/b",
        )
        assert (request.scheme, request.peer, request.headers[b"host"]) == (b"https", PROXY, b"inner")

    def test_http_behind_https(self) -> None:
        """A client that asked in the clear is told so, however its proxy connects."""
        assert Behind().see(scheme=b"https", x_forwarded_proto=b"http").scheme == b"http"

    def test_no_host(self) -> None:
        """An HTTP/1.0 request without Host gets one."""
        assert Behind().see(x_forwarded_host=b"streams.example").headers[b"host"] == b"streams.example"

    def test_once(self) -> None:
        """A request is judged and then answered, or refused: all see the same."""
        behind = Behind()
        request = Request(b"GET", b"/echo", b"", {b"x-forwarded-for": b"10.0.0.9"}, peer=PROXY)
        behind.application.validate_head(request)
        request.body = b""
        behind.application.respond(request)
        behind.application.refuse(request, 400, "")
        assert (request.peer, request.via) == ("10.0.0.9", Via(PROXY, True))

    def test_refused(self) -> None:
        """A request that is refused before anything else is its client's, too; one without a head is nobody's."""
        behind = Behind()
        request = Request(b"GET", b"/echo", b"", ALL, peer=PROXY)
        behind.application.refuse(request, 400, "")
        behind.application.refuse(None, 400, "")
        assert request.peer == CLIENT

    def test_unix_socket(self) -> None:
        """Whoever connects through a UNIX socket is trusted if the list says so."""
        assert Behind(evolve(X_FORWARDED, trusted_proxies=("unix",))).see("").peer == CLIENT
        assert Behind().see("").peer == ""

    def test_same_head(self) -> None:
        """A head that is known from one peer says nothing about the same head from another."""
        behind, facts = Behind(), HeadCacheEntry()
        for peer, client in ((PROXY, CLIENT), (STRANGER, STRANGER), ("10.9.9.9", CLIENT), (STRANGER, STRANGER)):
            request = Request(b"GET", b"/echo", b"", ALL, peer=peer, body=b"", facts=facts)
            assert behind.answer(request).peer == client
            assert request.via == Via(peer, peer != STRANGER)
            assert (request.headers[b"host"] == b"inner") is (peer == STRANGER)
            assert (request.facts is facts) is (peer == STRANGER)

    @pytest.mark.parametrize("proxy", [X_FORWARDED, FORWARDED])
    def test_remembered(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was made of some headers is made again of the same ones only, and little is remembered."""
        monkeypatch.setattr(application_module, "_MOST_KNOWN", 5)
        behind: Any = Behind(proxy)
        for _ in range(2):
            for number in range(20):
                for scheme in (b"http", b"https"):
                    client = b"203.0.113.%d" % number
                    host = b"h%d.example" % number
                    request = behind.see(
                        x_forwarded_for=client,
                        x_forwarded_host=host,
                        x_forwarded_proto=scheme,
                        forwarded=b"for=%b;host=%b;proto=%b" % (client, host, scheme),
                    )
                    assert (request.peer.encode(), request.headers[b"host"], request.scheme) == (client, host, scheme)
        behind.see(x_forwarded_for=b"1" * 30_000, forwarded=b"for=" + b"1" * 30_000)
        known = behind.application._accounts
        assert len(known) <= 5
        assert all(sum(map(len, key)) <= 1024 for key in known)


class UntrustedTests:
    """Anybody else speaks only for himself."""

    @pytest.mark.parametrize("proxy", [X_FORWARDED, FORWARDED])
    @pytest.mark.parametrize("peer", [STRANGER, "", "::ffff:198.51.100.66", "nonsense"])
    def test_removed(self, proxy: Proxy, peer: str, warnings: list[LogEvent]) -> None:
        """Both families are removed and change nothing; other headers stay."""
        request = Behind(evolve(proxy, identity=IDENTITY), mutual_tls=True).see(peer, b"https")
        assert (request.scheme, request.peer, request.headers[b"host"]) == (b"https", peer, b"inner")
        assert request.via == Via(peer, False)
        assert names(request) == {"host", "x-forwarded-prefix", "x-real-ip"}
        assert len(warnings) == 1

    def test_nothing_to_remove(self, warnings: list[LogEvent]) -> None:
        """An ordinary client is no reason for a warning, and its headers aren't copied."""
        request = Request(b"GET", b"/echo", b"", {b"host": b"a"}, peer=STRANGER, body=b"")
        headers = request.headers
        Behind().answer(request)
        assert request.headers is headers
        assert warnings == []

    def test_warnings(self, warnings: list[LogEvent]) -> None:
        """One warning a minute, with what it stands for; it names the peer and the headers, never their values."""
        behind = Behind()
        for number in range(5):
            behind.see(f"198.51.100.{number}", forwarded=b"secret", x_forwarded_host=b"evil.example")
        assert [event["peer_ip"] for event in warnings] == ["198.51.100.0"]
        behind.clock.advance(WARNING_SECONDS - 0.1)
        behind.see(STRANGER, forwarded=b"secret")
        behind.clock.advance(0.1)
        behind.see(STRANGER, forwarded=b"secret")
        assert [event["peer_ip"] for event in warnings] == ["198.51.100.0", STRANGER]
        assert [event["count"] for event in warnings] == [1, 6]
        assert warnings[0]["headers"] == "forwarded, x-forwarded-host"


class IdentityTests:
    """The header that tells who the client is."""

    @pytest.mark.parametrize(
        ("peer", "scheme", "mutual_tls", "identity"),
        [
            (PROXY, b"https", True, "CN=alice"),
            (PROXY, b"http", True, None),
            (PROXY, b"https", False, None),
            (PROXY, b"http", False, None),
            (STRANGER, b"https", True, None),
            ("", b"https", True, None),
        ],
    )
    def test_who_is_believed(self, peer: str, scheme: bytes, mutual_tls: bool, identity: str | None) -> None:
        """Only a trusted proxy that has shown a certificate; else the header is removed."""
        behind = Behind(evolve(X_FORWARDED, identity=IDENTITY), mutual_tls=mutual_tls)
        request = behind.see(peer, scheme)
        assert request.via is not None
        assert request.via.identity == identity
        assert (b"x-client-identity" in request.headers) is (identity is not None)

    def test_both_kinds_of_connection(self) -> None:
        """The same head in the clear gives no identity, whatever it gave over TLS."""
        behind = Behind(evolve(X_FORWARDED, identity=IDENTITY), mutual_tls=True)
        facts = HeadCacheEntry()
        for scheme, identity in ((b"https", "CN=alice"), (b"http", None), (b"https", "CN=alice")):
            request = Request(b"GET", b"/echo", b"", ALL, scheme=scheme, peer=PROXY, body=b"", facts=facts)
            via = behind.answer(request).via
            assert via is not None
            assert via.identity == identity

    def test_off(self) -> None:
        """Without the mode the header is one like any other."""
        request = Behind().see()
        assert request.via == Via(PROXY, True, None)
        assert request.headers[b"x-client-identity"] == b"CN=alice"

    @pytest.mark.parametrize(("value", "identity"), [(b"", None), (b"CN=J\xc3\xb6rg", "CN=Jörg"), (b"\xff", "\ufffd")])
    def test_values(self, value: bytes, identity: str | None) -> None:
        """An identity is text; an empty header names nobody."""
        behind = Behind(evolve(X_FORWARDED, identity=IDENTITY), mutual_tls=True)
        via = behind.see(scheme=b"https", x_client_identity=value).via
        assert via is not None
        assert via.identity == identity


class FieldsTests:
    """What the log says of requests through proxies."""

    def describe(self, request: Request) -> dict[str, object]:
        fields = RequestFields(b"/v1/stream/", "memory")
        described = fields.describe(request, None, "request", None, _Speaker())
        return {
            name: described[name] for name in described if name.startswith(("ds.proxy", "client", "server", "user."))
        }

    def test_through_a_proxy(self) -> None:
        """The client's address, the proxy's, that it was believed, and who the client is."""
        behind = Behind(evolve(X_FORWARDED, identity=IDENTITY), mutual_tls=True)
        assert self.describe(behind.see(scheme=b"https")) == {
            "client.address": CLIENT,
            "ds.proxy.peer_ip": PROXY,
            "ds.proxy.trusted": True,
            "server.address": "streams.example",
            "user.id": "CN=alice",
        }

    def test_past_the_proxies(self) -> None:
        """A peer that isn't trusted is the client."""
        assert self.describe(Behind().see(STRANGER)) == {
            "client.address": STRANGER,
            "ds.proxy.peer_ip": STRANGER,
            "ds.proxy.trusted": False,
            "server.address": "inner",
        }

    def test_unix_socket(self) -> None:
        """A UNIX socket has no address."""
        fields = self.describe(Behind(evolve(X_FORWARDED, trusted_proxies=("unix",))).see(""))
        assert fields["ds.proxy.trusted"] is True
        assert "ds.proxy.peer_ip" not in fields

    def test_without_proxies(self) -> None:
        """Where none are expected there are no such fields."""
        assert self.describe(Request(b"GET", b"/", b"", {}, peer=CLIENT, body=b"")) == {"client.address": CLIENT}


class _Speaker:
    http_version = "1.1"
    peer = ""


LINES = (
    (b"Host", b"inner"),
    (b"X-Forwarded-For", b"198.51.100.66, 203.0.113.7"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"streams.example"),
)
HEAD = b"".join(b"%b: %b\r\n" % line for line in LINES)

CONFIG = Config(proxy=X_FORWARDED)


def over_http1(config: Config, peer: str) -> bytes:
    """Location by our own channel."""
    site = dstreams.build_site(config=config, reactor=Clock())
    channel = site.factory.buildProtocol(None)
    assert isinstance(channel, HttpChannel)
    transport = FakeTransport()
    transport.peerAddr = _address(peer)
    channel.makeConnection(transport)
    channel.dataReceived(b"PUT /v1/stream/%E6%97%A5 HTTP/1.1\r\n" + HEAD + b"\r\n")
    return _location(transport.value())


def over_http2(config: Config, peer: str) -> bytes:
    """Location by HTTP/2."""
    site = dstreams.build_site(config=config, reactor=Clock())
    client = Client(factory=site._site.http2)
    client.server._peer = peer
    fields = [(name.lower(), value) for name, value in LINES if name != b"Host"]
    pseudo = [
        (b":method", b"PUT"),
        (b":scheme", b"https"),
        (b":authority", b"inner"),
        (b":path", b"/v1/stream/%E6%97%A5"),
    ]
    return client.reply(client.begin_raw([*pseudo, *fields])).headers[b"location"]


def mounted(config: Config, peer: str) -> bytes:
    """Location by the resource in somebody else's site."""
    resource = dstreams.build_resource(config=config, reactor=Clock())
    transport = StringTransport(peerAddress=_address(peer))
    protocol = Site(resource, reactor=Clock()).buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"PUT /v1/stream/%E6%97%A5 HTTP/1.1\r\n" + HEAD + b"\r\n")
    return _location(transport.value())


def _address(peer: str) -> Any:
    return IPv4Address("TCP", peer, 4711) if peer else UNIXAddress(None)


def _location(answer: bytes) -> bytes:
    lines = dict(line.split(b": ", 1) for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
    return lines[b"Location"]


@pytest.mark.parametrize("transport", [over_http1, over_http2, mounted])
class LocationTests:
    """The URL of a new stream, whatever carries the request."""

    def test_trusted(self, transport: Any) -> None:
        """It is the one that the client can use, percent-encoded."""
        assert transport(CONFIG, PROXY) == b"https://streams.example/v1/stream/%E6%97%A5"

    def test_untrusted(self, transport: Any) -> None:
        """A stranger can't choose it."""
        direct = b"https" if transport is over_http2 else b"http"
        assert transport(CONFIG, STRANGER) == direct + b"://inner/v1/stream/%E6%97%A5"

    def test_disabled(self, transport: Any) -> None:
        """Nor can anybody where no proxies are expected."""
        direct = b"https" if transport is over_http2 else b"http"
        assert transport(Config(), PROXY) == direct + b"://inner/v1/stream/%E6%97%A5"

    def test_unix_socket(self, transport: Any) -> None:
        """Through a UNIX socket it is the proxy's if the socket is trusted."""
        config = Config(proxy=evolve(X_FORWARDED, trusted_proxies=("unix",)))
        assert transport(config, "") == b"https://streams.example/v1/stream/%E6%97%A5"
        assert transport(CONFIG, "").endswith(b"://inner/v1/stream/%E6%97%A5")


class EmbeddedIdentityTests:
    """Identity in somebody else's process."""

    def test_mode_of_the_transport(self) -> None:
        """Only a configuration that says that clients show certificates has identities."""
        for mode in ("http", "tls", "mtls"):
            proxy = evolve(X_FORWARDED, identity=IDENTITY)
            config = Config(proxy=proxy, transport=Transport(mode=mode))
            resource = dstreams.build_resource(config=config, reactor=Clock())
            application: Any = resource._exchange.application
            assert application._mutual_tls is (mode == "mtls")
