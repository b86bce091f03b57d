"""Large answers: what is read and written, and what the kernel sends from a file."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.operations import slices
from dstreams.http.operations.slices import SliceBody
from dstreams.model.changes import StreamConfig
from dstreams.protocol.content_types import DEFAULT
from dstreams.storage.interface import FileRange, StorageError
from dstreams.streams.reading import Piece, Slice
from tests.support.engine import FakeSink

PIECE, FILE, COPIED = 40, 70, 20


@define(eq=False)
class Stored:
    """Bytes of which the first lie in a file and the others in memory (a ``ByteSource``).

    :param begin: the position of the first byte.
    :param filed: how many lie in the file.
    :param cold: the positions that aren't in the page cache.
    :param missing: how many bytes the file lacks at its end.
    """

    begin: int
    data: bytes
    filed: int
    cold: frozenset[int] = frozenset()
    missing: int = 0

    def fileno(self) -> int:
        return 77

    def read(self, start: int, end: int) -> bytes:
        if self.missing and end - self.begin > self.filed - self.missing:
            raise StorageError("the file is too short")
        return self.data[start - self.begin : end - self.begin]

    def in_file(self, start: int, end: int) -> FileRange | None:
        offset, size = start - self.begin, min(end - self.begin, self.filed) - (start - self.begin)
        return None if size <= 0 or start in self.cold else FileRange(self, offset, size)

    def floor(self, position: int) -> int:
        raise NotImplementedError

    def extent(self, start: int, limit: int) -> int:
        raise NotImplementedError

    def append_ends(self, position: int) -> Sequence[int]:
        raise NotImplementedError

    def entries(self, position: int, most: int) -> Sequence[int]:
        raise NotImplementedError


@define(eq=False)
class SendingSink(FakeSink):
    """A connection that sends files.

    :param takes: how much it takes of each part that it is asked to send; of all later ones all.
    """

    takes: list[int] = field(factory=list)
    sends_files = True  # type: ignore[assignment]
    sent: int = 0

    def send_file(self, part: FileRange) -> int:
        stored = part.file
        assert isinstance(stored, Stored)
        assert 0 < part.size <= FILE
        size = min(part.size, self.takes.pop(0) if self.takes else part.size)
        data = stored.data[part.offset : min(part.offset + size, stored.filed - stored.missing)]
        if data:
            self.writes.append(data)
        self.sent += len(data)
        return len(data)


def answer(*parts: Stored, is_json: bool = False) -> SliceBody:
    pieces = tuple(Piece(each, each.begin, each.begin + len(each.data)) for each in parts)
    found = Slice(1, StreamConfig(DEFAULT), pieces[0].begin, pieces[-1].end, True, False, pieces)
    first = found.read(found.start, min(found.end, found.start + PIECE))
    assert isinstance(first, bytes)
    return SliceBody(found, is_json, first)


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> object:
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("PIECE_BYTES", PIECE), ("FILE_BYTES", FILE), ("COPIED_BYTES", COPIED)):
            patch.setattr(slices, name, size)
        yield


class SentFromFileTests:
    @given(
        st.lists(st.tuples(st.integers(1, 300), st.integers(0, 300)), min_size=1, max_size=3),
        st.frozensets(st.integers(0, 900)),
        st.lists(st.integers(0, FILE), max_size=12),
        st.booleans(),
    )
    def test_the_answer_is_the_same(
        self, sizes: list[tuple[int, int]], cold: frozenset[int], takes: list[int], is_json: bool
    ) -> None:
        """It doesn't depend on where bytes lie, which pages are there, and how much the client takes at a time."""
        parts: list[Stored] = []
        position = 7
        for size, filed in sizes:
            data = bytes((position + number) % 251 for number in range(size))
            parts.append(Stored(position, data, min(size, filed), cold))
            position += size
        stored = b"".join(part.data for part in parts)
        sink = SendingSink(room=1, takes=takes)
        body = answer(*parts, is_json=is_json)
        body.start(sink)
        while not sink.finished:
            assert not sink.aborted
            sink.room = 1
            body.resume()
        assert sink.data == (b"[" + stored[:-1] + b"]" if is_json else stored)
        assert len(sink.data) == body.length

    def test_most_is_sent_from_the_file(self) -> None:
        """All but the first piece, a last one, and one for each time that the client is full."""
        sink = SendingSink(takes=[FILE, 30, 0])
        answer(Stored(0, bytes(1000), 1000)).start(sink)
        assert sink.finished
        assert sink.sent == 1000 - PIECE - 2 * COPIED

    def test_connection_that_sends_no_files(self) -> None:
        """It gets everything in pieces of the usual size."""
        sink = FakeSink()
        answer(Stored(0, bytes(1000), 1000)).start(sink)
        assert list(map(len, sink.writes)) == [PIECE] * 25

    def test_memory_comes_in_large_pieces(self) -> None:
        """Where nothing lies in a file, the connection's ability changes nothing."""
        sink = SendingSink()
        answer(Stored(0, bytes(1000), 0)).start(sink)
        assert list(map(len, sink.writes)) == [PIECE] * 25

    def test_file_that_is_too_short(self) -> None:
        """The answer is broken off: a file that ends too soon isn't mistaken for a full connection."""
        sink = SendingSink()
        answer(Stored(0, bytes(1000), 1000, missing=500)).start(sink)
        assert sink.aborted
        assert not sink.finished

    def test_client_that_has_gone(self) -> None:
        """Nothing is sent to it any more."""
        sink = SendingSink(room=1)
        body = answer(Stored(0, bytes(1000), 1000))
        body.start(sink)
        body.stop()
        body.resume()
        assert len(sink.data) == PIECE
