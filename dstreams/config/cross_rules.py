"""Rules that involve more than one configuration key."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from dstreams.config.endpoints import collide, on_loopback, place_of, tcp_places
from dstreams.config.profiles import DeploymentProfile
from dstreams.config.schema import ALPN_PROTOCOLS, Config


@frozen
class Finding:
    """A key whose value conflicts with another key's.

    :param path: the key to report.
    :param why: what is wrong and how to fix it; ``{other}`` is replaced by the other key with its value and origin.
    :param other: the other key, if there is one.
    :param index: the index of the offending item, if the key is a list and only one item is wrong.
    """

    path: str
    why: str
    other: str | None = None
    index: int | None = None


Rule = Callable[[Config, DeploymentProfile], Iterator[Finding]]
"""A check of the whole configuration. Each value already has its key's type, but may be invalid by itself."""


def _tls_files(config: Config, _: DeploymentProfile) -> Iterator[Finding]:
    """Require the TLS files that the transport mode needs, and reject those that it does not use."""
    transport = config.transport
    needed = {"http": 0, "tls": 2, "mtls": 3}[transport.mode]
    use = '"tls" or "mtls"' if transport.mode == "http" else '"mtls"'
    for index, name in enumerate(("cert_path", "key_path", "client_ca_path")):
        given = getattr(transport.tls, name) is not None
        path = f"transport.tls.{name}"
        if not given and index < needed:
            yield Finding(path, "is required with {other}; give the path of a PEM file", "transport.mode")
        elif given and index >= needed:
            why = f"is not used with {{other}}; set transport.mode = {use}, or remove this key"
            yield Finding(path, why, "transport.mode")


def _http2_needs_tls(config: Config, _: DeploymentProfile) -> Iterator[Finding]:
    if config.transport.mode == "http" and "http2" in config.transport.http.versions:
        why = 'has http2, which needs TLS, with {other}; set transport.mode = "tls" or "mtls", or remove http2'
        yield Finding("transport.http.versions", why, "transport.mode")


def _tls_versions(config: Config, _: DeploymentProfile) -> Iterator[Finding]:
    tls = config.transport.tls
    if tls.min_version > tls.max_version:
        yield Finding("transport.tls.min_version", "is above {other}; lower it", "transport.tls.max_version")


def _alpn(config: Config, _: DeploymentProfile) -> Iterator[Finding]:
    """Require that ALPN offers exactly the HTTP versions that the server speaks."""
    versions, offered = config.transport.http.versions, config.transport.tls.alpn_protocols
    if not versions or not set(versions) <= set(ALPN_PROTOCOLS):
        return
    for version, protocol in ALPN_PROTOCOLS.items():
        why = None
        if version in versions and protocol not in offered:
            why = f"lacks {protocol}, which belongs to {{other}}; add it, or remove this key"
        elif protocol in offered and version not in versions:
            why = f"has {protocol} without {version} in {{other}}; add {version} there, or remove {protocol} here"
        if why is not None:
            yield Finding("transport.tls.alpn_protocols", why, "transport.http.versions")


def _proxy(config: Config, _: DeploymentProfile) -> Iterator[Finding]:
    proxy = config.proxy
    if proxy.enabled:
        if proxy.forwarded_headers == "none":
            why = "must be x-forwarded or forwarded with {other}; choose the one that your proxy sends"
            yield Finding("proxy.forwarded_headers", why, "proxy.enabled")
        if not proxy.trusted_proxies:
            why = "must not be empty with {other}; list the addresses or networks of your proxies"
            yield Finding("proxy.trusted_proxies", why, "proxy.enabled")
        return
    used = {
        "proxy.forwarded_headers": proxy.forwarded_headers != "none",
        "proxy.trusted_proxies": bool(proxy.trusted_proxies),
        "proxy.identity.mode": proxy.identity.mode != "none",
        "proxy.identity.header_name": proxy.identity.header_name is not None,
    }
    for path, is_used in used.items():
        if is_used:
            why = "is not used with {other}; set proxy.enabled = true, or remove this key"
            yield Finding(path, why, "proxy.enabled")


def _identity(config: Config, _: DeploymentProfile) -> Iterator[Finding]:
    identity = config.proxy.identity
    if not config.proxy.enabled:
        return
    if identity.mode == "header":
        if config.transport.mode != "mtls":
            why = 'needs a proxy that presents a client certificate, but {other}; set that to "mtls"'
            yield Finding("proxy.identity.mode", why, "transport.mode")
        if identity.header_name is None:
            why = "is required with {other}; name the header that your proxy sets"
            yield Finding("proxy.identity.header_name", why, "proxy.identity.mode")
    elif identity.header_name is not None:
        why = 'is not used with {other}; set that to "header", or remove this key'
        yield Finding("proxy.identity.header_name", why, "proxy.identity.mode")


def _listeners(config: Config, _: DeploymentProfile) -> Iterator[Finding]:
    """Reject listeners that would bind the same port."""
    server, admin = config.server, config.admin
    places = [place_of(endpoint) for endpoint in server.endpoints]
    for index, place in enumerate(places):
        for earlier, other in enumerate(places[:index]):
            if place is not None and other is not None and collide(place, other):
                why = f"uses port {place[1]}, like item [{earlier}]; remove one, or bind different interfaces"
                yield Finding("server.endpoints", why, index=index)
                break
    if admin.endpoint is None:
        return
    own = place_of(on_loopback(admin.endpoint))
    taken = tcp_places(server.bind_address, server.endpoints)
    if admin.endpoint in server.endpoints or (own is not None and any(collide(own, place) for place in taken)):
        why = "conflicts with the listener for clients: {other}; choose another address or port"
        yield Finding("admin.endpoint", why, "server.endpoints" if server.endpoints else "server.bind_address")


def _credentials(config: Config, _: DeploymentProfile) -> Iterator[Finding]:
    """Browsers refuse credentials for ``*``; and ``null`` is the origin of a sandboxed frame of any site."""
    if config.http.cors_credentials:
        for origin, meaning in {"*": "all origins", "null": "null, which any site can be"}.items():
            if origin in config.http.origins:
                why = f"isn't allowed for {meaning}: {{other}}; list the origins that may send credentials"
                yield Finding("http.cors_credentials", why, "http.cors_origins")


def _production(config: Config, profile: DeploymentProfile) -> Iterator[Finding]:
    http = config.http
    if profile.production and http.origins == ("*",) and not http.allow_wildcard_cors:
        why = f"is not allowed in the profile {profile}; list the origins, or set http.allow_wildcard_cors = true"
        yield Finding("http.cors_origins", why)


CROSS_RULES: tuple[Rule, ...] = (
    _tls_files,
    _http2_needs_tls,
    _tls_versions,
    _alpn,
    _proxy,
    _identity,
    _listeners,
    _credentials,
    _production,
)
"""All rules, in the order in which their findings are reported."""
