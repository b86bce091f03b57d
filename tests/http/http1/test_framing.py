"""The body decoders."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.http1.framing import (
    BodyDecoder,
    BodyTooLarge,
    ChunkedDecoder,
    FramingError,
    LengthDecoder,
)
from dstreams.http.transport.limits import (
    MAX_CHUNK_EXTENSIONS_BYTES,
    MAX_CHUNK_LINE_BYTES,
    MAX_LINES_AT_ONCE,
    MAX_TRAILER_BYTES,
)


def decode(decoder: BodyDecoder, data: bytes, cuts: list[int]) -> tuple[object, bytes]:
    """Feed ``data`` cut at ``cuts``; the body or the class of the fault, and what was left over."""
    held = b""
    places = sorted({cut for cut in cuts if cut < len(data)} | {0, len(data)})
    segments = [data[start:end] for start, end in pairwise(places)]
    for number, segment in enumerate(segments):
        held += segment
        try:
            used = decoder.feed(held, 0)
            while decoder.paused:
                used = decoder.feed(held, used)
        except (FramingError, BodyTooLarge) as error:
            return (type(error), str(error)), b""
        held = held[used:]
        if decoder.complete:
            return decoder.body(), held + b"".join(segments[number + 1 :])
    return None, held


class LengthDecoderTests:
    """Bodies of announced length."""

    def test_takes_what_is_its_own(self) -> None:
        """The next message's bytes stay where they are."""
        decoder = LengthDecoder(5)
        assert decoder.feed(b"..hello GET", 2) == 7
        assert decoder.complete
        assert decoder.body() == b"hello"

    def test_waits_for_the_rest(self) -> None:
        """It is complete with its last byte, and not before."""
        decoder = LengthDecoder(5)
        assert decoder.feed(b"hell", 0) == 4
        assert not decoder.complete
        decoder.feed(b"o", 0)
        assert decoder.complete
        assert decoder.body() == b"hello"

    @given(st.lists(st.sampled_from([1, 2, 100, 16 * 1024 - 1, 16 * 1024, 50_000]), min_size=1, max_size=9))
    def test_any_cut_gives_the_same_body(self, sizes: list[int]) -> None:
        """The body is what has arrived, in long pieces and in short ones."""
        pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
        decoder = LengthDecoder(sum(sizes))
        for piece in pieces:
            assert not decoder.complete
            assert decoder.feed(b"..." + piece, 3) == 3 + len(piece)
        assert decoder.complete
        assert decoder.body() == b"".join(pieces)

    def test_short_pieces_take_no_more_room(self) -> None:
        """A client that sends byte by byte doesn't make the server keep an object for each."""
        decoder = LengthDecoder(20_000)
        tracemalloc.start()
        try:
            for number in range(10_000):
                decoder.feed(bytes([number % 256]), 0)
            assert tracemalloc.get_traced_memory()[0] < 20_000
        finally:
            tracemalloc.stop()


