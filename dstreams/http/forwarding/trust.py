"""Decides which peers are trusted proxies."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from attrs import define, field

from dstreams.config.addresses import parse_trusted
from dstreams.http.forwarding.headers import parse_address

_MOST_KNOWN = 4096
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
            if len(self._known) >= _MOST_KNOWN:
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
