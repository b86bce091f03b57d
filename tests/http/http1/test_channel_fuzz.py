"""Any bytes, cut anywhere: the same answers, and never an exception.

The limits are tiny, so that short inputs reach all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.http1 import channel, framing
from dstreams.http.http1.head_cache import HeadCache
from dstreams.http.messages import Response
from dstreams.http.transport.limits import HttpLimits
from tests.http.fakes import (
    Connected,
    FakeApplication,
    announce,
    chunked,
    describe,
    errors_logged,
    get,
    post,
    read_answers,
)

LIMITS = HttpLimits(
    max_request_line_bytes=60,
    max_head_bytes=400,
    max_headers=6,
    drain_bytes=40,
    linger_bytes=10_000,
    read_ahead_bytes=100,
)

EXPECT = b"Expect: 100-continue"

FORMS: dict[str, bytes] = {
    "get": get(),
    "get with a query": get(b"/echo?a=b&c"),
    "head": get(method=b"HEAD"),
    "early": get(b"/missing"),
    "204": get(b"/nothing"),
    "later": get(b"/later"),
    "close": get(b"/echo", b"Connection: close"),
    "1.0": get(version=b"1.0"),
    "1.0 keep-alive": get(b"/echo", b"Connection: keep-alive", version=b"1.0"),
    "absolute": get(b"http://other/x?y"),
    "options": get(b"*", method=b"OPTIONS"),
    "blank lines": b"\r\n\r\n" + get(),
    "many headers": get(b"/echo", b"A: 1", b"a: 2", b"B:  3 ", b"C:", b"D: \xff"),
    "too many headers": get(b"/echo", *[b"A: 1"] * 6),
    "long line": get(b"/" + b"x" * 60),
    "long head": get(b"/echo", b"X: " + b"y" * 400),
    "bare LF": b"GET / HTTP/1.1\nHost: h\n\n",
    "control character late in a long head": get(b"/echo", b"X: " + b"y" * 390 + b"\x00"),
    "lone CR": b"GET / HTTP/1.1\rHost",
    "control character after a blank line": b"\r\n\x00",
    "control character": get(b"/echo", b"X: a\x00b"),
    "fold": get(b"/echo", b"X: a\r\n b"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": get(b"/echo", b"host: again"),
    "version": get(version=b"2.0"),
    "method": get(method=b"BREW"),
    "connect": get(b"h:1", method=b"CONNECT"),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "post": post(b"hello"),
    "producer": post(b"hello", b"/echo", b"Producer-Id: p", b"Producer-Seq: 17"),
    "producer in lower case": post(b"hello", b"/echo", b"producer-id: p", b"producer-seq: 1"),
    "producer without a number": post(b"hello", b"/echo", b"Producer-Seq: ", b"Producer-Id: p"),
    "producer with two numbers": post(b"hello", b"/echo", b"Producer-Seq: 1", b"producer-seq: 2"),
    "producer with a long number": post(b"hello", b"/echo", b"Producer-Seq: " + b"9" * 17),
    "post later": post(b"hello", b"/later"),
    "post early": post(b"hello", b"/missing"),
    "post early with a long body": post(b"x" * 41, b"/missing"),
    "post with a long body": post(b"x" * 41),
    "post too large": post(b"x" * 51),
    "post too large and early": post(b"x" * 51, b"/missing"),
    "post in the middle": announce(10) + b"half",
    "chunked": chunked(b"hel", b"lo"),
    "chunked with trailers": chunked(b"hello")[:-2] + b"T: v\r\n\r\n",
    "chunked early": chunked(b"hello", path=b"/missing"),
    "chunked too large": chunked(b"x" * 30, b"y" * 30),
    "chunked malformed": chunked(b"hello").replace(b"\r\nhello", b"\nhello"),
    "chunked with a bad end": chunked(b"hello").replace(b"hello", b"hello!"),
    "chunked in 1.0": chunked(b"hello").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "length and chunked": chunked(b"hello", headers=[b"Content-Length: 5"]),
    "expect": post(b"hello", b"/echo", EXPECT),
    "expect early": post(b"hello", b"/missing", EXPECT),
    "expect too large": post(b"x" * 51, b"/echo", EXPECT),
    "expect chunked": chunked(b"hello", headers=[EXPECT]),
    "expect more": post(b"hello", b"/echo", b"Expect: more"),
    "upgrade": post(b"hello", b"/echo", b"Connection: Upgrade", b"Upgrade: h2c"),
}


@frozen
class Outcome:
    """What a client sees, and what the application was asked (of what a head doesn't decide)."""

    answers: bytes
    asked: tuple[bytes, ...]
    methods: tuple[bytes, ...]
    closed: bool


def run(
    segments: list[bytes],
    *,
    ends: bool = False,
    head_cache: HeadCache | None = None,
    turns: Iterable[int] | None = None,
) -> Outcome:
    """Give a channel the segments; answers that take time come when nothing else happens.

    :param ends: whether the client closes its side at the end.
    :param heads: what reads the heads, when it is to know some of them by heart.
    :param turns: how many turns of a busy reactor pass after each segment; ``None`` when the reactor isn't busy. In a
        turn of a busy one the channel may take one step.
    """
    connected = Connected(FakeApplication(max_body_bytes=50), LIMITS, busy=turns is not None)
    passing = itertools.cycle(turns or [0])
    if head_cache is not None:
        connected.channel._head_cache = connected.channel._reader._head_cache = head_cache
    waiting = connected.application.waiting
    for segment in segments:
        connected.channel.dataReceived(segment)
        for _ in range(next(passing)):
            connected.clock.advance(0)
    connected.turns()
    while waiting:
        waiting.pop().callback(Response(200, b"", b"at last"))
        connected.turns()
    if ends:
        connected.channel.readConnectionLost()
    connected.turns()
    connected.clock.advance(6)  # a client that lingers is closed on
    sent = b"".join(connected.transport.writes)
    return Outcome(
        sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""),
        tuple(describe(each) for each in connected.application.requests if each.path != b"/missing"),
        tuple(connected.application.answered),
        connected.transport.disconnecting,
    )


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut ``data`` at ``places``."""
    edges = sorted({place for place in places if place < len(data)} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


def every_byte(data: bytes) -> list[bytes]:
    """One byte at a time."""
    return [data[at : at + 1] for at in range(len(data))]


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy server a channel does as little in a step as it can."""
    monkeypatch.setattr(channel, "STEP_SECONDS", 0)
    monkeypatch.setattr(framing, "MAX_LINES_AT_ONCE", 1)


