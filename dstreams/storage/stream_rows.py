"""Stores streams as rows of an SQLite database, in the catalog of the file modes and in the shards of ``acid``.

A stream is one row of ``streams`` and one row of ``producers`` for each of its producers. The number of its forks
is not stored, because it follows from the rows of the forks. ``noted`` is for ``acid`` (see ``acid.shard``), and 0 in a
catalog.

``crc`` is the CRC-32 of the row's other columns, because SQLite does not detect a byte that the disk has changed.
:func:`stream_crc` and :func:`producer_crc` define the bytes that it covers. Every read of a row verifies it.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, Protocol
from zlib import crc32

import orjson
from attrs import frozen

from dstreams.model.changes import ForkPoint, StreamConfig
from dstreams.model.state import StreamState
from dstreams.protocol.producers import Producer, pack, unpack
from dstreams.storage.config_json import config_members, members_config
from dstreams.storage.interface import StorageError

SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, config TEXT NOT NULL, tail INTEGER NOT NULL,
    messages INTEGER NOT NULL, closed INTEGER NOT NULL, closed_by TEXT, stream_seq BLOB,
    soft_deleted INTEGER NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL, touched_at REAL NOT NULL,
    noted INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS producers (
    stream_id INTEGER NOT NULL, producer TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (stream_id, producer)
) WITHOUT ROWID;
"""

COLUMNS: Final = (
    "id", "name", "config", "tail", "messages", "closed", "closed_by", "stream_seq", "soft_deleted", "created_at",
    "updated_at", "touched_at", "noted",
)  # fmt: skip
"""The columns that :func:`stream_crc` covers."""

_COLUMNS = ", ".join((*COLUMNS, "crc"))
_INSERT = f"INSERT OR REPLACE INTO streams ({_COLUMNS}) VALUES ({','.join('?' * 14)})"  # noqa: S608 (names of columns)
_SELECT = f"SELECT {_COLUMNS} FROM streams"  # noqa: S608 (names of columns)
_UPDATE = (
    "UPDATE streams SET tail = ?, messages = ?, closed = ?, closed_by = ?, stream_seq = ?, soft_deleted = ?,"
    " updated_at = ?, touched_at = ?, noted = ?, crc = ? WHERE id = ?"
)
_ADVANCE = "UPDATE streams SET tail = ?, messages = ?, updated_at = ?, touched_at = ?, noted = ?, crc = ? WHERE id = ?"
_SELECT_PRODUCERS = "SELECT stream_id, producer, epoch, seq, crc FROM producers ORDER BY stream_id"

_COUNT = "SELECT count(*), coalesce(sum(crc), 0) FROM "
_STREAMS_AMONG = _COUNT + "streams WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608 (the whole statement is here)
_PRODUCERS_OF = _COUNT + "producers WHERE stream_id IN (SELECT value FROM json_each(?))"  # noqa: S608
_PRODUCERS_AMONG = (
    _COUNT + "producers WHERE (stream_id, producer) IN"  # noqa: S608
    " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
)

_STREAM_FIELDS = struct.Struct("<qqqqqdddqIIII")
_PRODUCER_FIELDS = struct.Struct("<qqq")
_NULL = 0xFFFFFFFF
"""Represents the length of a column that is NULL."""


class Connection(Protocol):
    """The methods of a database connection that are used: sqlite3's, or apsw's in tests."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...

    def close(self) -> None: ...


Connect = Callable[[str], Connection]


def connect(path: str) -> Connection:
    """Open a database for a single writer, which may use it in any thread, but only in one at a time.

    A new database is accessible only to its owner, like the other files of the store. SQLite gives its WAL the same
    permissions.
    """
    if path != ":memory:":
        with suppress(OSError):  # it exists already, or SQLite will report the error
            # Must not open an existing database: closing any descriptor of it would release SQLite's locks on it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


@frozen
class StreamRow:
    """The row of one stream, and those of its producers.

    :param values: see :func:`stream_values`.
    :param producers: the producers to store. Other producers that are stored already stay.
    """

    values: tuple[Any, ...]
    producers: Sequence[tuple[int, str, int, int]]


@frozen
class Totals:
    """The number of rows in the tables, and the sum of their checksums.

    SQLite can lose rows without an error, if the disk has changed a number in the header of a page, or a pointer.
    """

    streams: int = 0
    streams_sum: int = 0
    producers: int = 0
    producers_sum: int = 0

    def replaced(self, old: Totals, new: Totals) -> Totals:
        """Return the totals after rows with the totals ``old`` were removed and rows with the totals ``new`` added."""
        return Totals(
            self.streams - old.streams + new.streams,
            self.streams_sum - old.streams_sum + new.streams_sum,
            self.producers - old.producers + new.producers,
            self.producers_sum - old.producers_sum + new.producers_sum,
        )


def row(state: StreamState, producers: Iterable[str]) -> StreamRow:
    """Convert the state of a stream to a row.

    :param producers: the ids of the producers that have changed since they were stored.
    """
    return StreamRow(stream_values(state), producer_rows(state, producers))


def stream_values(state: StreamState) -> tuple[Any, ...]:
    """Return the columns of a stream's row, without ``noted`` and ``crc``."""
    closed_by = state.closed_by
    return (
        state.id,
        state.name,
        orjson.dumps(config_members(state.config, state.fork)).decode(),
        state.tail,
        state.messages,
        state.closed,
        None if closed_by is None else orjson.dumps([closed_by.id, closed_by.epoch, closed_by.seq]).decode(),
        state.stream_seq,
        state.soft_deleted,
        state.created_at,
        state.updated_at,
        state.touched_at,
    )


