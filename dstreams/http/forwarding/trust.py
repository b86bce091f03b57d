"""Which peers are trusted proxies."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from attrs import define, field

from dstreams.config.networks import parse_trusted
from dstreams.http.forwarding.nodes import parse_address

_MOST_KNOWN = 4096
"""So many verdicts are remembered."""


@define(eq=False)
class TrustedProxies:
    """The peers that are believed.

    :param networks: members of these.
    :param unix: whether peers without an IP address, those of UNIX sockets, are too.
    """

    _networks: tuple[IPv4Network | IPv6Network, ...]
    _unix: bool = False
    _known: dict[str, bool] = field(factory=dict, init=False)

    @classmethod
    def parse(cls, listed: Iterable[str]) -> TrustedProxies:
        """As the operator lists them in ``proxy.trusted_proxies``.

        :raise ValueError: with the remedy.
        """
        parsed = [parse_trusted(text) for text in listed]
        return cls(tuple(network for network in parsed if network is not None), None in parsed)

    def trusts(self, peer: str) -> bool:
        """Whether a peer is believed: 0.05 us for one that was asked about before.

        IPv4 networks also have the IPv4 addresses that come in the form of IPv6; otherwise the families never match.

        :param peer: an IP address in text form, empty for a UNIX socket. Any other text isn't trusted.
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
