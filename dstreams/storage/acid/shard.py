"""One shard: an SQLite database in WAL mode.

Tables
    ``identity``   one row: ``store`` (the store's identity, from shards.json), ``shard`` (this one's number),
                   ``last_id`` (no stream of this shard that was ever deleted had a higher id), ``noted`` (see S3),
                   ``crc``
    ``streams``    a row for every stream, soft-deleted ones included: see ``stream_rows``
    ``producers``  a row for every producer of every stream: see ``stream_rows``
    ``chunks``     the bytes: see ``chunks``
    ``removed``    ``stream_id``, the ids of deleted streams whose chunks may still be there, and ``crc``

``crc`` is the CRC-32 of the row's other columns: numbers as signed 64-bit little-endian integers, then the text.

``PRAGMA application_id`` is APPLICATION_ID, ``PRAGMA user_version`` the format.

Invariants
    S1. What a group changes in a shard is one transaction, synced before the group is acknowledged.
    S2. The shard of a stream is the home of its name (``group.home``), of a fork its source's; the source of every
        fork is a row.
    S3. ``tail`` and ``messages`` of a stream agree with its chunks and their entries, once its row is brought up to
        date: if it has chunks with an id above its row's ``noted`` and that of ``identity``, then the newest one says
        ``tail`` (where it ends), ``messages`` (``number`` and its entries), ``updated_at`` and ``touched_at`` (``at``).
    S4. Chunks belong to a row of ``streams`` or to one of ``removed``.
    S5. Each transaction is synced before the next one begins, so that a crash cuts off at most one (see
        ``storage.wal``).

A deleted stream's chunks stay until :meth:`Shard.purge` removes them: so a deletion costs the same whatever the
stream's size (1 GB: 1 ms, and 4 s of purge in slices of 1 ms), and whoever is reading the stream can read on.

An append that only adds bytes is one new chunk and leaves the stream's row alone: writing the row, too, took as long
as the chunk. ``Shard.note`` brings the rows up to date later, for many appends at once.

Checkpoints are run by ``maintenance``, never by SQLite in the middle of a commit, where their errors would go unseen.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Final
from zlib import crc32

from attrs import define, field

from dstreams.model.state import StreamState
from dstreams.storage import stream_rows
from dstreams.storage.acid import chunks
from dstreams.storage.acid.group import Batch
from dstreams.storage.directory import FORMAT, other_format
from dstreams.storage.interface import StorageError
from dstreams.storage.stream_rows import Connect, Connection

APPLICATION_ID: Final = 0x44534143
"""``DSAC``."""

MEMORY: Final = ":memory:"

_SCHEMA = """
CREATE TABLE identity (
    one INTEGER PRIMARY KEY CHECK (one = 1), store TEXT NOT NULL, shard INTEGER NOT NULL, last_id INTEGER NOT NULL,
    noted INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE removed (stream_id INTEGER PRIMARY KEY, crc INTEGER NOT NULL)
"""

ADD_ROWS: Final = 16
"""How many chunks of a large append, a megabyte, are in memory a second time while they are written."""

PURGE_ROWS: Final = 64
"""How many chunks one slice of a purge removes, 4 MiB at most: commits wait for a slice."""

NOTE_CHUNKS: Final = 1000
"""How many chunks one slice notes in the rows of their streams."""

VACUUM_PAGES: Final = 256
"""How many pages one slice gives back to the file system."""

FREE_PAGES: Final = 2048
FREE_SHARE: Final = 4
"""More than so many free pages, and more than a fourth of the file, go back; others are kept for new bytes."""


_LAST_CHUNK = (
    "SELECT max(noted, coalesce((SELECT max(id) FROM chunks), 0), coalesce((SELECT max(noted) FROM streams), 0))"
    " FROM identity"
)
"""Rows tell of chunks that may be gone."""

_UNNOTED = (
    "SELECT id, stream_id, start + length(data), number + length(entries) / 8, at FROM chunks"
    " WHERE id > (SELECT noted FROM identity) ORDER BY id LIMIT ?"
)


@define(eq=False)
class Shard:
    """A shard's database and the connection that writes to it.

    One thread at a time may use it.

    :param number: which of the store's shards it is.
    :param cache_bytes: how much of the database the connection may keep in memory.
    :param exclusive: whether this is to be the only connection, which then reads, too: in memory there can be no
        other, and without shared memory neither.
    """

    number: int
    path: str
    _connect: Connect
    _cache_bytes: int
    exclusive: bool
    database: Connection = field(init=False)
    # No chunk has a higher id.
    _last_chunk: int = field(default=0, init=False)
    _aside: Connection | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.database = self._connect(self.path)
        if self.exclusive:
            # Before the first look into the file: after it a WAL needs shared memory.
            self.database.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()

    def create(self, store: str) -> None:
        """Make the tables in a database that is empty.

        :param store: the store's identity.
        """
        database = self.database
        # Synced once, at the end: a shard that a crash leaves half made is made anew.
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._use_wal()
        self.begin()
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {FORMAT}")
        for statement in (*_SCHEMA.split(";"), *chunks.SCHEMA.split(";")):
            database.execute(statement)
        stream_rows.create_tables(database)
        row = (store, self.number, 0, 0)
        database.execute("INSERT INTO identity VALUES (1, ?, ?, ?, ?, ?)", (*row, _identity_crc(*row)))
        self.commit()
        self.configure()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def configure(self) -> None:
        """Set what SQLite doesn't keep in the file.

        :raise StorageError: when the file system can't do what WAL mode needs.
        """
        self._use_wal()
        for pragma in (
            "synchronous = FULL",
            "fullfsync = ON",
            "checkpoint_fullfsync = ON",
            "wal_autocheckpoint = 0",
            # Freed pages need not be written over with zeros, whatever SQLite was compiled to do.
            "secure_delete = OFF",
            "temp_store = MEMORY",
            f"cache_size = -{self._cache_bytes // 1024}",
        ):
            self.database.execute(f"PRAGMA {pragma}")
        self._last_chunk = int(_value(self.database, _LAST_CHUNK))
        # A file that can't be written to, or is locked by another program, is found now and not at the first commit.
        self.begin()
        self.roll_back()

    def _use_wal(self) -> None:
        mode = _value(self.database, "PRAGMA journal_mode = WAL")
        if mode not in ("wal", "memory"):
            raise StorageError(
                f"{self.path} can't be used in SQLite's WAL mode ({mode}): its file system lacks shared memory;"
                " choose a local one for storage.data_dir"
            )

    def verify(self, store: str) -> None:
        """See that this is the shard that it should be.

        :raise StorageError: when it isn't; the text says what it is.
        """
        application = _value(self.database, "PRAGMA application_id")
        if application != APPLICATION_ID:
            raise StorageError(f"{self.path} is no shard of this server; restore it from a backup")
        version = _value(self.database, "PRAGMA user_version")
        if version != FORMAT:
            raise other_format(self.path, version)
        found = self.database.execute("SELECT store, shard FROM identity").fetchone()
        if found != (store, self.number):
            raise StorageError(
                f"{self.path} is another shard ({found}) than it should be ({(store, self.number)}): files of"
                " different stores, or of different names, were mixed; restore the directory from a backup"
            )
        self._identity()
        self.removed()

    def _identity(self) -> tuple[str, int, int, int]:
        """The store, the shard's number, ``last_id`` and ``noted``.

        :raise StorageError: when the row is damaged.
        """
        *found, crc = self.database.execute("SELECT store, shard, last_id, noted, crc FROM identity").fetchone()
        store, number, last_id, noted = found
        sound = all(isinstance(each, int) for each in (number, last_id, noted))
        if not sound or crc != _identity_crc(store, number, last_id, noted):
            raise StorageError(f"{self.path}: the row of its identity is damaged; restore the directory from a backup")
        return store, number, last_id, noted

    def _update_identity(self, *, last_id: int = 0, noted: int = 0) -> None:
        """Raise ``last_id`` and ``noted`` to these values, where they are lower, in the transaction."""
        store, number, old_id, old_noted = self._identity()
        row = (store, number, max(last_id, old_id), max(noted, old_noted))
        self.database.execute("UPDATE identity SET last_id = ?, noted = ?, crc = ?", (*row[2:], _identity_crc(*row)))

    # --- loading -----------------------------------------------------------------------------------------------

    def is_unused(self) -> bool:
        """Whether it never held a stream: it may not even have tables."""
        known = _value(self.database, "SELECT count(*) FROM sqlite_master WHERE name = 'streams'")
        return not known or not (self.count() or self.last_id())

    def count(self) -> int:
        """How many streams there are."""
        return stream_rows.count(self.database)

    def load(self) -> Iterator[StreamState]:
        """Every stream's state, without fork counts."""
        fresh = self._fresh()
        for state in stream_rows.load(self.database, self.path):
            found = fresh.get(state.id)
            if found is not None:
                state.tail, state.messages, state.updated_at = found
                state.touched_at = state.updated_at
            yield state

    def is_behind(self) -> bool:
        """Whether rows of streams don't say yet what is in their chunks."""
        return self.database.execute(_UNNOTED, (1,)).fetchone() is not None

    def _fresh(self) -> dict[int, tuple[int, int, float]]:
        """The tail, the number of messages and the time of the last append of streams whose rows are behind."""
        newer = "SELECT id, noted FROM streams WHERE noted > (SELECT noted FROM identity)"
        noted: dict[int, int] = dict(self.database.execute(newer).fetchall())
        found: dict[int, tuple[int, int, float]] = {}
        for chunk_id, stream_id, tail, messages, at in self.database.execute(_UNNOTED, (-1,)):
            if chunk_id > noted.get(stream_id, 0):
                found[stream_id] = (tail, messages, at)
        return found

    def last_id(self) -> int:
        """The highest id of a deleted stream."""
        return self._identity()[2]

    def removed(self) -> list[int]:
        """The deleted streams that are to be purged.

        :raise StorageError: when a row is damaged.
        """
        rows = self.database.execute("SELECT stream_id, crc FROM removed ORDER BY stream_id").fetchall()
        if any(crc != _crc(stream_id) for stream_id, crc in rows):
            raise StorageError(
                f"{self.path}: a row of the table of removed streams is damaged; restore the directory from a backup"
            )
        return [stream_id for stream_id, _ in rows]

    # --- writing -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction."""
        self.database.execute("BEGIN IMMEDIATE")

    def write(self, batch: Batch) -> None:
        """Write a group's part into the transaction."""
        database = self.database
        if batch.last_id:
            self.remove(batch.removed, batch.last_id)
        if batch.replaced:
            database.executemany("DELETE FROM chunks WHERE stream_id = ? AND start >= ?", batch.replaced)
        if batch.chunks:
            self._add(batch.chunks)
        for large in batch.large:
            rows = large.rows()
            while some := list(islice(rows, ADD_ROWS)):
                self._add(some)
        if batch.created:
            stream_rows.store(database, batch.created, self._last_chunk)
        if batch.changed:
            self.update(batch.changed)
        stream_rows.store_producers(database, batch.producers)

    def update(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows of streams (``stream_rows.stream_values``) in the transaction: they tell of all of its chunks."""
        stream_rows.update(self.database, rows, self._last_chunk)

    def _add(self, rows: Sequence[chunks.Row]) -> None:
        numbered = [(number, *row) for number, row in enumerate(rows, self._last_chunk + 1)]
        self.database.executemany("INSERT INTO chunks VALUES (?,?,?,?,?,?,?,?)", numbered)
        self._last_chunk += len(rows)

    def remove(self, stream_ids: Sequence[int], last_id: int) -> None:
        """Remove streams in the transaction; their chunks are purged later.

        :param last_id: an id that is used and never to be used again.
        """
        stream_rows.remove(self.database, stream_ids)
        rows = [(each, _crc(each)) for each in stream_ids]
        self.database.executemany("INSERT OR IGNORE INTO removed VALUES (?, ?)", rows)
        self._update_identity(last_id=last_id)

    def commit(self) -> None:
        """Make the transaction durable."""
        self.database.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo the transaction, if there is one."""
        try:
            self.database.execute("ROLLBACK")
        except Exception as error:
            if "no transaction" not in str(error):  # SQLite rolls back by itself after some errors
                raise

    def void(self) -> None:
        """Make sure that a transaction whose commit found no room is never found committed.

        SQLite writes a transaction's frames behind the last commit, over what is left of earlier rounds and of refused
        transactions. When a write fails, those older bytes may be just the ones that it would have written, and the
        transaction is whole in the file although SQLite has reported an error. Another commit takes its place: it is
        of one page, in the first frame, so that the checksums of the frames behind it go on from nothing.

        The page must be written although nothing changes, which SQLite does for this pragma and not for an UPDATE.
        """
        with self._transaction():
            self.database.execute(f"PRAGMA user_version = {FORMAT}")

    # --- upkeep ------------------------------------------------------------------------------------------------

    def checkpoint_aside(self) -> None:
        """Copy committed pages from the WAL into the database, while commits go on.

        In its own thread and on a connection of its own. What is committed meanwhile is left for
        :meth:`checkpoint`.
        """
        if self.exclusive:
            return
        if self._aside is None:
            self._aside = self._connect(self.path)
            self._aside.execute("PRAGMA synchronous = FULL")
            self._aside.execute("PRAGMA checkpoint_fullfsync = ON")
        self._aside.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def checkpoint(self) -> None:
        """Copy the rest, between two commits, so that the WAL begins anew (unless somebody reads just then)."""
        self.database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def note(self) -> bool:
        """Bring the rows of streams up to a slice of their chunks.

        :return: whether there may be more to note.
        """
        found = self.database.execute(_UNNOTED, (NOTE_CHUNKS,)).fetchall()
        if found:
            tails = {stream_id: (tail, messages, at, number) for number, stream_id, tail, messages, at in found}
            with self._transaction():
                stream_rows.advance(self.database, tails, self.path)
                self._update_identity(noted=found[-1][0])
        return len(found) == NOTE_CHUNKS

    def empty_wal(self) -> None:
        """Copy all of the WAL, and give its room back to the file system (unless somebody reads just then)."""
        self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def purge(self, stream_ids: Sequence[int]) -> tuple[list[int], int]:
        """Remove a slice of deleted streams' chunks.

        :return: the streams of which something may be left, and how many pages were written, about.
        """
        database, budget, done = self.database, PURGE_ROWS, 0
        with self._transaction():
            while done < len(stream_ids) and budget > 0:
                stream_id = stream_ids[done]
                budget -= _purge_stream(database, stream_id, budget)
                if budget > 0:
                    database.execute("DELETE FROM removed WHERE stream_id = ?", (stream_id,))
                    budget -= 1
                    done += 1
        return list(stream_ids[done:]), 2 * (PURGE_ROWS - budget)

    def give_back(self, *, every_one: bool = False) -> bool:
        """Give a slice of free pages back to the file system, once the WAL is copied; whether there are more.

        :param every_one: whether none is to be kept.
        """
        if not (self._free_pages() if every_one else self.has_free_pages()):
            return False
        with self._transaction():
            for _ in range(VACUUM_PAGES):
                # It takes one page per step, and the sqlite3 module makes one step.
                self.database.execute("PRAGMA incremental_vacuum(1)").fetchall()
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction that belongs to no group. It is synced although it could be repeated after a crash, see S5."""
        try:
            self.begin()
            yield
            self.commit()
        except BaseException:
            self.roll_back()
            raise

    def has_free_pages(self) -> bool:
        """Whether there are more free pages in the file than it should keep."""
        free = self._free_pages()
        return free > FREE_PAGES and free * FREE_SHARE > int(_value(self.database, "PRAGMA page_count"))

    def _free_pages(self) -> int:
        return int(_value(self.database, "PRAGMA freelist_count"))

    def close(self, clean: bool) -> None:
        """Close the database.

        :param clean: finish what is left for later, and copy the WAL into it first, so that the next start finds none.
        """
        try:
            if clean:
                while self.note():
                    pass
                self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except BaseException:
            self.abandon()
            raise
        if self._aside is not None:
            self._aside.close()
        self.database.close()

    def abandon(self) -> None:
        """Leave the database as it is, for as long as the process lives.

        SQLite copies the WAL when the last connection is closed. After a failed sync of the WAL that must not be: the
        next one would say nothing, and a power loss then leaves newer pages below older ones.
        """
        _never_close(self.database)


def _never_close(connection: Connection) -> None:
    """Keep a connection beyond the end of the interpreter, which closes those that nobody holds."""
    _abandoned.append(connection)
    with suppress(AttributeError):  # not every Python is CPython
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


_abandoned: Final[list[Connection]] = []


def _purge_stream(database: Connection, stream_id: int, limit: int) -> int:
    """Remove up to ``limit`` of a stream's chunks; how many."""
    last = database.execute(
        "SELECT start FROM chunks WHERE stream_id = ? ORDER BY start LIMIT 1 OFFSET ?", (stream_id, limit - 1)
    ).fetchone()
    if last is not None:
        database.execute("DELETE FROM chunks WHERE stream_id = ? AND start <= ?", (stream_id, last[0]))
        return limit
    count = int(_value(database, "SELECT count(*) FROM chunks WHERE stream_id = ?", stream_id))
    if count:
        database.execute("DELETE FROM chunks WHERE stream_id = ?", (stream_id,))
    return count


def _identity_crc(store: str, *numbers: int) -> int:
    return crc32(str(store).encode(), _crc(*numbers))


def _crc(*numbers: int) -> int:
    return crc32(struct.pack(f"<{len(numbers)}q", *numbers))


def _value(database: Connection, sql: str, *parameters: Any) -> Any:
    return database.execute(sql, parameters).fetchone()[0]
