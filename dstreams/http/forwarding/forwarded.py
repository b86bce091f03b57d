"""Reads what a trusted proxy's headers say about the client.

Every proxy on the way adds to the headers it received, and the client may have sent anything to the first one. So the
headers are read from the end, which the nearest proxy wrote, and only as far as trusted proxies have written them: the
client is the first hop from the right that is not a trusted proxy. Everything to the left of it comes from the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from attrs import frozen

from dstreams.http.forwarding.elements import parse_forwarded
from dstreams.http.forwarding.nodes import parse_node
from dstreams.http.transport.heads import HOST

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