@pytest.fixture(autouse=True)
def nothing_is_logged() -> Iterator[None]:
    """No input makes the channel log an error."""
    with errors_logged() as found:
        yield
    assert not found


class SegmentationTests:
    """The same bytes get the same answers, however they are cut."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("ends", [False, True])
    def test_every_cut(self, form: str, ends: bool) -> None:
        """In two segments, cut at each place, and byte by byte; alone, and between other requests."""
        for data in (FORMS[form], get(b"/nothing") + FORMS[form] + get(b"/missing")):
            whole = run([data], ends=ends)
            for place in range(1, len(data)):
                assert run(cut(data, [place]), ends=ends) == whole, data[:place]
            assert run(every_byte(data), ends=ends) == whole

    @pytest.mark.parametrize("form", FORMS)
    def test_known_heads(self, form: str) -> None:
        """A head that was read before changes nothing: not for a whole request in a segment, nor for a cut one."""
        data, other = FORMS[form], get(b"/nothing")
        for requests in ([data], [data, data], [other, data, other]):
            head_cache = HeadCache(LIMITS)
            whole = run([b"".join(requests)])
            for _ in range(2):
                assert run(requests, head_cache=head_cache) == whole
                for place in range(1, len(data)):
                    pieces = [*requests[:-1], *cut(requests[-1], [place])]
                    assert run(pieces, head_cache=head_cache) == whole

    @given(
        st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=4),
        st.lists(st.integers(0, 800), max_size=10),
        st.booleans(),
    )
    def test_pipelines(self, forms: list[str], places: list[int], ends: bool) -> None:
        """Several requests on a connection, cut anywhere."""
        data = b"".join(FORMS[form] for form in forms)
        whole = run([data], ends=ends)
        check(whole)
        assert run(cut(data, places), ends=ends) == whole

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("ends", [False, True])
    def test_a_step_in_each_turn(self, form: str, ends: bool) -> None:
        """A request is answered alike when the server is busy, whole or byte by byte, alone or between others."""
        for data in (FORMS[form], get(b"/nothing") + FORMS[form] + get(b"/missing")):
            whole = run([data], ends=ends)
            assert run([data], ends=ends, turns=[0]) == whole
            assert run(every_byte(data), ends=ends, turns=[0]) == whole
            assert run(every_byte(data), ends=ends, turns=[0, 0, 1, 0, 2]) == whole

    @given(
        st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=4),
        st.lists(st.integers(0, 800), max_size=10),
        st.booleans(),
        st.lists(st.integers(0, 3), min_size=1, max_size=5),
    )
    def test_pipelines_on_a_busy_server(
        self, forms: list[str], places: list[int], ends: bool, turns: list[int]
    ) -> None:
        """Several requests on a connection that may take one step in a turn, cut anywhere."""
        data = b"".join(FORMS[form] for form in forms)
        assert run(cut(data, places), ends=ends, turns=turns) == run([data], ends=ends)

    @given(
        st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=3),
        st.lists(
            st.tuples(
                st.integers(0, 600),
                st.integers(0, 3),
                st.one_of(
                    st.binary(max_size=3),
                    st.sampled_from([b"\r\n", b"\r", b"\n", b"\x00", b" ", b":", b"0", b"f", b";", b"\r\n\r\n"]),
                ),
            ),
            min_size=1,
            max_size=4,
        ),
        st.lists(st.integers(0, 700), max_size=6),
        st.booleans(),
    )
    def test_mutations(
        self, forms: list[str], edits: list[tuple[int, int, bytes]], places: list[int], ends: bool
    ) -> None:
        """Damaged requests get valid answers or none, the same however they are cut."""
        data = b"".join(FORMS[form] for form in forms)
        for place, length, new in edits:
            at = place % (len(data) + 1)
            data = data[:at] + new + data[at + length :]
        whole = run([data], ends=ends)
        check(whole)
        assert run(cut(data, places), ends=ends) == whole
        assert run(every_byte(data), ends=ends) == whole
        assert run(cut(data, places), ends=ends, turns=[0, 1]) == whole

    @given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5), st.booleans())
    def test_noise(self, data: bytes, places: list[int], ends: bool) -> None:
        """Arbitrary bytes are no exception."""
        whole = run([data], ends=ends)
        check(whole)
        assert run(cut(data, places), ends=ends) == whole


def check(outcome: Outcome) -> None:
    """What was sent is a series of valid responses; one that ends the connection is the last."""
    answers = read_answers(outcome.answers, outcome.methods)
    for answer in answers[:-1]:
        assert answer.headers.get(b"connection") != b"close"
    if answers and answers[-1].headers.get(b"connection") == b"close":
        assert outcome.closed
    assert len(answers) == len(outcome.methods)
