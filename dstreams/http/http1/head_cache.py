"""The head cache: parsed request heads, by their bytes.

A client that appends to one stream, or polls its tail, sends the same head each time; so do many clients of one kind.
The heads of an idempotent producer differ in one number. And a client that uses many streams sends the same fields
after different request lines.

Heads with credentials (``Authorization``, ``Cookie``) are never in the cache that all connections share. Each
connection keeps its own in a small cache, which ends with the connection. Such a request costs 1.1 us more than with a
shared head, because it takes the channel's general path.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from attrs import define, field

from dstreams.http.http1.heads import RequestHead, parse_head
from dstreams.http.messages import HeadCacheEntry
from dstreams.http.transport.limits import MAX_KNOWN_BYTES, MAX_KNOWN_FIELDS_BYTES, MAX_KNOWN_HEAD_BYTES, HttpLimits
from dstreams.protocol.headers import LAST_EVENT_ID_KEY, PRODUCER_SEQ_KEY, is_plain_integer

_LINE: Final = re.compile(
    rb"(GET|HEAD|PUT|POST|DELETE) (/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)(?:\?([A-Za-z0-9._~!$&'()*+,;=:@%/?-]*))? HTTP/1\.1"
)
"""Request lines without a fault, which can be combined with any fields."""

_NUMBERED: Final = (b"\r\nProducer-Seq: ", b"\r\nproducer-seq: ")
"""The beginning of the header with the sequence number, as the specification and as JavaScript's fetch write it."""

_ONCE: Final = frozenset((b"PUT", b"DELETE"))
"""Methods whose heads do not repeat, because a stream is created once. Each would take a kilobyte of the cache."""

_CREDENTIALS: Final = (b"authorization", b"cookie", b"proxy-authorization")

PRIVATE_BYTES: Final = 8 * 1024
"""Maximum number of bytes of memory for the heads with credentials of one connection, in each of three tables."""


@define(eq=False)
class _Memory:
    """Heads by some of their bytes. The oldest are evicted first.

    :param room: maximum number of bytes of memory.
    """

    _room: int = MAX_KNOWN_BYTES
    by_bytes: OrderedDict[bytes, RequestHead] = field(factory=OrderedDict, init=False)
    _size: int = field(default=0, init=False)

    def add(self, key: bytes, head: RequestHead) -> None:
        """Add a head, unless it is very long."""
        if len(key) > MAX_KNOWN_HEAD_BYTES or key in self.by_bytes:
            return
        self.by_bytes[key] = head
        self._size += _size(key)
        while self._size > self._room:
            self._size -= _size(self.by_bytes.popitem(last=False)[0])


def _size(key: bytes) -> int:
    """Return about how many bytes of memory a parsed head takes: measured 1,070 for one of 113 bytes."""
    return 750 + 3 * len(key)


