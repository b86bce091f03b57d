"""The client of large reads: what it makes of answers, however they are cut."""

from __future__ import annotations

import pytest

from bench.reading import AnswerReader
from bench.workload import LoadFailure

_HEAD = b"HTTP/1.1 200 OK\r\nStream-Next-Offset: 0_7\r\nStream-Up-To-Date: true\r\n"
PLAIN = _HEAD + b"Content-Length: 7\r\n\r\nabcdefg"
CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
EMPTY = _HEAD + b"Content-Length: 0\r\n\r\n"
PARTIAL = b"HTTP/1.1 200 OK\r\nstream-next-offset: 0_7\r\ncontent-length: 7\r\n\r\nabcdefg"


def _feed(reader: AnswerReader, data: bytes) -> bool:
    return reader.feed(memoryview(bytearray(data)))


class AnswerReaderTests:
    @pytest.mark.parametrize("answer", [PLAIN, CHUNKED], ids=["plain", "chunked"])
    def test_cut_anywhere(self, answer: bytes) -> None:
        """An answer in two parts, wherever it is cut, is complete at its end and not before."""
        for cut in range(1, len(answer)):
            reader = AnswerReader()
            assert not _feed(reader, answer[:cut]), cut
            assert _feed(reader, answer[cut:]), cut
            assert (reader.body_bytes, reader.next_offset, reader.up_to_date) == (7, b"0_7", True)

    @pytest.mark.parametrize("answer", [PLAIN, CHUNKED], ids=["plain", "chunked"])
    def test_byte_by_byte(self, answer: bytes) -> None:
        """The same, byte by byte, and again on the same connection."""
        reader = AnswerReader()
        for _ in range(2):
            complete = [_feed(reader, answer[index : index + 1]) for index in range(len(answer))]
            assert complete == [False] * (len(answer) - 1) + [True]
            assert reader.body_bytes == 7

    def test_empty(self) -> None:
        """An answer without a body is complete with its head."""
        reader = AnswerReader()
        assert _feed(reader, EMPTY)
        assert reader.body_bytes == 0

    def test_goes_on(self) -> None:
        """An answer that isn't up to date says where to go on."""
        reader = AnswerReader()
        assert _feed(reader, PARTIAL)
        assert (reader.next_offset, reader.up_to_date) == (b"0_7", False)

    def test_refused(self) -> None:
        """Anything but 200 voids the run."""
        with pytest.raises(LoadFailure, match="429 Too Many"):
            _feed(AnswerReader(), b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")

    def test_too_long(self) -> None:
        """Bytes behind the announced end void the run."""
        with pytest.raises(LoadFailure, match="longer"):
            _feed(AnswerReader(), PLAIN + b"h")

    def test_no_offset(self) -> None:
        """An answer that doesn't say where it ends voids the run."""
        with pytest.raises(LoadFailure, match="no Stream-Next-Offset"):
            _feed(AnswerReader(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
