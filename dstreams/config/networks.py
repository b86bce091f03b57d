"""IP addresses and networks, as written in the configuration."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

Network = IPv4Network | IPv6Network


def parse_network(text: str) -> Network:
    """Parse ``10.0.0.0/8``, ``10.1.2.3``, ``fd00::/8`` or ``::1``; an address is a network of one member.

    The bits below the prefix need not be zero. An IPv4 network written as IPv6 (``::ffff:10.0.0.0/104``) becomes
    the IPv4 network, because its members are compared as IPv4 addresses.

    :raise ValueError: if the text has another form; the message says what to write.
    """
    # ipaddress would also accept a netmask, and an IPv6 zone, which has a meaning on one machine only.
    address, slash, prefix = text.partition("/")
    if "%" in address or (slash and not (prefix.isascii() and prefix.isdigit())):
        raise ValueError(_REMEDY)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_REMEDY) from None
    return _unmapped(network)


def parse_trusted(text: str) -> Network | None:
    """Parse an item of ``proxy.trusted_proxies``: a network, or ``unix`` for all clients of UNIX sockets.

    :return: the network; ``None`` for ``unix``.
    :raise ValueError: if the text has another form; the message says what to write.
    """
    if text == UNIX:
        return None
    try:
        return parse_network(text)
    except ValueError:
        raise ValueError(f"{_REMEDY}, or {UNIX} for UNIX sockets") from None


UNIX: Final = "unix"

_REMEDY = "must be an IP address or a network, such as 10.1.2.3, 10.0.0.0/8, ::1 or fd00::/8"

_MAPPED = IPv6Network("::ffff:0:0/96")


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        four = network.network_address.ipv4_mapped
        assert four is not None
        return IPv4Network((four, network.prefixlen - 96))
    return network
