"""Streams as rows, and the checksums that prove the rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.model.changes import ForkPoint, StreamConfig
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import parse_content_type
from dstreams.protocol.producers import Producer, pack
from dstreams.storage import stream_rows
from dstreams.storage.interface import StorageError
from dstreams.storage.stream_rows import COLUMNS, Connection, connect, stream_crc

PLAIN = StreamConfig(parse_content_type(b"text/plain"))


def state(stream_id: int = 1, **members: Any) -> StreamState:
    """A stream that has something in every column."""
    return StreamState(
        **{
            "id": stream_id, "name": "a/b", "config": PLAIN, "fork": None, "start": 0, "tail": 20, "messages": 2,
            "created_at": 1.5, "updated_at": 2.5, "touched_at": 3.5, "closed": True,
            "closed_by": Producer("p", 1, 2), "stream_seq": b"0007", "producers": {"p": pack(1, 2), "q": 0},
        } | members
    )  # fmt: skip


def stored(*states: StreamState) -> Connection:
    """A database that holds streams."""
    database = connect(":memory:")
    stream_rows.create_tables(database)
    stream_rows.store(database, [stream_rows.row(each, each.producers or ()) for each in states], 5)
    return database


def members(found: StreamState) -> dict[str, Any]:
    """A state's members."""
    return {name: getattr(found, name) for name in StreamState.__slots__ if not name.startswith("__")}


class LoadTests:
    def test_all_of_it(self) -> None:
        """What was stored is loaded."""
        states = [
            state(),
            state(2, name="c", closed=False, closed_by=None, stream_seq=None, producers=None),
            state(3, name="é\x00", fork=ForkPoint(1, "a/b", 7, None, 0, True), start=7),
            state(4, name="", stream_seq=b"", closed_by=None, tail=2**62),
        ]
        found = list(stream_rows.load(stored(*states), "here"))
        assert [members(each) for each in found] == [members(each) for each in states]

    @pytest.mark.parametrize("column", [*COLUMNS, "crc"])
    def test_damaged_stream(self, column: str) -> None:
        """A row of which any column has another value is refused, and named."""
        database = stored(state(), state(2, name="other", producers=None))
        value = database.execute(f"SELECT {column} FROM streams WHERE id = 1").fetchone()[0]
        other = (
            value[:-1] + (b"!" if isinstance(value, bytes) else "!") if isinstance(value, bytes | str) else value + 7
        )
        database.execute(f"UPDATE streams SET {column} = ? WHERE id = 1", (other,))
        with pytest.raises(StorageError, match=r"here: the row of stream \d \(.*\) is damaged: its checksum is wrong"):
            list(stream_rows.load(database, "here"))

    @pytest.mark.parametrize("value", ["x", b"x", 1.5, None])
    @pytest.mark.parametrize("column", [each for each in COLUMNS if each != "id"])
    def test_other_type(self, column: str, value: Any) -> None:
        """So is one that holds what no column of a stream holds."""
        database = stored(state(updated_at=9.25))
        kept = database.execute(f"SELECT {column} FROM streams").fetchone()[0]
        database.execute("PRAGMA ignore_check_constraints = ON")
        try:
            database.execute(f"UPDATE streams SET {column} = ?", (value,))
        except sqlite3.IntegrityError:
            return
        if database.execute(f"SELECT {column} FROM streams").fetchone()[0] == kept:
            return
        with pytest.raises(StorageError, match=r"here: the row of stream 1 \(.*\) is damaged"):
            list(stream_rows.load(database, "here"))

    @pytest.mark.parametrize(
        "change", ["producer = 'r'", "epoch = 3", "seq = 3", "crc = crc + 1", "stream_id = 2", "seq = 'x'", "seq = x''"]
    )
    def test_damaged_producer(self, change: str) -> None:
        """The same holds for the rows of producers."""
        database = stored(state(), state(2, name="other", producers=None))
        database.execute(f"UPDATE producers SET {change} WHERE producer = 'q'")
        with pytest.raises(StorageError, match=r"here: the row of producer '.' of stream \d is damaged"):
            list(stream_rows.load(database, "here"))

    @given(
        name=st.text(st.characters(exclude_categories=["Cs"])), config=st.text(st.sampled_from("ab\0")), seq=st.binary()
    )
    def test_where_a_text_ends(self, name: str, config: str, seq: bytes) -> None:
        """Rows that differ only in where one text ends and the next begins have different checksums."""
        values = (1, name, config, 2, 3, 0, "p", seq, 0, 1.0, 2.0, 3.0, 0)
        for other in (
            (1, name + config[:1], config[1:], *values[3:]),
            (1, name, config + "p", *values[3:6], "", *values[7:]),
            (*values[:6], None, b"p" + seq, *values[8:]),
            (*values[:6], "p" + seq.decode("latin-1"), None, *values[8:]),
        ):
            assert other == values or stream_crc(*other) != stream_crc(*values)


class ChangeTests:
    @pytest.mark.parametrize(
        "change",
        [
            lambda each: setattr(each, "tail", 30),
            lambda each: setattr(each, "messages", 9),
            lambda each: setattr(each, "closed", False),
            lambda each: setattr(each, "closed_by", None),
            lambda each: setattr(each, "stream_seq", None),
            lambda each: setattr(each, "soft_deleted", True),
            lambda each: setattr(each, "updated_at", 100.5),
            lambda each: setattr(each, "touched_at", 100.5),
        ],
    )
    def test_update(self, change: Callable[[StreamState], None]) -> None:
        """An update leaves rows with right checksums."""
        one = state()
        database = stored(one)
        change(one)
        stream_rows.update(database, [stream_rows.stream_values(one)], 9)
        (found,) = stream_rows.load(database, "here")
        assert members(found) == members(one)

    def test_advance(self) -> None:
        """New tails are written, but not over a row that has noted more."""
        database = stored(state(), state(2, name="b"), state(3, name="c"))
        stream_rows.advance(database, {1: (30, 3, 9.5, 6), 2: (30, 3, 9.5, 5), 4: (30, 3, 9.5, 6)}, "here")
        found = list(stream_rows.load(database, "here"))
        assert [(each.tail, each.messages, each.updated_at, each.touched_at) for each in found] == [
            (30, 3, 9.5, 9.5), (20, 2, 2.5, 3.5), (20, 2, 2.5, 3.5),
        ]  # fmt: skip

    def test_advance_of_a_damaged_row(self) -> None:
        """A damaged row isn't given a checksum that makes it right."""
        database = stored(state())
        database.execute("UPDATE streams SET name = 'x'")
        with pytest.raises(StorageError, match=r"the row of stream 1 .* is damaged"):
            stream_rows.advance(database, {1: (30, 3, 9.5, 6)}, "here")
