"""What keys must fulfil together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from dstreams.config.endpoints import collide, on_loopback, place_of, tcp_places
from dstreams.config.profiles import DeploymentProfile
from dstreams.config.schema import ALPN_PROTOCOLS, Config
from dstreams.config.settings import Setting


@frozen
class Context:
    """What the rules look at.

    :param config: the configuration; each value is of its key's type, but needn't be right by itself.
    :param settings: the same with origins.
    """

    config: Config
    settings: Mapping[str, Setting]
    profile: DeploymentProfile

    def named(self, path: str) -> str:
        """A key with its value and origin, for a sentence about another key."""
        return self.settings[path].named()


Finding = tuple[str, str]
"""The key that is wrong, and why with the remedy."""


def _tls_files(context: Context) -> Iterator[Finding]:
    """Which of the TLS files must and mustn't be given in each mode."""
    transport = context.config.transport
    needed = {"http": 0, "tls": 2, "mtls": 3}[transport.mode]
    for index, name in enumerate(("cert_path", "key_path", "client_ca_path")):
        given = getattr(transport.tls, name) is not None
        path, mode = f"transport.tls.{name}", context.named("transport.mode")
        if not given and index < needed:
            yield path, f"is needed with {mode}; give the path of a PEM file"
        elif given and needed == 0:
            yield path, f'has no use with {mode}; set transport.mode = "tls" or "mtls", or leave it out'
        elif given and index >= needed:
            yield path, f'has no use with {mode}; set transport.mode = "mtls", or leave it out'


def _http2_needs_tls(context: Context) -> Iterator[Finding]:
    if context.config.transport.mode == "http" and "http2" in context.config.transport.http.versions:
        mode = context.named("transport.mode")
        yield (
            "transport.http.versions",
            f'has http2, which needs TLS, with {mode}; set transport.mode = "tls" or "mtls", or leave http2 out',
        )


def _tls_versions(context: Context) -> Iterator[Finding]:
    tls = context.config.transport.tls
    if tls.min_version > tls.max_version:
        yield "transport.tls.min_version", f"is above {context.named('transport.tls.max_version')}; lower it"


def _alpn(context: Context) -> Iterator[Finding]:
    """The handshake offers what is spoken, and nothing else."""
    versions, offered = context.config.transport.http.versions, context.config.transport.tls.alpn_protocols
    if not versions or not set(versions) <= set(ALPN_PROTOCOLS):
        return
    named = context.named("transport.http.versions")
    for version, protocol in ALPN_PROTOCOLS.items():
        if version in versions and protocol not in offered:
            yield (
                "transport.tls.alpn_protocols",
                f"lacks {protocol}, which goes with {named}; add it, or leave the key out",
            )
        if protocol in offered and version not in versions:
            yield (
                "transport.tls.alpn_protocols",
                f"has {protocol} without {version} in {named}; add that there, or leave {protocol} out",
            )


def _proxy(context: Context) -> Iterator[Finding]:
    proxy = context.config.proxy
    on = context.named("proxy.enabled")
    if proxy.enabled:
        if proxy.forwarded_headers == "none":
            yield "proxy.forwarded_headers", f"must be x-forwarded or forwarded with {on}; say which your proxy sends"
        if not proxy.trusted_proxies:
            yield "proxy.trusted_proxies", f"must not be empty with {on}; list your proxies' addresses or networks"
        return
    used = {
        "proxy.forwarded_headers": proxy.forwarded_headers != "none",
        "proxy.trusted_proxies": bool(proxy.trusted_proxies),
        "proxy.identity.mode": proxy.identity.mode != "none",
        "proxy.identity.header_name": proxy.identity.header_name is not None,
    }
    for path, is_used in used.items():
        if is_used:
            yield path, f"has no use with {on}; set proxy.enabled = true, or leave it out"


def _identity(context: Context) -> Iterator[Finding]:
    proxy = context.config.proxy
    identity = proxy.identity
    if not proxy.enabled:
        return
    named = context.named("proxy.identity.mode")
    if identity.mode == "header":
        if context.config.transport.mode != "mtls":
            mode = context.named("transport.mode")
            yield "proxy.identity.mode", f'needs a proxy that shows a certificate, but {mode}; set that to "mtls"'
        if identity.header_name is None:
            yield "proxy.identity.header_name", f"is needed with {named}; name the header that your proxy sets"
    elif identity.header_name is not None:
        yield "proxy.identity.header_name", f'has no use with {named}; set that to "header", or leave it out'


def _listeners(context: Context) -> Iterator[Finding]:
    """No two listeners may want the same port."""
    server, admin = context.config.server, context.config.admin
    places = tcp_places("", server.endpoints) if server.endpoints else []
    for index, place in enumerate(places):
        if any(collide(place, other) for other in places[:index]):
            yield "server.endpoints", f"has two endpoints for port {place[1]}; leave one out, or name other interfaces"
    if admin.endpoint is None:
        return
    path = "server.endpoints" if server.endpoints else "server.bind_address"
    own = place_of(on_loopback(admin.endpoint))
    if admin.endpoint in server.endpoints or any(
        own is not None and collide(own, other) for other in tcp_places(server.bind_address, server.endpoints)
    ):
        yield "admin.endpoint", f"is where clients are listened for, too: {context.named(path)}; choose another port"


def _production(context: Context) -> Iterator[Finding]:
    http = context.config.http
    if context.profile.production and http.origins == ("*",) and not http.allow_wildcard_cors:
        yield (
            "http.cors_origins",
            f"isn't allowed in the profile {context.profile}; list the origins, or set http.allow_wildcard_cors = true",
        )


CROSS_RULES: tuple[Callable[[Context], Iterator[Finding]], ...] = (
    _tls_files,
    _http2_needs_tls,
    _tls_versions,
    _alpn,
    _proxy,
    _identity,
    _listeners,
    _production,
)
"""The rules, in the order in which their findings are reported."""