def producer_rows(state: StreamState, producers: Iterable[str]) -> list[tuple[int, str, int, int]]:
    """Return the rows of some of a stream's producers; unknown ones are omitted."""
    known = state.producers or {}
    return [(state.id, producer_id, *unpack(known[producer_id])) for producer_id in producers if producer_id in known]


def stream_crc(  # noqa: PLR0913, PLR0917 (the columns)
    stream_id: int, name: str, config: str, tail: int, messages: int, closed: int, closed_by: str | None,
    stream_seq: bytes | None, soft_deleted: int, created_at: float, updated_at: float, touched_at: float, noted: int,
) -> int:  # fmt: skip
    """Return the checksum of a stream's row from all other columns.

    It is the CRC-32 of the numbers (id, tail, messages, closed, soft_deleted, created_at, updated_at, touched_at,
    noted), the lengths of the texts (name, config, closed_by, stream_seq), and the texts.

    :raise struct.error: (or TypeError, AttributeError) if a column holds a value that no stream has.
    """
    named, configured = name.encode(), config.encode()
    if closed_by is None and stream_seq is None:
        by = seq = b""
        by_size = seq_size = _NULL
    else:
        by, seq = b"" if closed_by is None else closed_by.encode(), stream_seq or b""
        by_size, seq_size = (
            _NULL if closed_by is None else len(by), _NULL if stream_seq is None else len(stream_seq),
        )  # fmt: skip
    numbers = _STREAM_FIELDS.pack(
        stream_id, tail, messages, closed, soft_deleted, created_at, updated_at, touched_at, noted,
        len(named), len(configured), by_size, seq_size,
    )  # fmt: skip
    return crc32(numbers + named + configured + by + seq)


def producer_crc(stream_id: int, producer_id: str, epoch: int, seq: int) -> int:
    """Return the checksum of a producer's row: the CRC-32 of stream id, epoch, sequence number and producer id.

    :raise struct.error: (or AttributeError) if a column holds a value that no producer has.
    """
    return crc32(_PRODUCER_FIELDS.pack(stream_id, epoch, seq) + producer_id.encode())


def create_tables(database: Connection) -> None:
    """Create the tables that do not exist."""
    for statement in SCHEMA.split(";"):
        database.execute(statement)


def store(database: Connection, rows: Sequence[StreamRow], noted: int = 0) -> Totals:
    """Add or replace streams.

    :return: the totals of the rows written.
    """
    columns = [(*each.values, noted) for each in rows]
    streams = [(*values, stream_crc(*values)) for values in columns]
    database.executemany(_INSERT, streams)
    producers = store_producers(database, [values for each in rows for values in each.producers])
    return Totals(len(streams), sum(each[-1] for each in streams), producers.producers, producers.producers_sum)


def store_producers(database: Connection, producers: Sequence[tuple[int, str, int, int]]) -> Totals:
    """Add or replace producers.

    :return: the totals of the rows written.
    """
    if not producers:
        return Totals()
    stored = [(*values, producer_crc(*values)) for values in producers]
    database.executemany(
        "INSERT OR REPLACE INTO producers (stream_id, producer, epoch, seq, crc) VALUES (?,?,?,?,?)", stored
    )
    return Totals(producers=len(stored), producers_sum=sum(each[-1] for each in stored))


def update(database: Connection, rows: Iterable[tuple[Any, ...]], noted: int = 0) -> None:
    """Update the columns that can change, in the rows of streams that are stored already.

    :param rows: see :func:`stream_values`.
    """
    stored = [(*values, noted) for values in rows]
    database.executemany(
        _UPDATE, [(*columns[3:9], *columns[10:], stream_crc(*columns), columns[0]) for columns in stored]
    )


