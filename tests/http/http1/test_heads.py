"""Reading request heads."""

from __future__ import annotations

import pytest

from dstreams.http.http1.heads import parse_head, prefix_fault
from dstreams.http.transport.heads import HeadFault
from dstreams.http.transport.limits import HttpLimits

LIMITS = HttpLimits()


def parse(*lines: bytes, host: bytes | None = b"Host: example.org") -> HeadFault | tuple[bytes, bytes, bytes]:
    """Method, path and query of a head given by its lines, or the fault."""
    head = b"\r\n".join([*lines, *([] if host is None else [host]), b"", b""])
    try:
        request = parse_head(head, LIMITS).request(b"http", "")
    except HeadFault as fault:
        return fault
    return request.method, request.path, request.query


def status(*lines: bytes, host: bytes | None = b"Host: example.org") -> int:
    """The status with which a head is refused; 0 when it is accepted."""
    fault = parse(*lines, host=host)
    return fault.status if isinstance(fault, HeadFault) else 0


class RequestLineTests:
    """Method, target and version."""

    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            (b"/", b"/", b""),
            (b"/a/b%20c", b"/a/b%20c", b""),
            (b"/a?b=c&d", b"/a", b"b=c&d"),
            (b"/a?b?c", b"/a", b"b?c"),
            (b"/a?", b"/a", b""),
            (b"//a", b"//a", b""),
            (b"http://other:1/x?y", b"/x", b"y"),
            (b"HTTPS://other/x", b"/x", b""),
            (b"http://other", b"/", b""),
            (b"http://other?y", b"/", b"y"),
            (b"http://[::1]:80/x", b"/x", b""),
        ],
    )
    def test_target(self, target: bytes, path: bytes, query: bytes) -> None:
        """Path and query are split and left as they were sent."""
        assert parse(b"GET %b HTTP/1.1" % target) == (b"GET", path, query)

    @pytest.mark.parametrize("target", [b"*", b"http://other"])
    def test_options_for_the_whole_server(self, target: bytes) -> None:
        """OPTIONS may name no path."""
        assert parse(b"OPTIONS %b HTTP/1.1" % target) == (b"OPTIONS", b"*", b"")

    def test_absolute_form_names_the_host(self) -> None:
        """The authority of an absolute target replaces the Host header."""
        head = parse_head(b"GET http://other:1/ HTTP/1.1\r\nHost: example.org\r\n\r\n", LIMITS)
        assert head.headers[b"host"] == b"other:1"

    @pytest.mark.parametrize(
        "target",
        [
            b"*",
            b"a",
            b"/a#b",
            b"/\xc3\xa4",
            b"/\xff",
            b"http://",
            b"http:///a",
            b"http://a b/",
            b"http://user@a/",
            b"ftp://a/b",
            b"a:80",
            b"/a b",
            b"",
            b"/\x7f",
        ],
    )
    def test_bad_targets(self, target: bytes) -> None:
        """What isn't a path or an http URL of ASCII characters without a fragment is refused."""
        assert status(b"GET %b HTTP/1.1" % target) == 400

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"GET / HTTP/1.1", 0),
            (b"GET / HTTP/1.0", 0),
            (b"GET / HTTP/0.9", 505),
            (b"GET / HTTP/1.2", 505),
            (b"GET / HTTP/2.0", 505),
            (b"GET / HTTP/2", 505),
            (b"PRI * HTTP/2.0", 505),
            (b"GET / HTTP/11.1", 505),
            (b"GET /", 400),
            (b"GET", 400),
            (b"GET / ", 400),
            (b"GET / http/1.1", 400),
            (b"GET / HTTP/1.1 ", 400),
            (b"GET / HTTP/1.", 400),
            (b"GET / RTSP/1.0", 400),
            (b"GET / ICE/1.0", 400),
            (b"GET  / HTTP/1.1", 400),
            (b"GET /  HTTP/1.1", 400),
            (b" GET / HTTP/1.1", 400),
            (b"GET\t/ HTTP/1.1", 400),
            (b"GET HTTP/1.1", 400),
            (b"HTTP/1.1", 400),
            (b"HTTP/1.1 200 OK", 400),
        ],
    )
    def test_line(self, line: bytes, expected: int) -> None:
        """Exactly three words, the last of which is a version we speak."""
        assert status(line) == expected

    @pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"])
    def test_known_methods(self, method: bytes) -> None:
        """Methods of HTTP are left to the application."""
        assert status(b"%b / HTTP/1.1" % method) == 0

    @pytest.mark.parametrize("method", [b"get", b"GETT", b"BREW", b"X-Y", b"Get", b"!"])
    def test_unknown_methods(self, method: bytes) -> None:
        """Other tokens are methods that nobody implemented; case counts."""
        assert status(b"%b / HTTP/1.1" % method) == 501

    @pytest.mark.parametrize("method", [b"G(T", b"G\x00T", b"", b"G\xc3T"])
    def test_malformed_methods(self, method: bytes) -> None:
        """What isn't a token is no method."""
        assert status(b"%b / HTTP/1.1" % method) == 400

    def test_connect(self) -> None:
        """This is no proxy."""
        assert status(b"CONNECT example.org:443 HTTP/1.1") == 501


