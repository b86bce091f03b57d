"""Host names, as listed in the configuration and as sent in a ``Host`` header."""

from __future__ import annotations

import re
from ipaddress import ip_address

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)

_REMEDY = "must be a host name or an IP address without a port, such as metrics.example.org or 10.1.2.3"


def parse_host(text: str) -> str:
    """Parse a host name or an IP address.

    :return: the normalized form used for comparison: names in lower case and without a trailing dot, IPv6 addresses
        without brackets.
    :raise ValueError: if the text is neither; the message says what to write.
    """
    if "%" in text:  # an IPv6 zone has a meaning on one machine only
        raise ValueError(_REMEDY)
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError:
        if not _NAME.fullmatch(text):
            raise ValueError(_REMEDY) from None
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
