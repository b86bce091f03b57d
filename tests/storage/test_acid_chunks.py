"""Chunks: whatever is appended, in whatever portions, is read back the same, and so are the message ends."""

from __future__ import annotations

import sqlite3
import sys
import tracemalloc
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.model.changes import Append
from dstreams.model.ends import ManyEnds
from dstreams.storage import index
from dstreams.storage.acid import chunks
from dstreams.storage.acid.chunks import CHUNK_BYTES, MERGE_BYTES, MERGE_ROWS, Addition, OpenRun, Placement, place
from dstreams.storage.interface import StorageError
from dstreams.storage.memory import MemoryStream

STREAM = 7


class Table:
    """A table of chunks, written as a shard writes it, and the same bytes in memory."""

    def __init__(self, start: int = 0) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.executescript(chunks.SCHEMA)
        self.model = MemoryStream(start)
        self.start = self.tail = start
        self.messages = 0
        self.run = OpenRun(start, 0, 0)
        self.written = 0
        # Neighbours, so that a query that looks too far finds something.
        for other in (STREAM - 1, STREAM + 1):
            self.insert(rows_of(place(other, OpenRun(0, 0, 0), nothing, addition(0, 0, b"other"))))

    def insert(self, rows: Sequence[chunks.Row]) -> None:
        self.database.executemany("INSERT INTO chunks VALUES (NULL,?,?,?,?,?,?,?)", rows)

    def append(self, *messages: bytes, forget_run: bool = False, many: bool = False) -> None:
        """A group that appends these messages at once; ``many``: as if they were very many, after another append."""
        if forget_run:
            self.run = OpenRun(self.tail, self.messages, 0)
        new = addition(self.tail, self.messages, *messages, many=many)
        ends: list[int] = []
        begin = self.tail
        for entry in new.entries:
            ends.append(entry >> 1)
            if entry & index.APPEND_END:
                self.model.append(new.data[begin - self.tail : ends[-1] - self.tail], tuple(ends))
                begin, ends = ends[-1], []
        placed = place(STREAM, self.run, self._earlier(self.run.start, self.tail), new)
        if placed.replaced_from is not None:
            self.database.execute(
                "DELETE FROM chunks WHERE stream_id = ? AND start >= ?", (STREAM, placed.replaced_from)
            )
        rows = rows_of(placed)
        self.insert(rows)
        self.written += sum(len(row[4]) for row in rows)
        self.run, self.tail, self.messages = placed.run, self.tail + len(new.data), self.messages + len(messages)

    def _earlier(self, start: int, tail: int) -> chunks.Earlier:
        def earlier() -> tuple[bytes, array[int]]:
            entries = array("Q", [e for e in self.model._entries if start < e >> 1 <= tail])
            return self.model.read(start, tail), entries

        return earlier

    def rows(self) -> list[chunks.Row]:
        return [row for row in chunks.every(self.database) if row[0] == STREAM]

    def check(self, positions: range | list[int]) -> None:
        """Compare every answer at these positions with memory's."""
        ask, model = self.database, self.model
        for position in positions:
            assert chunks.floor(ask, STREAM, position) == model.floor(position)
            if position < self.tail:
                assert chunks.append_ends(ask, STREAM, position) == list(model.append_ends(position))
                for limit in (1, 5, 100, MERGE_BYTES, CHUNK_BYTES + 1, 4 * CHUNK_BYTES):
                    assert chunks.extent(ask, STREAM, position, limit) == model.extent(position, limit)
                    end = min(self.tail, position + limit)
                    assert chunks.read(ask, STREAM, position, end) == model.read(position, end)

    def check_invariants(self) -> None:
        """C1, C2 and C3."""
        reached, messages = self.start, 0
        for row in self.rows():
            assert chunks.damage(row) is None
            assert row[1] == reached
            assert row[5] == messages
            messages += len(row[3]) // 8
            assert row[4]
            assert len(row[4]) <= CHUNK_BYTES
            reached += len(row[4])
            ends = [entry >> 1 for entry in index.unpacked(row[3])]
            assert ends == sorted(set(ends))
            assert all(row[1] < end <= reached for end in ends)
        assert reached == self.tail


