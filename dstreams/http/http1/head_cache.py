"""Heads known by heart: what was read once need not be read again.

A client that appends to one stream, or asks again and again how far it is, sends the same head each time; so do
many clients of one kind. An idempotent producer's heads differ in one number. And whatever a client does, to whichever
stream: it sends the same fields behind another request line.
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
"""Request lines whose meaning is plain, and which allow any fields."""

_NUMBERED: Final = (b"\r\nProducer-Seq: ", b"\r\nproducer-seq: ")
"""How the header with that number begins: as the specification writes it, and as JavaScript's fetch does."""

_ONCE: Final = frozenset((b"PUT", b"DELETE"))
"""Methods whose heads don't come again: a stream is created once. Remembering them would take a kilobyte for each."""


@define(eq=False)
class _Memory:
    """Heads by some of their bytes: the latest, as many as have room; the first to come is the first to go.

    :param room: how many bytes they may take.
    """

    _room: int = MAX_KNOWN_BYTES
    by_bytes: OrderedDict[bytes, RequestHead] = field(factory=OrderedDict, init=False)
    _size: int = field(default=0, init=False)

    def add(self, key: bytes, head: RequestHead) -> None:
        """Remember a head; one that is very long isn't."""
        if len(key) > MAX_KNOWN_HEAD_BYTES or key in self.by_bytes:
            return
        self.by_bytes[key] = head
        self._size += _size(key)
        while self._size > self._room:
            self._size -= _size(self.by_bytes.popitem(last=False)[0])


def _size(key: bytes) -> int:
    """About how many bytes a head takes, with what it means: measured 1,070 for one of 113."""
    return 750 + 3 * len(key)


@define(eq=False)
class HeadCache:
    """Reads heads, and remembers them and what was found out about them.

    Looking one up takes 0.2 us, reading it 5.6 and finding out what it means 4 more; where only the line is another,
    2.5 and 1.5, and where only a producer's number is, 2.5 (``python -m bench.application``).

    :param limits: a head's size and its number of lines are held against these.
    """

    _limits: HttpLimits
    known: Mapping[bytes, RequestHead] = field(init=False)
    """The latest heads by their bytes, those of producers excepted."""
    _whole: _Memory = field(factory=_Memory, init=False)
    _series: _Memory = field(factory=_Memory, init=False)
    """Producers' heads, by their bytes without the sequence number; which number is in one is of no account."""
    _fields: _Memory = field(factory=lambda: _Memory(MAX_KNOWN_FIELDS_BYTES), init=False)
    """Heads by their method and fields, a sequence number excepted; the rest of the line is of no account."""
    _longest: int = field(init=False)
    """So long a head may be without another look at the limits."""

    def __attrs_post_init__(self) -> None:
        self.known = self._whole.by_bytes
        limits = self._limits
        self._longest = min(MAX_KNOWN_HEAD_BYTES, limits.max_request_line_bytes, limits.max_head_bytes)

    def read(self, head: bytes) -> RequestHead:
        """As :func:`parse_head`."""
        return self.known.get(head) or self.recognize(head) or self._read(head)

    def recognize(self, head: bytes) -> RequestHead | None:
        """A head whose parts are known, though the whole isn't; ``None`` when it has to be read.

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
            # The very head that is answered: what is found out about it then is known to those that follow.
            first = _numbered(like, digits)
            self._series.add(series, first)
            return first
        return _numbered(first, digits)

    def _by_fields(self, head: bytes) -> RequestHead | None:
        """A head with known fields and another request line, which is plain."""
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
        if len(head) > self._longest or LAST_EVENT_ID_KEY in read.headers:
            return read  # the same event is hardly ever the last one twice
        cut = _cut_number(head)
        if cut is None:
            if read.method not in _ONCE:
                self._whole.add(head, read)
        elif is_plain_integer(cut[1]):
            head = cut[0]
            self._series.add(head, read)
        else:
            return read
        line = _LINE.fullmatch(head, 0, head.find(b"\r\n"))
        if line is not None:
            self._fields.add(read.method + head[line.end() :], read)
        return read


def _cut_number(head: bytes) -> tuple[bytes, bytes] | None:
    """A producer's head without its sequence number, and what stands in its place; ``None``: another head."""
    at = max(head.find(_NUMBERED[0]), head.find(_NUMBERED[1]))
    if at < 0:
        return None
    start = at + len(_NUMBERED[0])
    end = head.find(b"\r\n", start)
    return head[:start] + head[end:], head[start:end]


def _numbered(first: RequestHead, digits: bytes) -> RequestHead:
    """The head of a producer's series that has this number."""
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
