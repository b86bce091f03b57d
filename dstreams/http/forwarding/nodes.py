"""Parses the identifiers by which proxies name the sender of a request (RFC 7239 section 6)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

_WITH_PORT = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_OBFUSCATED = re.compile(r"(?P<name>_[A-Za-z0-9._-]+)(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")

_LONGEST = 256
"""Maximum length of a node's text; longer text is not parsed."""


def parse_node(raw: bytes) -> str | None:
    """Return a node's IP address without brackets and port, or its obfuscated identifier.

    It accepts ``203.0.113.7``, ``203.0.113.7:4711``, ``2001:db8::1``, ``[2001:db8::1]:4711`` and ``_hidden``. An IPv4
    address in IPv6 form is converted to IPv4.

    :return: ``None`` for ``unknown``, and for anything else.
    """
    if len(raw) > _LONGEST or not raw.isascii() or b"%" in raw:  # an IPv6 zone has a meaning on one machine only
        return None
    text = raw.decode("ascii")
    obfuscated = _OBFUSCATED.fullmatch(text)
    if obfuscated is not None:
        return obfuscated["name"]
    with_port = _WITH_PORT.fullmatch(text)
    address = parse_address(text if with_port is None else with_port["six"] or with_port["four"] or "")
    return None if address is None else str(address)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address; IPv4 in IPv6 form (``::ffff:10.0.0.1``) becomes IPv4. Return ``None`` for anything else."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address
