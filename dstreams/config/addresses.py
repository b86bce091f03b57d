"""The address that a server listens on, as an operator writes it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen

_FORM = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[^:\[\]]*)):(?P<port>[0-9]{1,5})", re.ASCII)

_REMEDY = "must be an IP address and a port, such as 127.0.0.1:4437 or [::1]:4437"


@frozen
class BindAddress:
    """An IP address and a port.

    :param host: an IP address without brackets; a name could mean several.
    :param port: 0 lets the system choose.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """The form that :func:`parse_bind_address` reads, which is also that of a URL's authority."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind_address(text: str) -> BindAddress:
    """Read ``1.2.3.4:80`` or ``[::1]:80``.

    :raise ValueError: with the remedy.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(_REMEDY)
    six, four, port = match["six"], match["four"], int(match["port"])
    try:
        host = str(IPv4Address(four)) if six is None else str(IPv6Address(six))
    except ValueError:
        raise ValueError(f"{_REMEDY}; host names aren't looked up") from None
    if port > 65_535:
        raise ValueError("must have a port of at most 65535")
    return BindAddress(host, port)
