"""Addresses, host names and networks, as written in the configuration and sent in a ``Host`` header."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from attrs import frozen

_FORM = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[^:\[\]]*)):(?P<port>[0-9]{1,5})", re.ASCII)

_REMEDY = "must be an IP address and a port, such as 127.0.0.1:4437 or [::1]:4437"


@frozen
class BindAddress:
    """An IP address and a port.

    :param host: an IP address without brackets, never a name, because a name can stand for several addresses.
    :param port: 0 to let the operating system choose a free port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """Return the form that :func:`parse_bind_address` reads; it is also valid as the authority of a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind_address(text: str) -> BindAddress:
    """Parse ``1.2.3.4:80`` or ``[::1]:80``.

    :raise ValueError: if the text has another form; the message says what to write.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(_REMEDY)
    six, four, port = match["six"], match["four"], int(match["port"])
    try:
        host = str(IPv4Address(four)) if six is None else str(IPv6Address(six))
    except ValueError:
        raise ValueError(f"{_REMEDY}; host names are not resolved") from None
    if port > 65_535:
        raise ValueError("must have a port of at most 65535")
    return BindAddress(host, port)


_HOST_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)

_HOST_REMEDY = "must be a host name or an IP address without a port, such as metrics.example.org or 10.1.2.3"


def parse_host(text: str) -> str:
    """Parse a host name or an IP address.

    :return: the normalized form used for comparison: names in lower case and without a trailing dot, IPv6 addresses
        without brackets.
    :raise ValueError: if the text is neither; the message says what to write.
    """
    if "%" in text:  # an IPv6 zone has a meaning on one machine only
        raise ValueError(_HOST_REMEDY)
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise ValueError(_HOST_REMEDY) from None
        return text.rstrip(".").lower()


def host_of(header: str) -> str | None:
    """Return the host in a ``Host`` header value, normalized by :func:`parse_host`, or ``None`` if there is none."""
    host, colon, port = header.rpartition(":")
    if not colon or port.endswith("]"):
        host = header
    try:
        return parse_host(host)
    except ValueError:
        return None


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
        raise ValueError(_NETWORK_REMEDY)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_NETWORK_REMEDY) from None
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
        raise ValueError(f"{_NETWORK_REMEDY}, or {UNIX} for UNIX sockets") from None


UNIX: Final = "unix"

_NETWORK_REMEDY = "must be an IP address or a network, such as 10.1.2.3, 10.0.0.0/8, ::1 or fd00::/8"

_MAPPED = IPv6Network("::ffff:0:0/96")


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        four = network.network_address.ipv4_mapped
        assert four is not None
        return IPv4Network((four, network.prefixlen - 96))
    return network