class HeaderTests:
    """Header lines."""

    def test_names_and_values(self) -> None:
        """Names are lower-case, values without surrounding blanks, repeated ones joined in order."""
        head = b"GET / HTTP/1.1\r\nHOST: h\r\nX-A:1\r\nx-b: \t two words \t\r\nX-a: 2\r\nX-C:\r\nx-A:  \r\n\r\n"
        assert parse_head(head, LIMITS).headers == {
            b"host": b"h",
            b"x-a": b"1, 2, ",
            b"x-b": b"two words",
            b"x-c": b"",
        }

    def test_bytes_beyond_ascii_are_kept(self) -> None:
        """obs-text in a value is the application's concern."""
        head = parse_head(b"GET / HTTP/1.1\r\nHost: h\r\nX: \xe4\xff\r\n\r\n", LIMITS)
        assert head.headers[b"x"] == b"\xe4\xff"

    @pytest.mark.parametrize(
        "line",
        [
            b"no colon",
            b": no name",
            b"Name : value",
            b"Na me: value",
            b"N\xc3: value",
            b"(x): y",
            b"X: a\r\n folded",
            b"X: a\r\n\tfolded",
            b" X: leading",
            b"X: a\nY: b",
            b"X: a\rb",
            b"X: \x00",
            b"X: \x1b",
            b"X: \x7f",
            b"X\x00: y",
        ],
    )
    def test_malformed_lines(self, line: bytes) -> None:
        """Anything but ``name: value`` is refused."""
        assert status(b"GET / HTTP/1.1", b"A: b", line) == 400

    @pytest.mark.parametrize(
        "value",
        [b"a", b"a.b-c_d:80", b"127.0.0.1:1", b"[::1]", b"[::1]:4437", b"a:", b"", b"xn--%41"],
    )
    def test_good_hosts(self, value: bytes) -> None:
        """A name or an address, with or without a port; empty when the URL had none (RFC 9112 3.2)."""
        assert status(b"GET / HTTP/1.1", b"Host: " + value, host=None) == 0

    @pytest.mark.parametrize(
        "value", [b"a b", b"a/b", b"u@a", b"a:x", b"a:1:2", b"[::1", b"::1", b"a,b:x", b"h\xe4", b"<x>", b'"']
    )
    def test_bad_hosts(self, value: bytes) -> None:
        """Anything else isn't."""
        assert status(b"GET / HTTP/1.1", b"Host: " + value, host=None) == 400

    def test_host_is_needed_once(self) -> None:
        """Exactly one Host in HTTP/1.1, at most one in HTTP/1.0, whatever the case of its name."""
        assert status(b"GET / HTTP/1.1", host=None) == 400
        assert status(b"GET / HTTP/1.1", b"host: a") == 400
        assert status(b"GET / HTTP/1.0", host=None) == 0
        assert status(b"GET / HTTP/1.0", b"HOST: a") == 400

    @pytest.mark.parametrize("name", [b"Stream-Closed", b"producer-id", b"Stream-Seq", b"Content-Type"])
    def test_headers_with_one_value(self, name: bytes) -> None:
        """A repeated one is refused: joined by a comma it would mean what nobody said."""
        assert status(b"POST / HTTP/1.1", name + b": true") == 0
        assert status(b"POST / HTTP/1.1", name + b": true", name.lower() + b": true") == 400

    @pytest.mark.parametrize(
        ("version", "connection", "expected"),
        [
            (b"1.1", None, True),
            (b"1.1", b"keep-alive", True),
            (b"1.1", b"close", False),
            (b"1.1", b"Upgrade, CLOSE", False),
            (b"1.1", b"closed", True),
            (b"1.0", None, False),
            (b"1.0", b"keep-alive", True),
            (b"1.0", b"Keep-Alive, close", False),
            (b"1.0", b"something", False),
        ],
    )
    def test_keep_alive(self, version: bytes, connection: bytes | None, expected: bool) -> None:
        """HTTP/1.1 goes on unless told otherwise, HTTP/1.0 only when asked."""
        option = b"" if connection is None else b"Connection: %b\r\n" % connection
        head = b"GET / HTTP/%b\r\nHost: h\r\n%b\r\n" % (version, option)
        assert parse_head(head, LIMITS).keep_alive is expected


