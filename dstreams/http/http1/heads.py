"""Parses the head of an HTTP/1.1 request: the request line and the headers.

The grammar is llhttp's, through httptools: strict field syntax, no obs-fold, no bare LF, no Content-Length together
with Transfer-Encoding, no second Content-Length. This module also rejects what llhttp accepts: other versions, a
missing, repeated or malformed Host, chunked in HTTP/1.0, a fragment in the target.

The result never depends on how the bytes are divided into segments. So a fault of an incomplete head is reported at the
first byte that proves it (:func:`prefix_fault`), and a complete head is checked in the same way before anything else.
"""

from __future__ import annotations

import re

from attrs import define, field
from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from dstreams.http.messages import HeadCacheEntry, Request
from dstreams.http.transport.heads import HOST, HeadFault
from dstreams.http.transport.limits import HttpLimits
from dstreams.protocol.headers import SINGLETONS

_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\r\n") + b"\x7f"
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VERSION = re.compile(rb"HTTP/[0-9]+(\.[0-9]+)?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)


@define(eq=False)
class RequestHead:
    """A parsed head. It does not change, and several requests may share it.

    The first four are as in :class:`~dstreams.http.messages.Request`.

    :param content_length: the announced length of the body in bytes, or ``None`` if the body is chunked.
    :param is_1_0: whether the request is HTTP/1.0.
    :param keep_alive: whether the client wants the connection to stay open after the response.
    :param expects_continue: whether the client waits for a 100 before it sends the body.
    :param facts: data shared by all requests with this head.
    """

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    content_length: int | None
    is_1_0: bool
    keep_alive: bool
    expects_continue: bool
    facts: HeadCacheEntry = field(factory=HeadCacheEntry)

    def request(self, scheme: bytes, peer: str) -> Request:
        """Return a new request with this head. Its ``body`` is empty if none was announced, otherwise ``None``."""
        length = self.content_length
        return Request(
            self.method,
            self.path,
            self.query,
            self.headers,
            length,
            scheme,
            peer,
            b"",
            None if length != 0 else b"",
            self.facts,
        )


class _Fields:
    """Receives header names and values from llhttp."""

    __slots__ = ("repeated", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.repeated: set[bytes] = set()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        values = self.values
        if name in values:
            self.repeated.add(name)
            values[name] += b", " + value.rstrip()
        else:
            values[name] = value.rstrip()


def parse_head(head: bytes, limits: HttpLimits) -> RequestHead:
    """Parse one complete head.

    :param head: the bytes from the request line to the empty line, without an empty line before it.
    :param limits: limits on its size and its number of lines.
    :raises HeadFault: the head is invalid or not supported.
    """
    try:
        if len(head) > limits.max_request_line_bytes or head.count(b"\r\n") - 2 > limits.max_headers:
            fault = _first_fault(head, limits)
            if fault is not None:
                raise fault
        return _parse(head)
    except HeadFault as later:
        # An earlier byte may already have proved another fault, which then takes precedence.
        raise _first_fault(head, limits) or later from None


def prefix_fault(prefix: bytes, scanned: int, limits: HttpLimits) -> HeadFault | None:
    """Return the fault of an incomplete head that no further bytes can repair.

    :param prefix: the bytes received.
    :param scanned: the number of bytes that have been checked already.
    :return: the fault, or ``None`` if more bytes may complete a valid head.
    """
    harmless = (
        len(prefix) <= limits.max_head_bytes
        and _is_clean(prefix, scanned)
        and (prefix.count(b"\r\n") <= limits.max_headers + 1)
        and (
            len(prefix) < limits.max_request_line_bytes + 2
            or prefix.find(b"\r\n", 0, limits.max_request_line_bytes + 2) >= 0
        )
    )
    return None if harmless else _first_fault(prefix, limits)


def _is_clean(prefix: bytes, scanned: int) -> bool:
    """Whether the new bytes may contain a fault. It takes 3 ns a byte; the expression that finds the place takes 23."""
    # A CR at the end may still be followed by its LF; one at the end of the checked bytes is checked now.
    start = scanned - 1 if scanned and prefix[scanned - 1] == 13 else scanned
    piece = prefix[start : len(prefix) - prefix.endswith(b"\r")]
    lines = piece.count(b"\r\n")
    return (
        piece.count(b"\r") == lines
        and piece.count(b"\n") == lines
        and len(piece.translate(None, _CONTROLS)) == len(piece)
    )


def _first_fault(prefix: bytes, limits: HttpLimits) -> HeadFault | None:
    """Return the fault that the earliest byte proves, in a head that begins with ``prefix``."""
    line_limit, head_limit = limits.max_request_line_bytes, limits.max_head_bytes
    proofs: list[tuple[int, int, str]] = []
    forbidden = _FORBIDDEN.search(prefix)
    if forbidden is not None:
        detail = "The head contains a control character, or a line that doesn't end in CRLF"
        proofs.append((forbidden.end(), 400, detail))
    if len(prefix) >= line_limit + 2 and prefix.find(b"\r\n", 0, line_limit + 2) < 0:
        proofs.append((line_limit + 2, 414, f"The request line is longer than {line_limit} bytes"))
    if len(prefix) > head_limit:
        proofs.append((head_limit + 1, 431, f"The head is larger than {head_limit} bytes"))
    surplus = _end_of_surplus_line(prefix, limits.max_headers)
    if surplus is not None:
        proofs.append((surplus, 431, f"At most {limits.max_headers} header lines are allowed"))
    if not proofs:
        return None
    _, status, detail = min(proofs)
    return HeadFault(status, detail)


def _end_of_surplus_line(prefix: bytes, max_headers: int) -> int | None:
    """Return the index of the end of the first header line beyond the allowed number, if there is one."""
    end = 0
    for _ in range(max_headers + 2):
        start = end
        end = prefix.find(b"\r\n", start) + 2
        if end < 2 or end - start == 2:
            return None  # not so many lines, or the head ends here
    return end


def _parse(head: bytes) -> RequestHead:
    line_end = head.find(b"\r\n")
    is_1_0 = False
    if not head.startswith(b" HTTP/1.1", line_end - 9):
        is_1_0 = head.startswith(b" HTTP/1.0", line_end - 9)
        if not is_1_0:
            raise _version_fault(head[:line_end])
    words = head[: line_end - 9].split(b" ")
    if len(words) != 2:
        raise HeadFault(400, "The request line is not METHOD SP target SP version")
    method, target = words
    headers = _read_fields(head, method, is_1_0)
    path, query = _split_target(method, target, headers)
    length = _body_length(headers, is_1_0)
    expectation = headers.get(b"expect")
    if expectation is not None and expectation.lower() != b"100-continue":
        raise HeadFault(417, "The only supported expectation is 100-continue")
    return RequestHead(
        method,
        path,
        query,
        headers,
        length,
        is_1_0,
        _wants_keep_alive(headers.get(b"connection"), is_1_0),
        expectation is not None and not is_1_0 and length != 0,
    )


def _read_fields(head: bytes, method: bytes, is_1_0: bool) -> dict[bytes, bytes]:
    """Return the headers, after llhttp has accepted the whole head."""
    fields = _Fields()
    try:
        # A new parser for every head costs 0.16 us of 6.5 (bench/channel.py). A reused one would wait for the body of
        # the last request, or reject everything after "Connection: close".
        HttpRequestParser(fields).feed_data(head)
    except HttpParserUpgrade:
        # Raised after all headers were read. An offer to upgrade is declined by ignoring it (RFC 9110 section 7.8).
        if method == b"CONNECT":
            raise HeadFault(501, "This server is not a proxy") from None
    except HttpParserInvalidMethodError:
        if _TOKEN.fullmatch(method) is None:
            raise HeadFault(400, "The method is not a token") from None
        raise HeadFault(501, f"The method {method.decode('ascii')} is not implemented") from None
    except HttpParserError as error:
        raise HeadFault(400, f"The head is malformed: {str(error).lower()}") from None
    _check_fields(fields, is_1_0)
    return fields.values


def _check_fields(fields: _Fields, is_1_0: bool) -> None:
    """Check what llhttp does not: exactly one Host, and no repeated header that must have one value."""
    host = fields.values.get(b"host")
    if host is None:
        if not is_1_0:
            raise HeadFault(400, "The Host header is missing")
    elif b"host" in fields.repeated:
        raise HeadFault(400, "Multiple Host headers")
    elif HOST.fullmatch(host) is None:
        raise HeadFault(400, "The Host header is not a host with an optional port")
    if fields.repeated and not SINGLETONS.isdisjoint(fields.repeated):
        names = b", ".join(sorted(SINGLETONS & fields.repeated)).decode("ascii")
        raise HeadFault(400, f"Headers that must not be repeated: {names}")


def _version_fault(line: bytes) -> HeadFault:
    _, space, version = line.rpartition(b" ")
    if space and _VERSION.fullmatch(version) is not None:
        return HeadFault(505, "This port supports HTTP/1.1 and HTTP/1.0")
    return HeadFault(400, "The request line does not end with HTTP/1.1")


def _split_target(method: bytes, target: bytes, headers: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return the path and the query of a request target (RFC 9112 section 3.2)."""
    if b"#" in target or not target.isascii():
        raise HeadFault(400, "The request target contains a fragment or a non-ASCII character")
    if not target.startswith(b"/"):
        if target == b"*" and method == b"OPTIONS":
            return target, b""
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or not absolute[1] or HOST.fullmatch(absolute[1]) is None:
            raise HeadFault(400, "The request target is not a path or an http URL")
        # The target's authority takes precedence over the Host header (RFC 9112 section 3.2.2).
        headers[b"host"] = absolute[1]
        target = absolute[2]
        if not target:
            return (b"*" if method == b"OPTIONS" else b"/"), b""
        if target.startswith(b"?"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    return path, query


def _body_length(headers: dict[bytes, bytes], is_1_0: bool) -> int | None:
    """Return the announced length of the body, or ``None`` if it is chunked (RFC 9112 section 6)."""
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        length = headers.get(b"content-length")
        # llhttp has checked that these are digits, and that 64 bits hold them.
        return 0 if length is None else int(length)
    if is_1_0:
        raise HeadFault(400, "Transfer-Encoding is not allowed in HTTP/1.0")
    if coding.lower() != b"chunked":
        raise HeadFault(501, "The only supported transfer coding is chunked")
    return None


def _wants_keep_alive(connection: bytes | None, is_1_0: bool) -> bool:
    if connection is None:
        return not is_1_0
    options = [option.strip() for option in connection.lower().split(b",")]
    return b"close" not in options and (not is_1_0 or b"keep-alive" in options)
