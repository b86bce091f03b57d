"""Checks of Twisted server endpoint strings that need no reactor."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from attrs import frozen

from dstreams.config.addresses import BindAddress, parse_bind_address

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)

_BUILT_IN = ("ssl", "tcp", "unix")
"""Endpoint types that Twisted knows without a plugin. Unlike plugins' types, they must be in lower case."""

_LOOPBACK_SIX = r"\:\:1"
"""The IPv6 loopback address, escaped for an endpoint string."""

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)


@frozen
class Endpoint:
    """A parsed endpoint string.

    :param type: the part before the first colon, such as ``tcp``.
    :param arguments: the positional arguments, in order.
    :param named: the arguments of the form ``name=value``.
    """

    type: str
    arguments: tuple[str, ...]
    named: dict[str, str]

    @property
    def where(self) -> tuple[str, int] | None:
        """The interface and port of a TCP endpoint; ``None`` for other types. The interface may be empty."""
        text = self.argument(0, "port")
        if self.type.lower() not in ("tcp", "tcp6", "ssl", "dstls") or not _PORT.fullmatch(text):
            return None
        return self.argument(1, "interface"), int(text)

    def argument(self, index: int, name: str) -> str:
        """Return an argument given by position or by name, or an empty string when it is missing."""
        return self.arguments[index] if len(self.arguments) > index else self.named.get(name, "")


def split_endpoint(text: str) -> Endpoint:
    """Parse an endpoint string as Twisted does: colons separate parts, a backslash escapes the next character.

    Twisted has a function for this, but it is private.
    """
    parts = [[""]]
    escaped = False
    for character in text:
        if escaped or character not in ":=\\":
            parts[-1][-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ":":
            parts.append([""])
        elif len(parts[-1]) == 1:
            parts[-1].append("")
        else:
            parts[-1][-1] += character
    type_, *arguments = [part[0] for part in parts if len(part) == 1] or [""]
    return Endpoint(type_, tuple(arguments), dict(part for part in parts if len(part) == 2))


def check_endpoint(text: str) -> str | None:
    """Return why a server cannot listen on an endpoint, or ``None`` when no problem is found."""
    if not text.strip():
        return "is blank; write an endpoint such as tcp:4437"
    if ":" not in text or _is_address(text):
        return _as_endpoint(text)
    if (len(text) - len(text.rstrip("\\"))) % 2:
        return "must not end in a backslash"
    endpoint = split_endpoint(text)
    known = known_types()
    if endpoint.type not in known and (endpoint.type.lower() in _BUILT_IN or endpoint.type.lower() not in known):
        return f"has an unknown type; the known types are {', '.join(known)}"
    if endpoint.type.lower() in ("tcp", "tcp6", "ssl"):
        port = endpoint.argument(0, "port")
        if not _PORT.fullmatch(port) or int(port) > 65_535:
            return f"must have a port from 0 to 65535, as in {endpoint.type}:4437"
    if endpoint.type == "unix" and not endpoint.argument(0, "address"):
        return "must have a path, as in unix:/run/durable-streams/http.sock"
    return None


def on_loopback(text: str) -> str:
    """Return the endpoint string, bound to the loopback interface if it is TCP and names no interface."""
    endpoint = split_endpoint(text)
    if endpoint.where is None or endpoint.argument(1, "interface"):
        return text
    return f"{text}:interface={_LOOPBACK_SIX if endpoint.type.lower() == 'tcp6' else '127.0.0.1'}"


def is_loopback(interface: str) -> bool:
    """Whether only this machine can connect to a listener on this interface. Names are not resolved."""
    try:
        address = ip_address(interface)
    except ValueError:
        return interface == "localhost"
    # Python before 3.13 does not recognize ::ffff:127.0.0.1, the form that a dual-stack socket uses for IPv4.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def known_types() -> list[str]:
    """Return the endpoint types that Twisted and its plugins provide."""
    # Imported here because few configurations have endpoints, and the search for plugins takes time.
    from twisted.internet.interfaces import IStreamServerEndpointStringParser
    from twisted.plugin import getPlugins

    return sorted({*_BUILT_IN, *(parser.prefix for parser in getPlugins(IStreamServerEndpointStringParser))})


def collide(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two listeners, each given as interface and port, would conflict."""
    if one[1] != other[1] or one[1] == 0:
        return False
    return one[0] == other[0] or one[0] in _EVERYWHERE or other[0] in _EVERYWHERE


def tcp_places(bind_address: str, endpoints: Iterable[str]) -> list[tuple[str, int]]:
    """Return the interfaces and ports that the server listens on, as far as the configuration says.

    :param endpoints: if there are any, the address is not used.
    """
    texts = list(endpoints) or [bind_address]
    return [place for place in map(place_of, texts) if place is not None]


def place_of(text: str) -> tuple[str, int] | None:
    """Return the interface and port of an address or an endpoint string, or ``None`` when it has none."""
    try:
        address = parse_bind_address(text)
    except ValueError:
        return split_endpoint(text).where
    return address.host, address.port


def _is_address(text: str) -> bool:
    try:
        parse_bind_address(text)
    except ValueError:
        return False
    return True


def _as_endpoint(text: str) -> str:
    """Return the remedy for an address or a port given in place of an endpoint."""
    if _PORT.fullmatch(text):
        return f"isn't an endpoint; write tcp:{text}"
    try:
        address = parse_bind_address(text)
    except ValueError:
        return "isn't an endpoint such as tcp:4437 or unix:/run/durable-streams/http.sock"
    return f"isn't an endpoint; write {_endpoint_of(address)}"


def _endpoint_of(address: BindAddress) -> str:
    host = address.host.replace(":", "\\:")
    return f"tcp:{address.port}:interface={host}"