def addition(start: int, number: int, *messages: bytes, many: bool = False) -> Addition:
    """Messages that a group appends at once; ``many``: the first alone, and the others with ends as very many have."""
    made, end = Addition(start, number), start
    for some in (messages[:1], messages[1:]) if many else (messages,):
        ends: Sequence[int] = tuple(end := end + len(message) for message in some)
        if many and some is not messages[:1]:
            ends = ManyEnds.of_lengths(start, array("I", map(len, some)))
        if some:
            made.add(Append(STREAM, start, b"".join(some), ends, None, None, False, 1.0))
        start = end
    return made


def rows_of(placed: Placement) -> list[chunks.Row]:
    """The chunks of a placement; what is cut later is as much as was said."""
    large = placed.large
    if large is None:
        return list(placed.rows)
    assert placed.rows == []
    rows = list(large.rows())
    assert len(rows) == large.count
    assert sum(len(row[3]) + len(row[4]) for row in rows) == large.stored_bytes
    return rows


def nothing() -> tuple[bytes, array[int]]:
    """An open run without rows."""
    raise AssertionError("asked for a run that has no rows")


def numbered(sizes: list[int]) -> Iterator[bytes]:
    """Messages of these sizes, no two positions alike."""
    position = 0
    for size in sizes:
        yield bytes((position + i) * 31 % 251 for i in range(size))
        position += size


class PlacementTests:
    @given(
        st.integers(0, 50),
        st.lists(st.tuples(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.booleans()), max_size=90),
    )
    def test_small_appends(self, start: int, groups: list[tuple[list[int], bool]]) -> None:
        """Small appends read back the same at every position, merged or not, in memory meanwhile or not."""
        table = Table(start)
        for sizes, forget_run in groups:
            table.append(*numbered(sizes), forget_run=forget_run)
        table.check_invariants()
        table.check(range(start + 1, table.tail + 1, 7))

    @given(
        st.integers(0, 50),
        st.lists(
            st.tuples(
                st.lists(st.sampled_from([1, 3, 40, 9_000, CHUNK_BYTES]), min_size=1, max_size=12), st.booleans()
            ),
            max_size=8,
        ),
    )
    def test_appends_of_many_messages(self, start: int, groups: list[tuple[list[int], bool]]) -> None:
        """Appends whose ends are kept without an object for each, between others, read back the same."""
        table = Table(start)
        for sizes, many in groups:
            table.append(*numbered(sizes), many=many)
        table.check_invariants()
        table.check(range(start + 1, table.tail + 1, 9_001))

    def test_millions_of_messages_cost_the_reactor_nothing(self) -> None:
        """Planning a very large append does nothing for each of its messages, and copies none of its bytes."""
        count = 1_000_000
        new = Addition(5, 1)
        append = Append(STREAM, 5, b"1," * count, ManyEnds.of_lengths(5, array("I", [2]) * count), None, None, False, 1)
        lines = 0

        def trace(*_: object) -> Any:
            nonlocal lines
            lines += 1
            return trace

        tracemalloc.start()
        sys.settrace(trace)
        try:
            new.add(append)
            placed = place(STREAM, OpenRun(0, 0, 1), lambda: (b"12345", array("Q", [11])), new)
        finally:
            sys.settrace(None)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert lines < 300
        assert peak < 100_000
        rows = rows_of(placed)
        assert b"".join(row[4] for row in rows) == b"12345" + append.data
        entries = array("Q", b"".join(row[3] for row in rows))
        assert entries[:3] == array("Q", [11, 14, 18])
        assert (len(entries), entries[-1]) == (count + 1, (5 + 2 * count) << 1 | 1)
        is_open = len(rows[-1][4]) < MERGE_BYTES
        expected = (rows[-1][1], rows[-1][5], 1) if is_open else (5 + 2 * count, count + 1, 0)
        assert (placed.run.start, placed.run.number, placed.run.rows) == expected

    @given(
        st.lists(
            st.lists(
                st.sampled_from(
                    [
                        1,
                        9,
                        500,
                        MERGE_BYTES - 1,
                        MERGE_BYTES,
                        CHUNK_BYTES - 1,
                        CHUNK_BYTES,
                        3 * CHUNK_BYTES + 5,
                    ]
                ),
                min_size=1,
                max_size=3,
            ),
            min_size=1,
            max_size=6,
        )
    )
    def test_appends_of_all_sizes(self, groups: list[list[int]]) -> None:
        """Messages around and beyond the limits of a chunk read back the same at and beside every edge."""
        table = Table()
        edges = {1}
        for sizes in groups:
            table.append(*(b"%d" % (size % 10) * size for size in sizes))
            edges.update(table.tail + offset for offset in (-1, 0, 1))
        table.check_invariants()
        edges.update(row[1] + offset for row in table.rows() for offset in (-1, 0, 1))
        table.check(sorted(edge for edge in edges if 0 < edge <= table.tail))

    def test_many_one_byte_appends_become_few_chunks(self) -> None:
        """A long stream of tiny appends has chunks of the merging size, and each byte is written a few times."""
        table = Table()
        for _ in range(MERGE_BYTES + 500):
            table.append(b"x")
        table.check_invariants()
        rows = table.rows()
        assert len(rows) <= 2 + MERGE_ROWS
        assert len(rows[0][4]) >= MERGE_BYTES
        # A byte is written alone, and again with each merge of its run: every MERGE_ROWS - 1 appends.
        assert table.written <= table.tail * (2 + MERGE_BYTES / (MERGE_ROWS - 1))

    def test_large_appends_are_written_once(self) -> None:
        """An append of the merging size or more is written as it comes."""
        table = Table()
        for _ in range(5):
            table.append(b"y" * MERGE_BYTES)
        assert table.written == table.tail
        assert [len(row[4]) for row in table.rows()] == [MERGE_BYTES] * 5


