"""An application for servers behind reverse proxies: it restores requests as the clients sent them.

It wraps the application that answers, so that the HTTP/1.1 channel, HTTP/2 and the mounted resource all get the same
behaviour. If no proxies are configured it is not used, and nothing else reads their headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network

from attrs import define, field, frozen
from twisted.logger import Logger

from dstreams.config.addresses import parse_trusted
from dstreams.config.schema import Proxy
from dstreams.http.forwarding.headers import (
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PROTO,
    ForwardedRequest,
    Trusts,
    parse_address,
    read_forwarded,
    read_x_forwarded,
)
from dstreams.http.messages import Application, HeadCacheEntry, Request, Response, Via
from dstreams.runtime.pending import Pending

_MOST_PEERS = 4096
"""Maximum number of cached decisions."""


@define(eq=False)
class TrustedProxies:
    """The peers whose headers are trusted.

    :param networks: the networks of trusted peers.
    :param unix: whether peers without an IP address, which connect through UNIX sockets, are trusted as well.
    """

    _networks: tuple[IPv4Network | IPv6Network, ...]
    _unix: bool = False
    _known: dict[str, bool] = field(factory=dict, init=False)

    @classmethod
    def parse(cls, listed: Iterable[str]) -> TrustedProxies:
        """Parse the items of ``proxy.trusted_proxies``.

        :raise ValueError: if one is invalid; the message says what to write.
        """
        parsed = [parse_trusted(text) for text in listed]
        return cls(tuple(network for network in parsed if network is not None), None in parsed)

    def trusts(self, peer: str) -> bool:
        """Whether a peer is trusted: 0.05 us if the decision is cached.

        IPv4 networks also contain IPv4 addresses in IPv6 form; otherwise the families never match.

        :param peer: an IP address as text, or empty for a UNIX socket. Any other text is not trusted.
        """
        verdict = self._known.get(peer)
        if verdict is None:
            if len(self._known) >= _MOST_PEERS:
                self._known.clear()
            verdict = self._known[peer] = self._decide(peer)
        return verdict

    def _decide(self, peer: str) -> bool:
        if not peer:
            return self._unix
        address = parse_address(peer)
        return address is not None and any(
            address in network for network in self._networks if network.version == address.version
        )


_log = Logger()

WARNING_SECONDS = 60.0
"""Seconds between two warnings about headers from untrusted peers."""

_MOST_KNOWN = 1024
"""Maximum number of cached entries."""

_LONGEST_KNOWN = 1024
"""Header values with more bytes than this in total are not cached."""

_X_FORWARDED = (X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO)

Read = Callable[[Mapping[bytes, bytes], Trusts], ForwardedRequest]


@frozen
class _Family:
    """The headers that belong to one value of ``proxy.forwarded_headers``.

    :param read: reads the headers ``names``.
    :param others: headers that are never read and always removed.
    """

    read: Read
    names: tuple[bytes, ...]
    others: tuple[bytes, ...]


_FAMILIES: Mapping[str, _Family] = {
    "x-forwarded": _Family(read_x_forwarded, _X_FORWARDED, (FORWARDED,)),
    "forwarded": _Family(read_forwarded, (FORWARDED,), _X_FORWARDED),
}


@define(eq=False)
class _Seen:
    """A request head as the client sent it, according to a trusted proxy; cached with the head.

    :param arrived: the scheme of the connection that it arrived on.
    :param client: the client's address, or ``None`` if no proxy named it.
    """

    arrived: bytes
    scheme: bytes
    client: str | None
    identity: str | None
    headers: Mapping[bytes, bytes]
    facts: HeadCacheEntry = field(factory=HeadCacheEntry)


@define(eq=False)
class ForwardingApplication:
    """Replaces what the request of a trusted proxy says by what the client had sent (an ``Application``).

    It sets the request's ``scheme``, ``peer``, ``via`` and the header ``host``. If the peer is not trusted, it removes
    the headers that only proxies may send.

    :param inner: the application that answers.
    :param proxy: the trusted proxies and the headers to read.
    :param mutual_tls: whether every TLS client has presented a certificate; without that there are no identities.
    :param now: a clock in seconds, for the rate of warnings.
    :raise ValueError: if the trusted proxies cannot be parsed.
    """

    _inner: Application
    _proxy: Proxy
    _mutual_tls: bool
    _now: Callable[[], float]
    max_body_bytes: int = field(init=False)
    _trusts: Trusts = field(init=False)
    _family: _Family = field(init=False)
    _identity: bytes | None = field(init=False)
    _proxies_own: frozenset[bytes] = field(init=False)
    """The headers that only trusted proxies may send."""
    _accounts: dict[tuple[bytes, ...], ForwardedRequest] = field(factory=dict, init=False)
    """Parsed headers by their values. Heads differ in other headers, such as a producer's sequence number."""
    _dropped: int = field(default=0, init=False)
    """The number of requests that lost headers since the last warning."""
    _warn_at: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        identity = self._proxy.identity
        self.max_body_bytes = self._inner.max_body_bytes
        self._trusts = TrustedProxies.parse(self._proxy.trusted_proxies).trusts
        self._family = _FAMILIES[self._proxy.forwarded_headers]
        self._identity = None
        if identity.mode == "header" and identity.header_name is not None:
            self._identity = identity.header_name.lower().encode("ascii")
        self._proxies_own = frozenset((*_X_FORWARDED, FORWARDED, *filter(None, [self._identity])))
        self._warn_at = self._now()

    def validate_head(self, request: Request) -> Response | None:
        """See :meth:`Application.validate_head`."""
        self._see(request)
        return self._inner.validate_head(request)

    def respond(self, request: Request) -> Pending[Response]:
        """See :meth:`Application.respond`."""
        self._see(request)
        return self._inner.respond(request)

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        """See :meth:`Application.refuse`."""
        if request is not None:
            self._see(request)
        return self._inner.refuse(request, status, detail)

    def _see(self, request: Request) -> None:
        """Restore the client's request, once: 0.4 us for a cached head, 2.4 for cached proxy headers, otherwise 10."""
        if request.via is not None:
            return
        if not self._trusts(request.peer):
            request.via = Via(request.peer, trusted=False)
            if not self._proxies_own.isdisjoint(request.headers):
                self._drop(request)
            return
        facts = request.facts
        seen: _Seen | None = facts.forwarded
        if seen is None or seen.arrived != request.scheme:
            seen = facts.forwarded = self._read_head(request)
        request.via = Via(request.peer, True, seen.identity)
        request.scheme = seen.scheme
        request.headers = seen.headers
        # Facts cached for the same head from another peer do not apply to this one.
        request.facts = seen.facts
        if seen.client is not None:
            request.peer = seen.client

    def _read_head(self, request: Request) -> _Seen:
        account = self._account(request.headers)
        headers = dict(request.headers)
        for name in self._family.others:
            headers.pop(name, None)
        if account.authority is not None:
            headers[b"host"] = account.authority
        identity = None
        if self._identity is not None:
            value = headers.get(self._identity)
            if not self._mutual_tls or request.scheme != b"https":
                headers.pop(self._identity, None)
            elif value:
                identity = value.decode("utf-8", "replace")
        return _Seen(request.scheme, account.scheme or request.scheme, account.client, identity, headers)

    def _account(self, headers: Mapping[bytes, bytes]) -> ForwardedRequest:
        key = tuple([headers.get(name, b"") for name in self._family.names])
        account = self._accounts.get(key)
        if account is None:
            account = self._family.read(headers, self._trusts)
            if sum(map(len, key)) <= _LONGEST_KNOWN:
                if len(self._accounts) >= _MOST_KNOWN:
                    self._accounts.clear()
                self._accounts[key] = account
        return account

    def _drop(self, request: Request) -> None:
        """Remove headers that an untrusted peer may not send, and log a warning at most once a minute."""
        kept = {name: value for name, value in request.headers.items() if name not in self._proxies_own}
        dropped = sorted(name.decode("ascii") for name in request.headers if name in self._proxies_own)
        request.headers = kept
        self._dropped += 1
        now = self._now()
        if now >= self._warn_at:
            count, self._dropped, self._warn_at = self._dropped, 0, now + WARNING_SECONDS
            _log.warn(
                "removed {headers} from a request of {peer_ip}, which is not in proxy.trusted_proxies"
                " ({count} such requests since the last warning)",
                headers=", ".join(dropped),
                peer_ip=request.peer or "a UNIX socket",
                count=count,
            )
