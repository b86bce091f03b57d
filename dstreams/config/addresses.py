"""IP addresses with a port, as written in the configuration."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

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
