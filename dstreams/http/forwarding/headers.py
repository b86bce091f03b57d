"""The headers in which proxies describe the requests that they forward (RFC 7239, and X-Forwarded-*)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice

from attrs import frozen

from dstreams.http.transport.heads import HOST

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


# One pair, or none, with the semicolon, comma or end of text after it. Values with colons and brackets should be
# quoted, but proxies send them unquoted. All quantifiers are possessive: with backtracking, a header full of spaces
# took seven seconds.
_PAIR = re.compile(
    rb"[ \t]*+(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]++)="
    rb"(?:\"((?:[^\"\\]++|\\.)*+)\"|([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]*+))[ \t]*+)?([;,]|\Z)",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)

Element = dict[bytes, bytes]
"""Parameters by their names in lower case."""


def parse_forwarded(value: bytes) -> list[Element] | None:
    """Return the elements of a header, that of the nearest proxy last; empty ones are left out.

    A client may send the beginning of the header, to which proxies append their elements. An unclosed quotation mark
    in it would swallow what the proxies append. But then the rest is malformed: the appended text contains quotation
    marks itself, or leaves the string unclosed. So a header that is malformed anywhere is ignored as a whole.

    :return: ``None`` if the header is malformed.
    """
    elements: list[Element] = []
    element: Element = {}
    position = 0
    while True:
        pair = _PAIR.match(value, position)
        if pair is None:
            return None
        name, quoted, plain, separator = pair.groups()
        if name is not None:
            name = name.lower()
            if name in element:
                return None  # RFC 7239 section 4: a parameter occurs at most once in an element
            element[name] = plain if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        if separator != b";" and element:
            elements.append(element)
            element = {}
        if not separator:
            return elements
        position = pair.end()


X_FORWARDED_FOR = b"x-forwarded-for"
X_FORWARDED_HOST = b"x-forwarded-host"
X_FORWARDED_PROTO = b"x-forwarded-proto"
X_FORWARDED_PORT = b"x-forwarded-port"
FORWARDED = b"forwarded"

MAX_PROXIES = 32
"""Maximum length of a chain of trusted proxies. A longer one is made up by a client inside a trusted network, and every
hop takes a microsecond or two."""

Trusts = Callable[[str], bool]


@frozen
class ForwardedRequest:
    """What trusted headers say; ``None`` for what they do not say, or say in an invalid form.

    :param client: the client's IP address, or the identifier that a proxy uses for it.
    :param scheme: ``b"http"`` or ``b"https"``, as the client requested.
    :param authority: the host that the client requested, with a port if there is one.
    """

    client: str | None = None
    scheme: bytes | None = None
    authority: bytes | None = None


NOTHING = ForwardedRequest()


def read_x_forwarded(headers: Mapping[bytes, bytes], trusts: Trusts) -> ForwardedRequest:
    """Read ``X-Forwarded-For``, ``-Proto`` and ``-Host``.

    For ``-Proto`` and ``-Host`` the last value is used: some proxies replace these headers and some append to them, and
    there is no way to tell how many have appended.
    """
    hops = reversed(headers.get(X_FORWARDED_FOR, b"").split(b","))
    return ForwardedRequest(
        _client(map(bytes.strip, hops), trusts),
        _scheme(_last(headers, X_FORWARDED_PROTO)),
        _authority(_last(headers, X_FORWARDED_HOST)),
    )


def read_forwarded(headers: Mapping[bytes, bytes], trusts: Trusts) -> ForwardedRequest:
    """Read ``Forwarded`` (RFC 7239); a malformed header says nothing.

    Scheme and authority come from the element that identifies the client, which the outermost trusted proxy wrote, or
    else from the nearest element to the right that has them.
    """
    elements = parse_forwarded(headers.get(FORWARDED, b""))
    if not elements:
        return NOTHING
    client = scheme = authority = None
    for element in islice(reversed(elements), MAX_PROXIES):
        scheme = _scheme(element.get(b"proto", b"")) or scheme
        authority = _authority(element.get(b"host", b"")) or authority
        address = parse_node(element.get(b"for", b""))
        if address is None:
            break
        client = address
        if not trusts(address):
            break
    return ForwardedRequest(client, scheme, authority)


def _client(hops: Iterable[bytes], trusts: Trusts) -> str | None:
    """Return the first hop that is not a trusted proxy, or the last known hop.

    :param hops: the hops, nearest first.
    """
    client = None
    for hop in islice(hops, MAX_PROXIES):
        address = parse_node(hop)
        if address is None:
            break
        client = address
        if not trusts(address):
            break
    return client


def _last(headers: Mapping[bytes, bytes], name: bytes) -> bytes:
    return headers.get(name, b"").rpartition(b",")[2].strip(b" \t")


def _scheme(value: bytes) -> bytes | None:
    value = value.lower()
    return value if value in (b"http", b"https") else None


def _authority(value: bytes) -> bytes | None:
    # Location is built from it. A host name may contain a comma, but here a comma separates two values.
    if not value or value.startswith(b":") or b"," in value or HOST.fullmatch(value) is None:
        return None
    return value
