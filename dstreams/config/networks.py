"""IP addresses and networks, as an operator lists them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

Network = IPv4Network | IPv6Network


def parse_network(text: str) -> Network:
    """Read ``10.0.0.0/8``, ``10.1.2.3``, ``fd00::/8`` or ``::1``; an address is the network that holds only it.

    The bits below the prefix needn't be zero. An IPv4 network written as an IPv6 one (``::ffff:10.0.0.0/104``) is
    the IPv4 one, because that is how its members are compared.

    :raise ValueError: with the remedy.
    """
    # ipaddress would also read a netmask, and an IPv6 zone, which means something on one machine only.
    address, slash, prefix = text.partition("/")
    if "%" in address or (slash and not (prefix.isascii() and prefix.isdigit())):
        raise ValueError(_REMEDY)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_REMEDY) from None
    return _unmapped(network)


def parse_trusted(text: str) -> Network | None:
    """Read an item of ``proxy.trusted_proxies``: a network, or ``unix`` for whoever connects to a UNIX socket.

    :return: ``None`` for ``unix``.
    :raise ValueError: with the remedy.
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