class DamageTests:
    @pytest.fixture
    def table(self) -> Table:
        """A stream of four chunks."""
        table = Table()
        for letter in b"abcd":
            table.append(bytes([letter]) * MERGE_BYTES)
        return table

    @pytest.mark.parametrize("column", ["data", "entries", "checksum"])
    def test_a_changed_chunk_is_noticed(self, table: Table, column: str) -> None:
        """No query gives an answer from a chunk whose checksum is wrong."""
        value = {"data": b"z" * MERGE_BYTES, "entries": b"\x01" * 8, "checksum": 1}[column]
        table.database.execute(f"UPDATE chunks SET {column} = ? WHERE start = ?", (value, MERGE_BYTES))
        for query, arguments in (
            (chunks.read, (MERGE_BYTES + 5, MERGE_BYTES + 6)),
            (chunks.floor, (2 * MERGE_BYTES,)),
            (chunks.extent, (MERGE_BYTES, MERGE_BYTES)),
            (chunks.append_ends, (MERGE_BYTES,)),
        ):
            with pytest.raises(StorageError, match="checksum is wrong"):
                query(table.database, STREAM, *arguments)  # type: ignore[operator]

    def test_a_chunk_in_another_place_is_noticed(self, table: Table) -> None:
        """The checksum covers where a chunk belongs."""
        table.database.execute("DELETE FROM chunks WHERE start = 0 AND stream_id = ?", (STREAM,))
        table.database.execute("UPDATE chunks SET start = 0 WHERE start = ?", (MERGE_BYTES,))
        with pytest.raises(StorageError, match="checksum is wrong"):
            chunks.read(table.database, STREAM, 0, 10)

    @pytest.mark.parametrize("missing", [0, MERGE_BYTES, 3 * MERGE_BYTES])
    def test_a_missing_chunk_is_noticed(self, table: Table, missing: int) -> None:
        """A read over a gap fails; it never gives the bytes around it."""
        table.database.execute("DELETE FROM chunks WHERE start = ? AND stream_id = ?", (missing, STREAM))
        with pytest.raises(StorageError, match="chunks of stream 7 end at"):
            chunks.read(table.database, STREAM, missing + 3, 4 * MERGE_BYTES)
        with pytest.raises(StorageError):
            chunks.read(table.database, STREAM, 0, 4 * MERGE_BYTES)

    def test_no_message_after_the_position(self, table: Table) -> None:
        """Asked for a message beyond the last, it doesn't take another stream's."""
        with pytest.raises(StorageError, match="no message"):
            chunks.extent(table.database, STREAM, 4 * MERGE_BYTES, 10)
