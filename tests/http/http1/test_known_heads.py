"""Heads that are read once and remembered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dstreams.http.http1.heads import HeadFault, RequestHead, parse_head
from dstreams.http.http1.known_heads import Heads
from dstreams.http.http1.limits import MAX_KNOWN_BYTES, MAX_KNOWN_HEAD_BYTES, HttpLimits

LIMITS = HttpLimits()


class HeadsTests:
    """Heads known by heart."""

    def test_same_head(self) -> None:
        """Equal bytes give the very same head, and requests that share what was found out about it."""
        heads = Heads(LIMITS)
        head = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
        first, second = heads.read(head), heads.read(bytes(bytearray(head)))
        assert first is second
        mine, yours = first.request(b"http", "192.0.2.1"), second.request(b"https", "192.0.2.2")
        assert mine is not yours
        assert mine.facts is yours.facts
        assert [(each.scheme, each.peer) for each in (mine, yours)] == [
            (b"http", "192.0.2.1"),
            (b"https", "192.0.2.2"),
        ]

    def test_other_head(self) -> None:
        """Any other bytes are read anew."""
        heads = Heads(LIMITS)
        first = heads.read(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        second = heads.read(b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (first.path, second.path) == (b"/a", b"/b")
        assert first.facts is not second.facts

    @pytest.mark.parametrize("method", [b"PUT", b"DELETE"])
    def test_once(self, method: bytes) -> None:
        """What is done to a stream once isn't remembered."""
        heads = Heads(LIMITS)
        heads.read(method + b" /a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert not heads.known

    def test_refused(self) -> None:
        """A head that was refused is refused again."""
        heads = Heads(LIMITS)
        for _ in range(2):
            with pytest.raises(HeadFault):
                heads.read(b"GET /a HTTP/1.1\r\n\r\n")

    def test_bounded(self) -> None:
        """However many heads come, and however long they are, few are remembered: the latest."""
        heads = Heads(LIMITS)
        filler = b"x" * 1900
        most = MAX_KNOWN_BYTES // len(filler)
        for number in range(most):
            last = b"GET /%d HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % (number, filler)
            heads.read(last)
        assert sum(map(len, heads.known)) < MAX_KNOWN_BYTES
        assert len(heads.known) < most
        assert last in heads.known
        long = b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % (b"x" * MAX_KNOWN_HEAD_BYTES)
        assert heads.read(long) is not heads.read(long)


def numbered(seq: bytes, name: bytes = b"Producer-Seq", path: bytes = b"/s") -> bytes:
    """A producer's head."""
    return b"POST %b HTTP/1.1\r\nHost: h\r\n%b: %b\r\nContent-Length: 3\r\n\r\n" % (path, name, seq)


def same(one: RequestHead, other: RequestHead) -> bool:
    """Whether two heads say the same."""
    names = ("method", "path", "query", "headers", "content_length", "is_1_0", "keep_alive", "expects_continue")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def outcome(read: Callable[[bytes], RequestHead], head: bytes) -> object:
    """The headers that are read, or why they aren't."""
    try:
        return read(head).headers
    except HeadFault as fault:
        return fault.args


class SeriesTests:
    """Heads that differ in a producer's sequence number."""

    @pytest.mark.parametrize("name", [b"Producer-Seq", b"producer-seq", b"PRODUCER-SEQ"])
    def test_numbers(self, name: bytes) -> None:
        """Each has its own number, and all else is as if it had been read anew."""
        heads = Heads(LIMITS)
        for seq in (b"0", b"1", b"9", b"10", b"007", b"", b"x", b"-1", b"1 ", b"9" * 16, b"9" * 17, b"2"):
            head = numbered(seq, name)
            assert same(heads.read(head), parse_head(head, LIMITS))

    def test_facts(self) -> None:
        """What an append asks for is found out for each; what its path means, once."""
        heads = Heads(LIMITS)
        first = heads.read(numbered(b"0"))
        first.facts.name, first.facts.lines, first.facts.append = "s", b"X: y\r\n", object()  # type: ignore[assignment]
        second = heads.read(numbered(b"1"))
        assert (second.facts.name, second.facts.lines, second.facts.append) == ("s", b"X: y\r\n", None)
        assert first.headers[b"producer-seq"] == b"0"

    def test_other_series(self) -> None:
        """Another path is another series."""
        heads = Heads(LIMITS)
        assert heads.read(numbered(b"0")).path == b"/s"
        assert heads.read(numbered(b"1", path=b"/t")).path == b"/t"

    def test_two_numbers(self) -> None:
        """Two such headers are refused, whichever series is known."""
        heads = Heads(LIMITS)
        heads.read(numbered(b"0"))
        twice = numbered(b"1").replace(b"Host: h\r\n", b"Host: h\r\nproducer-seq: 0\r\n")
        for _ in range(2):
            with pytest.raises(HeadFault):
                heads.read(twice)

    @pytest.mark.parametrize("seq", [b"\x00", b"\r\n", b"\n1", b"\x001"])
    def test_hostile(self, seq: bytes) -> None:
        """What stands in a number's place is looked at."""
        heads = Heads(LIMITS)
        heads.read(numbered(b"0"))
        assert outcome(heads.read, numbered(seq)) == outcome(lambda head: parse_head(head, LIMITS), numbered(seq))
