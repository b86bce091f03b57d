"""How proxies write whom they got a request from (RFC 7239 section 6)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

_WITH_PORT = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_OBFUSCATED = re.compile(r"(?P<name>_[A-Za-z0-9._-]+)(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")

_LONGEST = 256
"""No node's text is longer; the rest isn't worth looking at."""


def parse_node(raw: bytes) -> str | None:
    """Who a node is: an IP address without brackets and port, or an obfuscated identifier.

    ``203.0.113.7``, ``203.0.113.7:4711``, ``2001:db8::1``, ``[2001:db8::1]:4711`` and ``_hidden``. An IPv4 address in
    the form of an IPv6 one becomes the IPv4 one.

    :return: ``None`` for ``unknown``, and for what is no node.
    """
    if len(raw) > _LONGEST or not raw.isascii() or b"%" in raw:  # a zone means something on one machine only
        return None
    text = raw.decode("ascii")
    obfuscated = _OBFUSCATED.fullmatch(text)
    if obfuscated is not None:
        return obfuscated["name"]
    with_port = _WITH_PORT.fullmatch(text)
    address = parse_address(text if with_port is None else with_port["six"] or with_port["four"] or "")
    return None if address is None else str(address)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address; IPv4 in the form of IPv6 (``::ffff:10.0.0.1``) as IPv4. ``None`` for anything else."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address