def advance(database: Connection, tails: Mapping[int, tuple[int, int, float, int]], where: str) -> None:
    """Update the tails of streams that are stored already, except in rows whose ``noted`` is at least the new one.

    :param tails: by stream id: the tail, the number of messages, the time of the last append, and ``noted``.
    :param where: the name of the database, for the error.
    :raise StorageError: if a row is damaged.
    """
    rows = []
    for stream_id, (tail, messages, at, noted) in tails.items():
        found = database.execute(_SELECT + " WHERE id = ?", (stream_id,)).fetchone()
        if found is None or found[12] >= noted:
            continue
        _verify(found, where)
        columns = (*found[:3], tail, messages, *found[5:10], at, at, noted)
        rows.append((tail, messages, at, at, noted, stream_crc(*columns), stream_id))
    database.executemany(_ADVANCE, rows)


def totals_before(database: Connection, rows: Sequence[StreamRow], removed: Sequence[int]) -> Totals:
    """Return the totals of the rows that will be replaced by ``rows``, or removed with the streams ``removed``.

    SQLite looks them up without the interpreter's lock: 0.8 us for a stream, 4 us for a producer.
    """
    gone = orjson.dumps(list(removed)).decode()
    ids = orjson.dumps([*removed, *(each.values[0] for each in rows)]).decode()
    replaced = orjson.dumps([values[:2] for each in rows for values in each.producers]).decode()
    (streams, streams_sum), (producers, producers_sum), (more, more_sum) = (
        database.execute(sql, (keys,)).fetchone()
        for sql, keys in ((_STREAMS_AMONG, ids), (_PRODUCERS_OF, gone), (_PRODUCERS_AMONG, replaced))
    )
    return Totals(streams, streams_sum, producers + more, producers_sum + more_sum)


def remove(database: Connection, stream_ids: Sequence[int]) -> None:
    """Remove streams and their producers. Call this before rows of other streams with the same names are stored."""
    ids = [(stream_id,) for stream_id in stream_ids]
    database.executemany("DELETE FROM streams WHERE id = ?", ids)
    database.executemany("DELETE FROM producers WHERE stream_id = ?", ids)


def count(database: Connection) -> int:
    """Return the number of streams."""
    return int(database.execute("SELECT count(*) FROM streams").fetchone()[0])


def load(database: Connection, where: str, expected: Totals | None = None) -> Iterator[StreamState]:
    """Load the states of all streams, in the order of their ids, without fork counts.

    :param where: the name of the database, for the error.
    :param expected: the totals of the tables, if they are known.
    :raise StorageError: if a row is damaged or lost. Lost rows are detected at the end, and only with ``expected``.
    """
    producers = database.execute(_SELECT_PRODUCERS)
    waiting = next(producers, None)
    streams = streams_sum = producer_count = producers_sum = 0
    for found in database.execute(_SELECT + " ORDER BY id"):
        _verify(found, where)
        state = _state(found)
        stream_id = state.id
        streams += 1
        streams_sum += found[13]
        while waiting is not None and waiting[0] <= stream_id:
            _verify_producer(waiting, where)
            producer_count += 1
            producers_sum += waiting[4]
            if waiting[0] == stream_id:
                state.producers = state.producers or {}
                state.producers[waiting[1]] = pack(waiting[2], waiting[3])
            waiting = next(producers, None)
        yield state
    if expected is None:
        return
    while waiting is not None:
        _verify_producer(waiting, where)
        producer_count += 1
        producers_sum += waiting[4]
        waiting = next(producers, None)
    if Totals(streams, streams_sum, producer_count, producers_sum) != expected:
        raise StorageError(
            f"{where}: rows are missing or out of date: it has {streams} streams and {producer_count} producers, and"
            f" should have {expected.streams} and {expected.producers}, with the checksums' sums"
            f" {expected.streams_sum} and {expected.producers_sum}; {_ADVICE}"
        )


_UNREADABLE = (struct.error, TypeError, AttributeError, ValueError)
"""The exceptions that computing a checksum raises if a column has the wrong type."""


def _verify(found: Sequence[Any], where: str) -> None:
    *columns, checksum = found
    try:
        if stream_crc(*columns) == checksum:
            return
    except _UNREADABLE:
        pass
    raise StorageError(
        f"{where}: the row of stream {found[0]} ({found[1]!r}) is damaged: its checksum is wrong; {_ADVICE}"
    )


def _verify_producer(found: Sequence[Any], where: str) -> None:
    stream_id, producer_id, epoch, seq, checksum = found
    try:
        if producer_crc(stream_id, producer_id, epoch, seq) == checksum:
            return
    except _UNREADABLE:
        pass
    raise StorageError(
        f"{where}: the row of producer {producer_id!r} of stream {stream_id} is damaged: its checksum is wrong;"
        f" {_ADVICE}"
    )


_ADVICE = "restore the data directory from a backup"


@lru_cache(maxsize=1024)
def _config(text: str) -> tuple[StreamConfig, ForkPoint | None]:
    """Parse a stream's configuration. Many streams have equal ones, which are parsed once and share an object."""
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
