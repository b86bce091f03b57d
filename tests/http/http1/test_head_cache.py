"""Heads that are read once and remembered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.http1.head_cache import HeadCache
from dstreams.http.http1.heads import RequestHead, parse_head
from dstreams.http.http1.reader import RequestReader
from dstreams.http.transport.heads import HeadFault
from dstreams.http.transport.limits import MAX_KNOWN_BYTES, MAX_KNOWN_HEAD_BYTES, HttpLimits
from dstreams.protocol.producers import Producer
from dstreams.streams.appending import AppendRequest

LIMITS = HttpLimits()

LINES = [
    b"GET /a HTTP/1.1",
    b"GET /b?x=1&y=2 HTTP/1.1",
    b"GET /b? HTTP/1.1",
    b"GET /b?a?b HTTP/1.1",
    b"HEAD /%41/b HTTP/1.1",
    b"POST /a HTTP/1.1",
    b"POST /a HTTP/1.0",
    b"POST //a HTTP/1.1",
    b"PUT /a#b HTTP/1.1",
    b"PUT /c HTTP/1.1",
    b"DELETE http://h/x HTTP/1.1",
    b"DELETE /a|b HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"CONNECT /a HTTP/1.1",
    b"PATCH /a HTTP/1.1",
    b"get /a HTTP/1.1",
    b"GET  /a HTTP/1.1",
    b"GET /a\x80 HTTP/1.1",
    b"GET /a HTTP/1.1 ",
    b"GET /a HTTP/1.2",
    b"",
]
BLOCKS = [
    b"",
    b"Host: h\r\n",
    b"Host: h\r\nHost: i\r\n",
    b"Host: h\r\nUpgrade: h2c\r\nConnection: upgrade\r\n",
    b"Host: h\r\nConnection: close\r\n",
    b"Host: h\r\nConnection: keep-alive\r\n",
    b"Host: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n",
    b"Host: h\r\nContent-Length: 3\r\nProducer-Seq: 1\r\n",
    b"Host: h\r\nContent-Length: 3\r\nProducer-Seq: 22\r\n",
    b"Host: h\r\nContent-Length: 3\r\nProducer-Seq: \r\n",
    b"Host: h\r\nContent-Length: 3\r\nproducer-seq: 5\r\n",
    b"Host: h\r\nContent-Length: 3\r\nProducer-Seq: 1\r\nproducer-seq: 5\r\n",
    b"Host: h\r\nTransfer-Encoding: chunked\r\n",
    b"Host: h\r\nTransfer-Encoding: gzip\r\n",
    b"Host: h\r\n folded\r\n",
    b"Host: h\r\nX: \x00\r\n",
]


class HeadsTests:
    """Heads known by heart."""

    def test_same_head(self) -> None:
        """Equal bytes give the very same head, and requests that share what was found out about it."""
        head_cache = HeadCache(LIMITS)
        head = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
        first, second = head_cache.read(head), head_cache.read(bytes(bytearray(head)))
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
        head_cache = HeadCache(LIMITS)
        first = head_cache.read(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        second = head_cache.read(b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (first.path, second.path) == (b"/a", b"/b")
        assert first.facts is not second.facts

    @pytest.mark.parametrize("method", [b"PUT", b"DELETE"])
    def test_once(self, method: bytes) -> None:
        """What is done to a stream once isn't remembered."""
        head_cache = HeadCache(LIMITS)
        head_cache.read(method + b" /a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert not head_cache.known

    def test_resumed(self) -> None:
        """Heads with the id of an event, which is hardly ever the same twice, take no room."""
        head_cache = HeadCache(LIMITS)
        fields = b"Host: h\r\nLast-Event-ID: 0000000000000000_%016d\r\n\r\n"
        first = head_cache.read(b"GET /a?offset=-1&live=sse HTTP/1.1\r\n" + fields % 1)
        assert first.headers[b"last-event-id"] == b"0000000000000000_0000000000000001"
        assert not head_cache.known
        assert head_cache.recognize(b"GET /b?offset=-1&live=sse HTTP/1.1\r\n" + fields % 1) is None

    def test_refused(self) -> None:
        """A head that was refused is refused again."""
        head_cache = HeadCache(LIMITS)
        for _ in range(2):
            with pytest.raises(HeadFault):
                head_cache.read(b"GET /a HTTP/1.1\r\n\r\n")

    def test_bounded(self) -> None:
        """However many heads come, and however long they are, few are remembered: the latest."""
        head_cache = HeadCache(LIMITS)
        filler = b"x" * 1900
        most = MAX_KNOWN_BYTES // len(filler)
        for number in range(most):
            last = b"GET /%d HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % (number, filler)
            head_cache.read(last)
        assert sum(map(len, head_cache.known)) < MAX_KNOWN_BYTES
        assert len(head_cache.known) < most
        assert last in head_cache.known
        long = b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % (b"x" * MAX_KNOWN_HEAD_BYTES)
        assert head_cache.read(long) is not head_cache.read(long)


def numbered(seq: bytes, name: bytes = b"Producer-Seq", path: bytes = b"/s") -> bytes:
    """A producer's head."""
    return b"POST %b HTTP/1.1\r\nHost: h\r\n%b: %b\r\nContent-Length: 3\r\n\r\n" % (path, name, seq)


def said(read: Callable[[bytes], RequestHead], head: bytes) -> object:
    """All that a head says, or why it is refused."""
    names = ("method", "path", "query", "headers", "content_length", "is_1_0", "keep_alive", "expects_continue")
    try:
        understood = read(head)
    except HeadFault as fault:
        return fault.args
    return [getattr(understood, name) for name in names]


def afresh(head: bytes) -> RequestHead:
    """The head as it is read when nothing is known."""
    return parse_head(head, LIMITS)


class SeriesTests:
    """Heads that differ in a producer's sequence number."""

    @pytest.mark.parametrize("name", [b"Producer-Seq", b"producer-seq", b"PRODUCER-SEQ"])
    def test_numbers(self, name: bytes) -> None:
        """Each has its own number, and all else is as if it had been read anew."""
        head_cache = HeadCache(LIMITS)
        for seq in (b"0", b"1", b"9", b"10", b"007", b"", b"x", b"-1", b"1 ", b"9" * 16, b"9" * 17, b"2"):
            head = numbered(seq, name)
            assert said(head_cache.read, head) == said(afresh, head)

    def test_facts(self) -> None:
        """What was found out about one holds for all, but for the number."""
        head_cache = HeadCache(LIMITS)
        first = head_cache.read(numbered(b"0"))
        asked = AppendRequest(b"text/plain", True, Producer("p", 7, 0), b"abc")
        first.facts.name, first.facts.lines, first.facts.append = "s", b"X: y\r\n", asked
        second = head_cache.read(numbered(b"12")).facts
        assert (second.name, second.lines) == ("s", b"X: y\r\n")
        append = second.append
        assert append is not None
        assert append.producer == Producer("p", 7, 12)
        assert (append.content_type, append.closes, append.stream_seq) == (b"text/plain", True, b"abc")
        assert append.media_type == asked.media_type
        assert first.headers[b"producer-seq"] == b"0"
        assert first.facts.append is asked

    def test_other_series(self) -> None:
        """Another path is another series."""
        head_cache = HeadCache(LIMITS)
        assert head_cache.read(numbered(b"0")).path == b"/s"
        assert head_cache.read(numbered(b"1", path=b"/t")).path == b"/t"

    def test_facts_of_another_series(self) -> None:
        """What is found out about the first of a series holds for the rest of it also where its fields were known."""
        head_cache = HeadCache(LIMITS)
        head_cache.read(numbered(b"0"))
        first = head_cache.read(numbered(b"5", path=b"/t"))
        assert first.headers[b"producer-seq"] == b"5"
        first.facts.name = "t"
        assert head_cache.read(numbered(b"6", path=b"/t")).facts.name == "t"
        assert head_cache.read(numbered(b"7", path=b"/u")).facts.name == ""

    def test_two_numbers(self) -> None:
        """Two such headers are refused, whichever series is known."""
        head_cache = HeadCache(LIMITS)
        head_cache.read(numbered(b"0"))
        twice = numbered(b"1").replace(b"Host: h\r\n", b"Host: h\r\nproducer-seq: 0\r\n")
        for _ in range(2):
            with pytest.raises(HeadFault):
                head_cache.read(twice)

    def test_no_number(self) -> None:
        """A head without its number isn't one of the series, though it looks like what is remembered of them."""
        head_cache = HeadCache(LIMITS)
        head_cache.read(numbered(b"0"))
        assert head_cache.read(numbered(b"")).headers[b"producer-seq"] == b""
        assert head_cache.read(numbered(b"1")).headers[b"producer-seq"] == b"1"

    @pytest.mark.parametrize("seq", [b"\x00", b"\r\n", b"\n1", b"\x001"])
    def test_hostile(self, seq: bytes) -> None:
        """What stands in a number's place is looked at."""
        head_cache = HeadCache(LIMITS)
        head_cache.read(numbered(b"0"))
        assert said(head_cache.read, numbered(seq)) == said(afresh, numbered(seq))


FIELDS = b"Host: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nOrigin: http://o\r\n\r\n"


class FieldsTests:
    """Heads with known fields and another request line."""

    def test_lines(self) -> None:
        """A plain line before known fields is understood without reading them again."""
        head_cache = HeadCache(LIMITS)
        first = head_cache.read(b"POST /a HTTP/1.1\r\n" + FIELDS)
        second = head_cache.read(b"POST /b/c?d=e HTTP/1.1\r\n" + FIELDS)
        assert second.headers is first.headers
        assert (second.method, second.path, second.query) == (b"POST", b"/b/c", b"d=e")
        assert second.content_length == 5

    def test_facts(self) -> None:
        """What the fields mean is found out once, what the path means each time."""
        head_cache = HeadCache(LIMITS)
        first = head_cache.read(b"POST /a HTTP/1.1\r\n" + FIELDS)
        asked = AppendRequest(b"text/plain", False, None, None)
        first.facts.name, first.facts.lines, first.facts.append = "a", b"X: y\r\n", asked
        second = head_cache.read(b"POST /b HTTP/1.1\r\n" + FIELDS).facts
        assert (second.name, second.route, second.observed) == ("", None, None)
        assert (second.lines, second.append) == (b"X: y\r\n", asked)

    def test_methods(self) -> None:
        """The same fields mean something else to another method."""
        head_cache = HeadCache(LIMITS)
        head_cache.read(b"POST /a HTTP/1.1\r\n" + FIELDS).facts.lines = b"X: y\r\n"
        assert head_cache.read(b"GET /a HTTP/1.1\r\n" + FIELDS).facts.lines == b""

    def test_creates(self) -> None:
        """Creates are remembered by their fields only."""
        head_cache = HeadCache(LIMITS)
        first = head_cache.read(b"PUT /a HTTP/1.1\r\n" + FIELDS)
        assert head_cache.read(b"PUT /b HTTP/1.1\r\n" + FIELDS).headers is first.headers
        assert not head_cache.known

    def test_limits(self) -> None:
        """A line that is too long is refused before known fields, too."""
        limits = HttpLimits(max_request_line_bytes=200)
        head_cache = HeadCache(limits)
        head_cache.read(b"GET /a HTTP/1.1\r\n" + FIELDS)
        long = b"GET /%b HTTP/1.1\r\n" % (b"a" * 200) + FIELDS
        with pytest.raises(HeadFault, match="request line"):
            head_cache.read(long)

    @given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(BLOCKS)), min_size=2, max_size=12))
    def test_as_if_read(self, drawn: list[tuple[bytes, bytes]]) -> None:
        """Whatever came before, a head is understood, or refused, as if it had come first."""
        head_cache = HeadCache(LIMITS)
        for line, block in drawn:
            head = line + b"\r\n" + block + b"\r\n"
            assert said(head_cache.read, head) == said(afresh, head)


