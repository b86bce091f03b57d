"""From configuration keys to endpoints, and from bound ports to what people are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from dstreams.config import BindAddress, Config
from dstreams.net.endpoint import TlsServerEndpoint
from dstreams.runtime.startup import StartupError
from dstreams.services.listeners import describe_listeners, place, reachable, resolve_listeners
from tests.support.certificates import Authority, Identity


def config_of(*endpoints: str, bind: str = "127.0.0.1:4437", mode: str = "http", **tls: Any) -> Config:
    """A configuration with these keys of ``server`` and ``transport``."""
    config = Config()
    transport = config.transport
    return evolve(
        config,
        server=evolve(config.server, bind_address=bind, endpoints=endpoints),
        transport=evolve(transport, mode=mode, tls=evolve(transport.tls, **tls)),
    )


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    """A server's certificate."""
    return Authority(tmp_path).issue("server")


class DescribeListenersTests:
    """Addresses and endpoint strings become endpoint strings."""

    @pytest.mark.parametrize(
        ("bind", "description"),
        [
            ("127.0.0.1:4437", "tcp:4437:interface=127.0.0.1:backlog=1024"),
            ("[::1]:0", r"tcp:0:interface=\:\:1:backlog=1024"),
        ],
    )
    def test_address(self, bind: str, description: str) -> None:
        """An address becomes an endpoint string; the colons of IPv6 are quoted."""
        assert describe_listeners(config_of(bind=bind)) == [(bind, description)]

    def test_endpoints(self) -> None:
        """Endpoints take the place of the address, as they are."""
        given = ("tcp:4437", "unix:/run/ds.sock", "systemd:domain=INET:index=0")
        assert describe_listeners(config_of(*given)) == [(each, each) for each in given]

    def test_tls(self) -> None:
        """With TLS the address has an endpoint string with all that TLS needs."""
        config = config_of(mode="mtls", cert_path="/c:1.pem", key_path="k.pem", client_ca_path="ca.pem")
        ((name, description),) = describe_listeners(config)
        assert name == "127.0.0.1:4437"
        assert description == (
            r"dstls:4437:interface=127.0.0.1:backlog=1024:cert=/c\:1.pem:key=k.pem:clientCA=ca.pem:min=1.2:max=1.3"
            ":alpn=http/1.1:handshakeTimeout=10"
        )

    def test_tls_endpoints(self) -> None:
        """With TLS, nothing is served in the clear: endpoints are wrapped, whatever they are."""
        config = config_of("tcp:443", "unix:/s", mode="tls", cert_path="c", key_path="k", min_version="1.3")
        rest = "cert=c:key=k:min=1.3:max=1.3:alpn=http/1.1:handshakeTimeout=10"
        assert describe_listeners(config) == [
            ("tcp:443", rf"dstls:endpoint=tcp\:443:{rest}"),
            ("unix:/s", rf"dstls:endpoint=unix\:/s:{rest}"),
        ]

    @pytest.mark.parametrize("endpoint", ["ssl:443:privateKey=k", "dstls:443:cert=c:key=k", "SSL:443"])
    def test_two_kinds_of_tls(self, endpoint: str) -> None:
        """An endpoint that brings its own TLS, perhaps a weaker one, isn't taken where the mode says TLS."""
        with pytest.raises(StartupError, match=r"^\[resolve_transport\] .*brings its own TLS.*transport.mode = http"):
            describe_listeners(config_of(endpoint, mode="mtls", cert_path="c", key_path="k", client_ca_path="a"))


