"""Large events, written piece by piece: the reader gets the same as from one that is written at once."""

from __future__ import annotations

import base64

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstreams.protocol.charsets import decoding_table
from dstreams.protocol.json_mode import split_messages
from dstreams.protocol.sse import LINE_BYTES, SseEncoding, data_event, end_of_event
from dstreams.protocol.sse_pieces import event_writer
from tests.protocol.test_sse import TOKEN, read_events

awkward = st.binary() | st.lists(
    st.sampled_from([b"\r", b"\n", b" ", b"a", "é€😀".encode(), b"\xe2\x82", b"\xff"])
).map(b"".join)
cuts = st.lists(st.integers(1, 5), min_size=1, max_size=5)


def write(data: bytes, encoding: SseEncoding, sizes: list[int], *, complete: bool = True) -> tuple[bytes, int]:
    """Write one event from pieces of these sizes, repeated; and how many bytes were held back."""
    writer = event_writer(encoding)
    written, at, turn = writer.begin(), 0, 0
    while at < len(data):
        piece = data[at : at + sizes[turn % len(sizes)]]
        written += writer.write(piece)
        at, turn = at + len(piece), turn + 1
    written += writer.end(complete) + end_of_event(TOKEN)
    return written, writer.held_back


class TextTests:
    """Text in pieces."""

    @given(awkward, cuts)
    @example(b"a\r\n b", [1])
    @example(b" \n  \r \r\n ", [1, 2])
    @example("€".encode(), [2])
    def test_same_as_whole(self, data: bytes, sizes: list[int]) -> None:
        """However the bytes are divided, the event is the same as one that is written at once."""
        event, held_back = write(data, SseEncoding.TEXT, sizes)
        assert event == data_event(data, SseEncoding.TEXT, TOKEN)
        assert held_back == 0
        event.decode("utf-8")

    @given(awkward, cuts)
    def test_unfinished_end(self, data: bytes, sizes: list[int]) -> None:
        """What may be completed by what follows is left for the next event."""
        event, held_back = write(data, SseEncoding.TEXT, sizes, complete=False)
        assert held_back <= 3
        assert event == data_event(data[: len(data) - held_back], SseEncoding.TEXT, TOKEN)
        assert held_back == 0 or data.endswith(b"\r") or data[-1] >= 0x80

    @given(st.binary(), cuts, st.sampled_from(["latin-1", "windows-1252", "cp037", "koi8-r"]))
    @example(b"a\r\n b", [1], "latin-1")
    @example("a\r\n b\r".encode("cp037"), [1, 2], "cp037")
    def test_single_byte_charsets(self, data: bytes, sizes: list[int], charset: str) -> None:
        """Text in another charset is decoded as in an event that is written at once, line ends included."""
        table = decoding_table(charset)
        assert table is not None
        writer = event_writer(SseEncoding.TEXT, table)
        written, at, turn = writer.begin(), 0, 0
        while at < len(data):
            piece = data[at : at + sizes[turn % len(sizes)]]
            written += writer.write(piece)
            at, turn = at + len(piece), turn + 1
        assert written + writer.end(True) + end_of_event(TOKEN) == data_event(data, SseEncoding.TEXT, TOKEN, table)


class JsonTests:
    """JSON in pieces."""

    @given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), cuts)
    def test_round_trip(self, value: object, sizes: list[int]) -> None:
        """A message has its lines between those of the array's brackets; the lines together are JSON."""
        stored, _ = split_messages(orjson.dumps([value], option=orjson.OPT_INDENT_2).replace(b"\n", b"\r\n"))
        event, held_back = write(stored[:-1], SseEncoding.JSON, sizes)
        assert event.startswith(b"event: data\ndata:[\ndata:")
        assert event.endswith(b"\ndata:]\nid:%b\n\n" % TOKEN)
        assert held_back == 0
        [(kind, text)] = read_events(event)
        assert (kind, orjson.loads(text)) == ("data", [value])


class Base64Tests:
    """Bytes in pieces."""

    @given(st.binary(min_size=1), cuts)
    def test_same_as_whole(self, data: bytes, sizes: list[int]) -> None:
        """However the bytes are divided, the event is the same as one that is written at once."""
        event, held_back = write(data, SseEncoding.BASE64, sizes)
        assert event == data_event(data, SseEncoding.BASE64, TOKEN)
        assert held_back == 0

    @pytest.mark.parametrize("size", [LINE_BYTES // 4 * 3 + more for more in (-1, 0, 1)] + [LINE_BYTES * 5 // 2])
    @pytest.mark.parametrize("piece", [1000, 10**6])
    def test_lines(self, size: int, piece: int) -> None:
        """A line has at most 32 KiB, and whole groups of four characters: each can be decoded for itself."""
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        event, _ = write(data, SseEncoding.BASE64, [piece])
        assert event == data_event(data, SseEncoding.BASE64, TOKEN)
        lines = [line.removeprefix(b"data:") for line in event.split(b"\n") if line.startswith(b"data:")]
        assert len(lines) == -(-size // (LINE_BYTES // 4 * 3))
        assert max(map(len, lines)) <= LINE_BYTES
        assert b"".join(base64.b64decode(line, validate=True) for line in lines) == data