class CredentialTests:
    """Heads with credentials end with their connection."""

    @pytest.mark.parametrize("field", [b"Authorization: Bearer abc", b"cookie: a=b", b"Proxy-Authorization: x"])
    @pytest.mark.parametrize("number", [b"", b"Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: 1\r\n"])
    def test_shared_cache(self, field: bytes, number: bytes) -> None:
        """Nothing of such a head is in the cache that connections share."""
        head_cache = HeadCache(LIMITS)
        head = b"POST /a HTTP/1.1\r\nHost: h\r\n" + number + field + b"\r\n\r\n"
        assert head_cache.read(head) is not head_cache.read(head)
        tables = (head_cache._whole, head_cache._series, head_cache._fields)
        assert [dict(table.by_bytes) for table in tables] == [{}, {}, {}]

    def test_connection_cache(self) -> None:
        """The connection's own reader parses such a head once, and another connection's doesn't get it."""
        shared = HeadCache(LIMITS)
        head = b"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer abc\r\n\r\n"
        mine, other = RequestReader(LIMITS, shared), RequestReader(LIMITS, shared)
        found = []
        for reader in (mine, mine, other):
            reader.feed(head)
            found.append(reader.head())
        assert found[0] is found[1]
        assert found[2] is not found[0]

    def test_bound(self) -> None:
        """A connection that sends other credentials each time keeps a few kilobytes of them."""
        reader = RequestReader(LIMITS, HeadCache(LIMITS))
        for number in range(100):
            reader.feed(b"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: %d\r\n\r\n" % number)
            assert reader.head() is not None
        assert reader._private is not None
        assert 0 < len(reader._private.known) < 20