class ChunkedDecoderTests:
    """Chunked bodies."""

    @pytest.mark.parametrize(
        ("data", "body"),
        [
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
            (b"A\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
            (b"a\r\n\r\n\r\n\r\n\r\n\r\n\r\n00000000\r\n\r\n", b"\r\n" * 5),
            (b'5;name=value;quoted="a;b"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
            (b"5 ;name\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"1\r\nx\r\n0\r\nDigest: abc\r\nX-Empty:\r\n\r\n", b"x"),
        ],
    )
    def test_decodes(self, data: bytes, body: bytes) -> None:
        """Chunks are joined; extensions and trailers are dropped; what follows isn't touched."""
        assert decode(ChunkedDecoder(100), data + b"NEXT", []) == (body, b"NEXT")

    @pytest.mark.parametrize(
        "data",
        [
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1_0\r\n",
            b"000000001\r\nx\r\n",
            b"5\nhello\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0",
            b"5\r\nhello0\r\n\r\n",
            b"5;\x00\r\n",
            b"5;a\rb\r\n",
            b"5,a\r\nhello\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nbad name: x\r\n\r\n",
            b"0\r\n: x\r\n\r\n",
            b"0\r\nx: \x7f\r\n\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nx: y\n\r\n",
            b"0\r\n\n",
        ],
    )
    def test_refuses(self, data: bytes) -> None:
        """What isn't exactly the grammar is an error, and the first byte that proves it raises it."""
        with pytest.raises(FramingError, match="malformed"):
            ChunkedDecoder(100).feed(data, 0)

    def test_limits_the_body(self) -> None:
        """A chunk's size line that exceeds the limit is refused before the chunk has come."""
        decoder = ChunkedDecoder(10)
        assert decoder.feed(b"6\r\n123456\r\n", 0) == 11
        with pytest.raises(BodyTooLarge):
            decoder.feed(b"5\r\n", 0)

    def test_allows_the_limit_itself(self) -> None:
        """A body of exactly the limit is accepted."""
        assert decode(ChunkedDecoder(3), b"3\r\nabc\r\n0\r\n\r\n", []) == (b"abc", b"")

    def test_limits_a_size_line(self) -> None:
        """A size line without an end is refused, not collected."""
        with pytest.raises(FramingError):
            ChunkedDecoder(100).feed(b"1;" + b"x" * MAX_CHUNK_LINE_BYTES, 0)

    def test_limits_all_extensions(self) -> None:
        """Extensions that are more than the traffic is worth are refused."""
        chunk = b"1;" + b"x" * 1000 + b"\r\n.\r\n"
        fault, _ = decode(ChunkedDecoder(100), chunk * (MAX_CHUNK_EXTENSIONS_BYTES // 1000 + 1), [])
        assert fault == (FramingError, "The chunked body has too many extensions")

    @pytest.mark.parametrize("line", [b"x: " + b"y" * 500 + b"\r\n", b"x:\r\n", b"x" * 500])
    def test_limits_trailers(self, line: bytes) -> None:
        """Trailers without an end are refused."""
        fault, _ = decode(ChunkedDecoder(100), b"0\r\n" + line * (MAX_TRAILER_BYTES // len(line) + 1), [])
        assert isinstance(fault, tuple)
        assert fault[0] is FramingError

    def test_pauses(self) -> None:
        """A segment of many small chunks is decoded in several steps."""
        data = b"1\r\na\r\n" * 1000 + b"0\r\n\r\nnext"
        decoder, used, steps = ChunkedDecoder(1000), 0, 0
        while steps == 0 or decoder.paused:
            before, used = used, decoder.feed(data, used)
            assert used - before <= 6 * MAX_LINES_AT_ONCE
            steps += 1
        assert decoder.complete
        assert decoder.body() == b"a" * 1000
        assert data[used:] == b"next"
        assert steps == 2000 // MAX_LINES_AT_ONCE + 1

    def test_asks_for_an_incomplete_line_again(self) -> None:
        """Of an incomplete line nothing is used."""
        decoder = ChunkedDecoder(100)
        assert decoder.feed(b"..1;abc", 2) == 2
        assert decoder.feed(b"1;abc\r", 0) == 0
        assert decoder.feed(b"1;abc\r\nx", 0) == 8

    @given(
        st.lists(st.binary(min_size=1, max_size=30), max_size=5),
        st.sampled_from([b"", b";ext", b" ; a=b"]),
        st.sampled_from([b"", b"T: v\r\n", b"A: 1\r\nB: 2\r\n"]),
        st.lists(st.integers(0, 300), max_size=8),
    )
    def test_any_cut_gives_the_same_body(
        self, chunks: list[bytes], extension: bytes, trailers: bytes, cuts: list[int]
    ) -> None:
        """The body doesn't depend on how it was cut into segments."""
        coded = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
        data = coded + b"0\r\n" + trailers + b"\r\nNEXT"
        assert decode(ChunkedDecoder(1000), data, cuts) == (b"".join(chunks), b"NEXT")

    @given(
        st.lists(
            st.sampled_from(
                [b"5", b"\r\n", b"\r", b"\n", b"hello", b"0", b";", b" ", b"x: y", b"zz", b"ffff", b"\x00"]
            ),
            max_size=12,
        ),
        st.lists(st.integers(0, 60), max_size=8),
    )
    def test_any_cut_gives_the_same_fault(self, parts: list[bytes], cuts: list[int]) -> None:
        """Whatever the bytes are, the verdict doesn't depend on how they were cut."""
        data = b"5\r\nhello\r\n" + b"".join(parts)
        assert decode(ChunkedDecoder(20), data, cuts) == decode(ChunkedDecoder(20), data, [])
        every = list(range(len(data)))
        assert decode(ChunkedDecoder(20), data, every) == decode(ChunkedDecoder(20), data, [])
