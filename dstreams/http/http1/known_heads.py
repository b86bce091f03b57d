"""Heads known by heart: what was read once need not be read again.

A client that appends to one stream, or asks again and again how far it is, sends the same head each time; so do
many clients of one kind. An idempotent producer's heads differ in one number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from attrs import define, field

from dstreams.http.http1.heads import RequestHead, parse_head
from dstreams.http.http1.limits import MAX_KNOWN_BYTES, MAX_KNOWN_HEAD_BYTES, HttpLimits
from dstreams.http.messages import Facts
from dstreams.protocol.headers import PRODUCER_SEQ_KEY

_NUMBERED = (b"\r\nProducer-Seq: ", b"\r\nproducer-seq: ")
"""How the header with that number begins: as the specification writes it, and as JavaScript's fetch does."""

_MAX_DIGITS = 16

_ONCE = frozenset((b"PUT", b"DELETE"))
"""Methods whose heads don't come again: a stream is created once. Remembering them would take a kilobyte for each."""


@define(eq=False)
class _Memory:
    """Heads by some of their bytes: the latest, as many as have room; the first to come is the first to go."""

    heads: OrderedDict[bytes, RequestHead] = field(factory=OrderedDict, init=False)
    _size: int = field(default=0, init=False)

    def add(self, key: bytes, head: RequestHead) -> None:
        """Remember a head; one that is very long isn't."""
        if len(key) > MAX_KNOWN_HEAD_BYTES:
            return
        self.heads[key] = head
        self._size += _size(key)
        while self._size > MAX_KNOWN_BYTES:
            self._size -= _size(self.heads.popitem(last=False)[0])


def _size(key: bytes) -> int:
    """About how many bytes a head takes, with what it means: measured 1,070 for one of 113."""
    return 750 + 3 * len(key)


@define(eq=False)
class Heads:
    """Reads heads, and remembers them and what was found out about them.

    Looking one up takes 0.2 us, reading it 5.6 and finding out what it means 4 more; one of a producer's series takes
    4 in all (``python -m bench.application``).

    :param limits: a head's size and its number of lines are held against these.
    """

    _limits: HttpLimits
    known: Mapping[bytes, RequestHead] = field(init=False)
    """The latest heads by their bytes, those of producers excepted."""
    _whole: _Memory = field(factory=_Memory, init=False)
    _series: _Memory = field(factory=_Memory, init=False)
    """The first heads of producers' series, by their bytes without the sequence number."""

    def __attrs_post_init__(self) -> None:
        self.known = self._whole.heads

    def read(self, head: bytes) -> RequestHead:
        """As :func:`parse_head`."""
        known = self.known.get(head)
        if known is None:
            at = max(head.find(_NUMBERED[0]), head.find(_NUMBERED[1]))
            if at >= 0:
                return self._read_numbered(head, at + len(_NUMBERED[0]))
            known = parse_head(head, self._limits)
            if known.method not in _ONCE:
                self._whole.add(head, known)
        return known

    def _read_numbered(self, head: bytes, start: int) -> RequestHead:
        """Read a producer's head, whose sequence number begins at ``start``."""
        end = head.find(b"\r\n", start)
        digits = head[start:end]
        if not digits.isdigit() or len(digits) > _MAX_DIGITS:
            return parse_head(head, self._limits)
        series = head[:start] + head[end:]
        first = self._series.heads.get(series)
        if first is None:
            first = parse_head(head, self._limits)
            self._series.add(series, first)
            return first
        headers = first.headers.copy()
        headers[PRODUCER_SEQ_KEY] = digits
        return RequestHead(
            first.method,
            first.path,
            first.query,
            headers,
            first.content_length,
            first.is_1_0,
            first.keep_alive,
            first.expects_continue,
            Facts(first.facts.operation, first.facts.name, first.facts.lines),
        )