@define(eq=False)
class HeadCache:
    """Parses heads, and caches them together with the data derived from them.

    A lookup takes 0.2 us; parsing a head takes 5.6, and routing it 4 more. If only the request line differs, it is 2.5
    and 1.5; if only a producer's number differs, 2.5 (``python -m bench.application``).

    :param limits: limits on a head's size and its number of lines.
    :param private: whether the cache belongs to one connection, so that it may hold credentials.
    """

    _limits: HttpLimits
    _private: bool = False
    known: Mapping[bytes, RequestHead] = field(init=False)
    """The latest heads by their bytes, except those of producers."""
    _whole: _Memory = field(init=False)
    _series: _Memory = field(init=False)
    """Producers' heads, by their bytes without the ``Producer-Seq`` value."""
    _fields: _Memory = field(init=False)
    """Heads by their method and fields, without a ``Producer-Seq`` value and the rest of the request line."""
    _longest: int = field(init=False)
    """Heads up to this length cannot exceed any limit, so the limits are not rechecked."""

    def __attrs_post_init__(self) -> None:
        room, fields_room = MAX_KNOWN_BYTES, MAX_KNOWN_FIELDS_BYTES
        if self._private:
            room = fields_room = PRIVATE_BYTES
        self._whole, self._series, self._fields = _Memory(room), _Memory(room), _Memory(fields_room)
        self.known = self._whole.by_bytes
        limits = self._limits
        self._longest = min(MAX_KNOWN_HEAD_BYTES, limits.max_request_line_bytes, limits.max_head_bytes)

    def read(self, head: bytes) -> RequestHead:
        """Return a parsed head; the arguments and errors are those of :func:`parse_head`."""
        return self.known.get(head) or self.recognize(head) or self._read(head)

    def recognize(self, head: bytes) -> RequestHead | None:
        """Return a head whose parts are cached, although the whole is not; ``None`` if it has to be parsed.

        :param head: as in :func:`parse_head`, or anything else.
        """
        if len(head) > self._longest:
            return None
        cut = _cut_number(head)
        if cut is None:
            known = self._by_fields(head)
            if known is not None and known.method not in _ONCE:
                self._whole.add(head, known)
            return known
        series, digits = cut
        if not is_plain_integer(digits):
            return None
        first = self._series.by_bytes.get(series)
        if first is None:
            like = self._by_fields(series)
            if like is None:
                return None
            # The head of the current request itself, so that the data derived from it is cached for later ones.
            first = _numbered(like, digits)
            self._series.add(series, first)
            return first
        return _numbered(first, digits)

    def _by_fields(self, head: bytes) -> RequestHead | None:
        """Return a head whose fields are cached with another request line, or ``None``."""
        line = _LINE.fullmatch(head, 0, head.find(b"\r\n"))
        if line is None:
            return None
        method, path, query = line.groups(b"")
        like = self._fields.by_bytes.get(method + head[line.end() :])
        if like is None:
            return None
        return RequestHead(
            method,
            path,
            query,
            like.headers,
            like.content_length,
            False,
            like.keep_alive,
            like.expects_continue,
            HeadCacheEntry(lines=like.facts.lines, append=like.facts.append),
        )

    def _read(self, head: bytes) -> RequestHead:
        read = parse_head(head, self._limits)
        if self._private or not has_credentials(read):
            self.keep(head, read)
        return read

    def keep(self, head: bytes, parsed: RequestHead) -> None:
        """Add a parsed head to the cache, unless it is unlikely to repeat."""
        if len(head) > self._longest or LAST_EVENT_ID_KEY in parsed.headers:
            return
        cut = _cut_number(head)
        if cut is None:
            if parsed.method not in _ONCE:
                self._whole.add(head, parsed)
        elif is_plain_integer(cut[1]):
            head = cut[0]
            self._series.add(head, parsed)
        else:
            return
        line = _LINE.fullmatch(head, 0, head.find(b"\r\n"))
        if line is not None:
            self._fields.add(parsed.method + head[line.end() :], parsed)


def has_credentials(head: RequestHead) -> bool:
    """Whether a head must not be kept longer than its connection."""
    return not head.headers.keys().isdisjoint(_CREDENTIALS)


def _cut_number(head: bytes) -> tuple[bytes, bytes] | None:
    """Return a producer's head without its sequence number, and that number; ``None`` for other heads."""
    at = max(head.find(_NUMBERED[0]), head.find(_NUMBERED[1]))
    if at < 0:
        return None
    start = at + len(_NUMBERED[0])
    end = head.find(b"\r\n", start)
    return head[:start] + head[end:], head[start:end]


def _numbered(first: RequestHead, digits: bytes) -> RequestHead:
    """Return the head of a producer's series with another number."""
    headers = first.headers.copy()
    headers[PRODUCER_SEQ_KEY] = digits
    facts = first.facts
    append = facts.append
    return RequestHead(
        first.method,
        first.path,
        first.query,
        headers,
        first.content_length,
        first.is_1_0,
        first.keep_alive,
        first.expects_continue,
        HeadCacheEntry(facts.route, facts.name, facts.lines, None if append is None else append.numbered(int(digits))),
    )