class ResolveListenersTests:
    """Endpoint strings become endpoints."""

    def test_plain(self) -> None:
        """An endpoint without TLS is Twisted's."""
        (listener,) = resolve_listeners(config_of("tcp:80"), MemoryReactorClock())
        assert (listener.name, listener.tls, listener.is_secure) == ("tcp:80", None, False)

    def test_tls(self, identity: Identity) -> None:
        """An endpoint with TLS is ours, and its context is made already."""
        config = config_of(mode="tls", cert_path=str(identity.certificate), key_path=str(identity.key))
        (listener,) = resolve_listeners(config, MemoryReactorClock())
        assert isinstance(listener.endpoint, TlsServerEndpoint)
        assert listener.tls is not None
        assert listener.is_secure

    def test_tls_by_its_string(self, identity: Identity) -> None:
        """In mode http an endpoint may speak TLS by its own string."""
        string = f"dstls:443:cert={identity.certificate}:key={identity.key}"
        (listener,) = resolve_listeners(config_of(string), MemoryReactorClock())
        assert listener.tls is not None

    @pytest.mark.parametrize(
        ("endpoint", "why"),
        [
            ("carrier-pigeon:1", "Unknown endpoint type"),
            ("tcp", "not a usable endpoint"),
            ("tcp:http", "not a usable endpoint"),
            ("ssl:0:privateKey=/none/server.pem", "not a usable endpoint: .*No such file"),
            ("tcp:80:nonsense=1", "nonsense"),
            ("systemd:domain=INET:index=7", "no such socket was inherited"),
            ("systemd:domain=INET:name=web", "no such socket was inherited"),
            ("systemd:domain=PIGEON:index=0", "no such socket was inherited"),
            ("dstls:443", "cert is missing"),
        ],
    )
    def test_nonsense(self, endpoint: str, why: str) -> None:
        """A string that is no endpoint is named, with what is wrong with it."""
        with pytest.raises(StartupError, match=why) as caught:
            resolve_listeners(config_of(endpoint), MemoryReactorClock())
        assert str(caught.value).startswith(f"[resolve_transport] {endpoint!r} ")
        assert "\n" not in str(caught.value)

    def test_files(self, tmp_path: Path, identity: Identity) -> None:
        """Files that aren't there fail in the phase check_tls_files, useless ones in build_tls_context."""
        missing = config_of(mode="tls", cert_path=str(tmp_path / "none"), key_path=str(identity.key))
        with pytest.raises(StartupError, match=r"^\[check_tls_files\] TLS file not found: .*none"):
            resolve_listeners(missing, MemoryReactorClock())
        useless = config_of(mode="tls", cert_path=str(identity.key), key_path=str(identity.key))
        with pytest.raises(StartupError, match=r"^\[build_tls_context\] failed to build TLS context: no certificates"):
            resolve_listeners(useless, MemoryReactorClock())


class ReloadTests:
    """A listener reads its certificates anew, or keeps those it has."""

    def reload(self, identity: Identity) -> tuple[bool, list[tuple[LogLevel, str]]]:
        """Reload after the files have changed: whether new connections have a new context, and what is logged."""
        config = config_of(mode="tls", cert_path=str(identity.certificate), key_path=str(identity.key))
        (listener,) = resolve_listeners(config, MemoryReactorClock())
        assert listener.tls is not None
        before = listener.tls.serverConnectionForTLS(None).get_context()  # type: ignore[arg-type]
        self.change()
        with capturedLogs() as events:
            listener.reload()
        after = listener.tls.serverConnectionForTLS(None).get_context()  # type: ignore[arg-type]
        return after is not before, [(event["log_level"], formatEvent(event)) for event in events]

    def change(self) -> None:
        """What happens to the files."""

    def test_good(self, identity: Identity) -> None:
        """New connections have what the files hold now."""
        assert self.reload(identity) == (
            True,
            [(LogLevel.info, "reloaded the TLS certificates for new connections to 127.0.0.1:4437")],
        )

    @pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nrubbish"])
    def test_bad(self, identity: Identity, content: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """With bad files the old certificates stay, and one error line says why."""

        def spoil() -> None:
            identity.certificate.unlink() if content is None else identity.certificate.write_bytes(content)

        monkeypatch.setattr(self, "change", spoil)
        is_new, ((level, line),) = self.reload(identity)
        assert not is_new
        assert level is LogLevel.error
        assert line.startswith("keeping the current TLS certificates of 127.0.0.1:4437: ")
        assert str(identity.certificate) in line

    def test_nothing_to_reload(self) -> None:
        """A listener without TLS has nothing to reload."""
        (listener,) = resolve_listeners(config_of("tcp:80"), MemoryReactorClock())
        with capturedLogs() as events:
            listener.reload()
        assert list(events) == []


class PlaceTests:
    """What people are told about a bound port."""

    @pytest.mark.parametrize(
        ("address", "text", "root", "note"),
        [
            (IPv4Address("TCP", "0.0.0.0", 80), "0.0.0.0:80", "https://127.0.0.1:80", ""),
            (IPv6Address("TCP", "::1", 80), "[::1]:80", "https://[::1]:80", ""),
            (UNIXAddress(b"/run/s"), "unix:/run/s", "https://localhost", " over unix:/run/s"),
            (UNIXAddress(b"\0name"), "unix:@name", "https://localhost", " over unix:@name"),
            (UNIXAddress(None), "unix:", "https://localhost", " over unix:"),
        ],
    )
    def test_places(self, address: IAddress, text: str, root: str, note: str) -> None:
        """Internet addresses are URLs by themselves; local sockets need a client that is told the path."""
        found = place(address, secure=True)
        assert (found.text, found.root, found.note) == (text, root, note)

    def test_plain(self) -> None:
        """Without TLS the scheme is http."""
        assert place(IPv4Address("TCP", "127.0.0.1", 80), secure=False).root == "http://127.0.0.1:80"

    @pytest.mark.parametrize(
        ("host", "client_host"),
        [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1")],
    )
    def test_reachable(self, host: str, client_host: str) -> None:
        """URLs for people name the loopback address where all addresses are bound."""
        assert reachable(BindAddress(host, 1)) == BindAddress(client_host, 1)
