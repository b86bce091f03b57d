"""Streams as rows of an SQLite database: the catalog of the file modes and the shards of ``acid`` share this form.

A stream is one row of ``streams`` and one row of ``producers`` for each of its producers. The number of its forks
isn't stored: it follows from the forks' own rows. ``noted`` is for ``acid`` (see ``acid.shard``), and 0 in a catalog.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import orjson
from attrs import frozen

from dstreams.model.changes import ForkPoint, StreamConfig
from dstreams.model.state import StreamState
from dstreams.protocol.producers import Producer
from dstreams.storage.records import config_members, members_config

SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, config TEXT NOT NULL, tail INTEGER NOT NULL,
    messages INTEGER NOT NULL, closed INTEGER NOT NULL, closed_by TEXT, stream_seq BLOB,
    soft_deleted INTEGER NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL, touched_at REAL NOT NULL,
    noted INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS producers (
    stream_id INTEGER NOT NULL, producer TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (stream_id, producer)
) WITHOUT ROWID;
"""

_INSERT = f"INSERT OR REPLACE INTO streams VALUES ({','.join('?' * 13)})"  # noqa: S608 (only question marks)
_UPDATE = (
    "UPDATE streams SET tail = ?, messages = ?, closed = ?, closed_by = ?, stream_seq = ?, soft_deleted = ?,"
    " updated_at = ?, touched_at = ?, noted = ? WHERE id = ?"
)


class Connection(Protocol):
    """The part of a database connection that is used: sqlite3's, or apsw's in tests."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...

    def close(self) -> None: ...


Connect = Callable[[str], Connection]


def connect(path: str) -> Connection:
    """Open a database for one writer that is nobody else's and may live in any thread, one at a time."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


@frozen
class StreamRow:
    """One stream as it is stored.

    :param producers: the producers to store; those stored earlier stay.
    """

    values: tuple[Any, ...]
    producers: Sequence[tuple[int, str, int, int]]


def row(state: StreamState, producers: Iterable[str]) -> StreamRow:
    """A stream's state as a row.

    :param producers: the ids of the producers that have changed since they were stored.
    """
    tail, messages, closed, closed_by, stream_seq, soft_deleted, updated_at, touched_at = _changing(state)
    return StreamRow(
        (
            state.id,
            state.name,
            orjson.dumps(config_members(state.config, state.fork)).decode(),
            tail,
            messages,
            closed,
            closed_by,
            stream_seq,
            soft_deleted,
            state.created_at,
            updated_at,
            touched_at,
        ),
        producer_rows(state, producers),
    )


def changed(state: StreamState) -> tuple[Any, ...]:
    """What :func:`update` writes of a stream that is stored already: all that can change in its life."""
    return (*_changing(state), state.id)


def producer_rows(state: StreamState, producers: Iterable[str]) -> list[tuple[int, str, int, int]]:
    """Some of a stream's producers as rows; unknown ones are left out."""
    known = state.producers or {}
    return [(state.id, producer_id, *known[producer_id]) for producer_id in producers if producer_id in known]


def create_tables(database: Connection) -> None:
    """Make the tables, unless they are there."""
    for statement in SCHEMA.split(";"):
        database.execute(statement)


def store(database: Connection, rows: Sequence[StreamRow], noted: int = 0) -> None:
    """Add or replace streams."""
    database.executemany(_INSERT, [(*each.values, noted) for each in rows])
    store_producers(database, [values for each in rows for values in each.producers])


def store_producers(database: Connection, producers: Sequence[tuple[int, str, int, int]]) -> None:
    """Add or replace producers."""
    if producers:
        database.executemany("INSERT OR REPLACE INTO producers VALUES (?,?,?,?)", producers)


def update(database: Connection, rows: Iterable[tuple[Any, ...]], noted: int = 0) -> None:
    """Write what has changed of streams that are there; see :func:`changed`."""
    database.executemany(_UPDATE, [(*changes, noted, stream_id) for *changes, stream_id in rows])


def remove(database: Connection, stream_ids: Sequence[int]) -> None:
    """Remove streams and their producers; before the rows of others that have their names."""
    ids = [(stream_id,) for stream_id in stream_ids]
    database.executemany("DELETE FROM streams WHERE id = ?", ids)
    database.executemany("DELETE FROM producers WHERE stream_id = ?", ids)


def count(database: Connection) -> int:
    """How many streams there are."""
    return int(database.execute("SELECT count(*) FROM streams").fetchone()[0])


def load(database: Connection) -> Iterator[StreamState]:
    """Every stream's state, in the order of the ids, without fork counts."""
    producers = database.execute("SELECT stream_id, producer, epoch, seq FROM producers ORDER BY stream_id")
    waiting = next(producers, None)
    for values in database.execute(
        "SELECT id, name, config, tail, messages, closed, closed_by, stream_seq, soft_deleted, created_at,"
        " updated_at, touched_at FROM streams ORDER BY id"
    ):
        state = _state(values)
        while waiting is not None and waiting[0] <= state.id:
            if waiting[0] == state.id:
                state.producers = state.producers or {}
                state.producers[waiting[1]] = (waiting[2], waiting[3])
            waiting = next(producers, None)
        yield state


def _changing(state: StreamState) -> tuple[Any, ...]:
    closed_by = state.closed_by
    return (
        state.tail,
        state.messages,
        state.closed,
        None if closed_by is None else orjson.dumps([closed_by.id, closed_by.epoch, closed_by.seq]).decode(),
        state.stream_seq,
        state.soft_deleted,
        state.updated_at,
        state.touched_at,
    )


@lru_cache(maxsize=1024)
def _config(text: str) -> tuple[StreamConfig, ForkPoint | None]:
    """A stream's configuration. Most of many streams have the same: read once, and one object for all of them."""
    return members_config(orjson.loads(text))


def _state(values: tuple[Any, ...]) -> StreamState:
    config, fork = _config(values[2])
    return StreamState(
        id=values[0],
        name=values[1],
        config=config,
        fork=fork,
        start=0 if fork is None else fork.position,
        tail=values[3],
        messages=values[4],
        closed=bool(values[5]),
        closed_by=None if values[6] is None else Producer(*orjson.loads(values[6])),
        stream_seq=values[7],
        soft_deleted=bool(values[8]),
        created_at=values[9],
        updated_at=values[10],
        touched_at=values[11],
    )
