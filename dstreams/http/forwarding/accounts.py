"""What the headers of a trusted proxy say of the client.

Every proxy on the way adds to what it got, and the client may have sent anything to the first. So headers are read
from their end, which the nearest proxy wrote, and only as far as trusted proxies have written them: the client is the
first one from the right that isn't a trusted proxy. What stands left of it is the client's own word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from attrs import frozen

from dstreams.http.forwarding.elements import parse_forwarded
from dstreams.http.forwarding.nodes import parse_node
from dstreams.http.http1.heads import HOST

X_FORWARDED_FOR = b"x-forwarded-for"
X_FORWARDED_HOST = b"x-forwarded-host"
X_FORWARDED_PROTO = b"x-forwarded-proto"
X_FORWARDED_PORT = b"x-forwarded-port"
FORWARDED = b"forwarded"

MAX_PROXIES = 32
"""The longest chain of trusted proxies that is followed. Longer ones are a client's invention inside a trusted
network, and every step takes a microsecond or two."""

Trusts = Callable[[str], bool]


@frozen
class Account:
    """What was said that can be believed; ``None`` is what wasn't, or wasn't valid.

    :param client: its IP address, or the identifier that a proxy gives it.
    :param scheme: ``b"http"`` or ``b"https"``, as the client asked.
    :param authority: the host, with a port if need be, that the client asked.
    """

    client: str | None = None
    scheme: bytes | None = None
    authority: bytes | None = None


NOTHING = Account()


def read_x_forwarded(headers: Mapping[bytes, bytes], trusts: Trusts) -> Account:
    """The account of ``X-Forwarded-For``, ``-Proto`` and ``-Host``.

    Of the last two the last value counts: some proxies set them and some add to them, and nobody can tell
    how many have.
    """
    hops = reversed(headers.get(X_FORWARDED_FOR, b"").split(b","))
    return Account(
        _client(map(bytes.strip, hops), trusts),
        _scheme(_last(headers, X_FORWARDED_PROTO)),
        _authority(_last(headers, X_FORWARDED_HOST)),
    )


def read_forwarded(headers: Mapping[bytes, bytes], trusts: Trusts) -> Account:
    """The account of ``Forwarded`` (RFC 7239); a malformed one says nothing.

    Scheme and authority are those that the client's own element has, which the outermost trusted proxy wrote; or
    else the next one's to the right.
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
    return Account(client, scheme, authority)


def _client(hops: Iterable[bytes], trusts: Trusts) -> str | None:
    """The first hop that isn't a trusted proxy, or the last one that is known.

    :param hops: from the nearest one on.
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
    # Location is made of it. A comma may stand in a host's name, but then means that two were meant.
    if not value or value.startswith(b":") or b"," in value or HOST.fullmatch(value) is None:
        return None
    return value
