"""Twisted's server endpoint strings in the configuration: as much as can be told of them without a reactor."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from attrs import frozen

from dstreams.config.addresses import BindAddress, parse_bind_address

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)

_BUILT_IN = ("ssl", "tcp", "unix")
"""What Twisted knows without a plugin; unlike the others, only in lower case."""

_LOOPBACK_SIX = r"\:\:1"
"""In an endpoint string."""

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)


@frozen
class Endpoint:
    """An endpoint string, taken apart.

    :param type: its first part: ``tcp``.
    :param arguments: the parts without a name, in their order.
    :param named: the others.
    """

    type: str
    arguments: tuple[str, ...]
    named: dict[str, str]

    @property
    def where(self) -> tuple[str, int] | None:
        """The interface and port of a TCP endpoint, ``None`` for every other. The interface may be empty."""
        text = self.argument(0, "port")
        if self.type.lower() not in ("tcp", "tcp6", "ssl", "dstls") or not _PORT.fullmatch(text):
            return None
        return self.argument(1, "interface"), int(text)

    def argument(self, index: int, name: str) -> str:
        """One argument, by its position or its name; empty when it isn't there."""
        return self.arguments[index] if len(self.arguments) > index else self.named.get(name, "")


def split_endpoint(text: str) -> Endpoint:
    """Take an endpoint string apart, as Twisted does: colons separate, a backslash keeps its next character.

    Twisted's own function for it is private.
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
    """Why a server can't listen at an endpoint, ``None`` when nothing speaks against it."""
    if not text.strip():
        return "is blank; write an endpoint such as tcp:4437"
    if ":" not in text or _is_address(text):
        return _as_endpoint(text)
    if (len(text) - len(text.rstrip("\\"))) % 2:
        return "must not end in a backslash"
    endpoint = split_endpoint(text)
    known = known_types()
    if endpoint.type not in known and (endpoint.type.lower() in _BUILT_IN or endpoint.type.lower() not in known):
        return f"is of a type that isn't known here; known are {', '.join(known)}"
    if endpoint.type.lower() in ("tcp", "tcp6", "ssl"):
        port = endpoint.argument(0, "port")
        if not _PORT.fullmatch(port) or int(port) > 65_535:
            return f"must have a port from 0 to 65535, as in {endpoint.type}:4437"
    if endpoint.type == "unix" and not endpoint.argument(0, "address"):
        return "must have a path, as in unix:/run/durable-streams/http.sock"
    return None


def on_loopback(text: str) -> str:
    """An endpoint string, with the loopback interface where it is TCP and names none."""
    endpoint = split_endpoint(text)
    if endpoint.where is None or endpoint.argument(1, "interface"):
        return text
    return f"{text}:interface={_LOOPBACK_SIX if endpoint.type.lower() == 'tcp6' else '127.0.0.1'}"


def is_loopback(interface: str) -> bool:
    """Whether only this machine can reach what listens there; a name isn't looked up."""
    try:
        address = ip_address(interface)
    except ValueError:
        return interface == "localhost"
    # Python before 3.13 doesn't look into ::ffff:127.0.0.1, by which a socket of both families is asked over IPv4.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def known_types() -> list[str]:
    """The first parts of endpoint strings that Twisted and its plugins understand."""
    # Here, because few configurations have endpoints, and looking for plugins takes time.
    from twisted.internet.interfaces import IStreamServerEndpointStringParser
    from twisted.plugin import getPlugins

    return sorted({*_BUILT_IN, *(parser.prefix for parser in getPlugins(IStreamServerEndpointStringParser))})


def collide(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two interfaces with ports can't both be listened on."""
    if one[1] != other[1] or one[1] == 0:
        return False
    return one[0] == other[0] or one[0] in _EVERYWHERE or other[0] in _EVERYWHERE


def tcp_places(bind_address: str, endpoints: Iterable[str]) -> list[tuple[str, int]]:
    """The interfaces and ports that the server listens on, as far as its keys tell.

    :param endpoints: when there are some, the address isn't used.
    """
    texts = list(endpoints) or [bind_address]
    return [place for place in map(place_of, texts) if place is not None]


def place_of(text: str) -> tuple[str, int] | None:
    """The interface and port of an address or an endpoint string, ``None`` when it has none."""
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
    """The remedy for an address, or a port, where an endpoint belongs."""
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