class FramingTests:
    """Which body a head announces."""

    @pytest.mark.parametrize(
        ("line", "length"),
        [
            (b"X: y", 0),
            (b"Content-Length: 0", 0),
            (b"Content-Length: 12", 12),
            (b"Content-Length:  0012 ", 12),
            (b"Transfer-Encoding: chunked", None),
            (b"transfer-encoding: Chunked ", None),
        ],
    )
    def test_length(self, line: bytes, length: int | None) -> None:
        """A length, chunks, or nothing."""
        head = parse_head(b"POST / HTTP/1.1\r\nHost: h\r\n" + line + b"\r\n\r\n", LIMITS)
        assert head.content_length == length
        assert head.request(b"http", "").body == (b"" if length == 0 else None)

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            ([b"Content-Length: -1"], 400),
            ([b"Content-Length: +1"], 400),
            ([b"Content-Length: 1x"], 400),
            ([b"Content-Length: 0x1"], 400),
            ([b"Content-Length: 1 2"], 400),
            ([b"Content-Length: 1, 1"], 400),
            ([b"Content-Length:"], 400),
            ([b"Content-Length: 99999999999999999999"], 400),
            ([b"Content-Length: 1", b"Content-Length: 1"], 400),
            ([b"Content-Length: 1", b"Content-Length: 2"], 400),
            ([b"Content-Length: 1", b"Transfer-Encoding: chunked"], 400),
            ([b"Transfer-Encoding: chunked", b"Content-Length: 1"], 400),
            ([b"Transfer-Encoding: identity"], 400),
            ([b"Transfer-Encoding: chunked, gzip"], 400),
            ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
            ([b"Transfer-Encoding: xchunked"], 400),
            ([b"Transfer-Encoding: gzip, chunked"], 501),
            ([b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"], 501),
        ],
    )
    def test_refused(self, lines: list[bytes], expected: int) -> None:
        """A length that isn't one, or two answers to the same question."""
        assert status(b"POST / HTTP/1.1", *lines) == expected

    def test_chunks_in_1_0(self) -> None:
        """HTTP/1.0 knows no chunks."""
        assert status(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked") == 400

    def test_an_upgrade_offer_is_ignored(self) -> None:
        """An offer of HTTP/2, as curl makes it, changes nothing: the body is still announced."""
        offer = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"]
        lines = [b"POST / HTTP/1.1", b"Host: h", *offer, b"Content-Length: 3", b"", b""]
        head = parse_head(b"\r\n".join(lines), LIMITS)
        assert head.content_length == 3
        assert head.headers[b"upgrade"] == b"h2c"
        assert head.keep_alive

    @pytest.mark.parametrize(
        ("version", "length", "value", "expected"),
        [
            (b"1.1", 3, b"100-continue", True),
            (b"1.1", 3, b"100-Continue", True),
            (b"1.1", 0, b"100-continue", False),
            (b"1.0", 3, b"100-continue", False),
        ],
    )
    def test_expectation(self, version: bytes, length: int, value: bytes, expected: bool) -> None:
        """An HTTP/1.1 client with a body may wait for a 100."""
        head = b"POST / HTTP/%b\r\nHost: h\r\nContent-Length: %d\r\nExpect: %b\r\n\r\n" % (
            version,
            length,
            value,
        )
        assert parse_head(head, LIMITS).expects_continue is expected

    def test_other_expectations(self) -> None:
        """Nothing else is met."""
        assert status(b"POST / HTTP/1.1", b"Expect: a-miracle") == 417


class LimitTests:
    """Sizes."""

    LIMITS = HttpLimits(max_request_line_bytes=30, max_head_bytes=100, max_headers=3)

    def status(self, head: bytes) -> int:
        """The status with which a complete head is refused, byte by byte as well as at once."""
        found = 0
        try:
            parse_head(head, self.LIMITS)
        except HeadFault as fault:
            found = fault.status
        early = (prefix_fault(head[:end], 0, self.LIMITS) for end in range(1, len(head)))
        first = next((fault.status for fault in early if fault is not None), 0)
        assert first in (0, found)
        return found

    def test_request_line(self) -> None:
        """A line of exactly the limit is accepted, one byte more isn't."""
        fitting = b"GET /" + b"x" * 16 + b" HTTP/1.1"
        assert len(fitting) == 30
        assert self.status(fitting + b"\r\nHost: h\r\n\r\n") == 0
        assert self.status(fitting.replace(b"/", b"/x") + b"\r\nHost: h\r\n\r\n") == 414

    def test_head(self) -> None:
        """A head of exactly the limit is accepted, one byte more isn't."""
        head = b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n"
        room = 100 - len(head % b"")
        assert self.status(head % (b"x" * room)) == 0
        assert self.status(head % (b"x" * (room + 1))) == 431

    def test_headers(self) -> None:
        """As many lines as the limit are accepted, one more isn't."""
        assert self.status(b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\n\r\n") == 0
        assert self.status(b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\nE: f\r\n\r\n") == 431

    def test_the_earliest_byte_decides(self) -> None:
        """Of several faults the one that shows first is named."""
        late = b"GET /" + b"x" * 40 + b" HTTP/1.1\r\nHost: \x00\r\n\r\n"
        assert self.status(late) == 414
        early = b"GET /\x00" + b"x" * 40 + b" HTTP/1.1\r\nHost: h\r\n\r\n"
        assert self.status(early) == 400
        assert self.status(b"BREW / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\nE: f\r\n\r\n") == 431

    @pytest.mark.parametrize(
        "prefix",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/1.1\n",
            b"GET / HTTP/1.1\r\nHost: h\n",
            b"GET / HTTP/1.1\rHost",
            b"\n",
            b"\x00",
        ],
    )
    def test_a_hopeless_beginning(self, prefix: bytes) -> None:
        """TLS, or lines that end in LF only, are refused as soon as they show."""
        fault = prefix_fault(prefix, 0, self.LIMITS)
        assert fault is not None
        assert fault.status == 400

    @pytest.mark.parametrize("prefix", [b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\n", b"nonsense\r\nX:"])
    def test_a_harmless_beginning(self, prefix: bytes) -> None:
        """What may still become a head, or can be judged better at its end, is waited for."""
        assert prefix_fault(prefix, 0, self.LIMITS) is None
        for scanned in range(len(prefix)):
            assert prefix_fault(prefix, scanned, self.LIMITS) is None
