"""Names of hosts, as an operator lists them and as a ``Host`` header has them."""

from __future__ import annotations

import re
from ipaddress import ip_address

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)

_REMEDY = "must be a host's name or IP address, without a port, such as metrics.example.org or 10.1.2.3"


def parse_host(text: str) -> str:
    """Read a name or an IP address.

    :return: the one form in which it is compared: names in lower case and without a dot at the end, IPv6 addresses
        without brackets.
    :raise ValueError: with the remedy.
    """
    if "%" in text:  # an IPv6 zone means something on one machine only
        raise ValueError(_REMEDY)
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError:
        if not _NAME.fullmatch(text):
            raise ValueError(_REMEDY) from None
        return text.rstrip(".").lower()


def host_of(header: str) -> str | None:
    """The host in the value of a ``Host`` header, as :func:`parse_host` gives it; ``None`` when there is none in it."""
    host, colon, port = header.rpartition(":")
    if not colon or port.endswith("]"):
        host = header
    try:
        return parse_host(host)
    except ValueError:
        return None
