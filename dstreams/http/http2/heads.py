"""Heads in HTTP/2: converts a request's fields to a :class:`Request`, and a :class:`Response` to fields.

The form of the fields (names, pseudo-headers, no connection headers, :authority the same as Host) is checked by h2;
here are the rules that requests of every version keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dstreams.http.messages import Request
from dstreams.http.transport.heads import HOST, HeadFault
from dstreams.http.transport.limits import HttpLimits
from dstreams.protocol.headers import SINGLETONS

Field = tuple[bytes, bytes]
"""The name and the value of a header, or of a pseudo-header, whose name begins with a colon."""

_TARGET = re.compile(rb"/[!\"$-~]*")
"""A path and query: visible ASCII without a fragment."""

_OF_A_CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""Headers that HTTP/2 replaces by frames; they would make a response malformed (RFC 9113 section 8.2.2)."""


def read_head(fields: Iterable[Field], limits: HttpLimits, peer: str) -> Request:
    """Convert a block of fields to a request without its body.

    :param fields: the pseudo-headers and the headers, in the order of arrival.
    :param limits: limits on their size and number.
    :param peer: the client's address in text form.
    :raises HeadFault: the request can't be served.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: dict[bytes, bytes] = {}
    repeated: set[bytes] = set()
    count = 0
    for name, value in fields:
        if name.startswith(b":"):
            pseudo[name] = value
            continue
        count += 1
        if name not in headers:
            headers[name] = value
        else:
            repeated.add(name)
            # Cookies may come in crumbs (RFC 9113 section 8.2.3).
            headers[name] += (b"; " if name == b"cookie" else b", ") + value
    if count > limits.max_headers:
        raise HeadFault(431, f"At most {limits.max_headers} header lines are allowed")
    _check_fields(headers, repeated)
    method = pseudo[b":method"]
    path, query = _split_target(method, pseudo.get(b":path"), limits)
    _set_host(headers, pseudo.get(b":authority"))
    return Request(method, path, query, headers, _body_length(headers), b"https", peer, b"", None)


def response_fields(status: int, head: bytes, date: bytes, length: int | None) -> list[Field]:
    """Return a response's head as fields.

    :param head: header lines, each ended by CRLF.
    :param date: the ``Date`` line.
    :param length: the value of ``content-length``; ``None`` for no such header.
    """
    fields = [(b":status", b"%d" % status)]
    for line in (head + date).split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name and name not in _OF_A_CONNECTION:
            fields.append((name, value.strip(b" \t")))
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    return fields


def _check_fields(headers: dict[bytes, bytes], repeated: set[bytes]) -> None:
    if repeated and not SINGLETONS.isdisjoint(repeated):
        names = b", ".join(sorted(SINGLETONS & repeated)).decode("ascii")
        raise HeadFault(400, f"Headers that must not be repeated: {names}")
    if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise HeadFault(417, "The only supported expectation is 100-continue")


def _split_target(method: bytes, target: bytes | None, limits: HttpLimits) -> tuple[bytes, bytes]:
    if target is None or method == b"CONNECT":
        raise HeadFault(501, "This server is not a proxy")
    if len(method) + len(target) > limits.max_request_line_bytes:
        raise HeadFault(414, f"The method and the path have more than {limits.max_request_line_bytes} bytes")
    if target == b"*" and method == b"OPTIONS":
        return target, b""
    if _TARGET.fullmatch(target) is None:
        raise HeadFault(400, "The path does not begin with a slash, or contains a fragment or a non-ASCII character")
    path, _, query = target.partition(b"?")
    return path, query


def _set_host(headers: dict[bytes, bytes], authority: bytes | None) -> None:
    """Set ``host`` to the value of ``:authority`` (RFC 9113 section 8.3.1)."""
    if authority is not None:
        headers[b"host"] = authority
    host = headers.get(b"host")
    if host is not None and HOST.fullmatch(host) is None:
        raise HeadFault(400, "The authority is not a host with an optional port")


def _body_length(headers: dict[bytes, bytes]) -> int | None:
    length = headers.get(b"content-length")
    if length is None:
        return None
    if not length.isdigit() or len(length) > 19:
        raise HeadFault(400, "The Content-Length is not a number")
    return int(length)
