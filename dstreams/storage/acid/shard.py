"""One shard: an SQLite database in WAL mode.

Tables
    ``identity``   one row: ``store`` (the store's identity, from shards.json), ``shard`` (this shard's number),
                   ``last_id`` (the highest id of all streams that were ever deleted from this shard), ``noted`` (see
                   S3), ``crc``
    ``streams``    a row for every stream, including soft-deleted ones: see ``stream_rows``
    ``producers``  a row for every producer of every stream: see ``stream_rows``
    ``chunks``     the bytes: see ``chunks``
    ``removed``    ``stream_id``, the id of a deleted stream whose chunks may still be stored, and ``crc``

In ``identity`` and ``removed``, ``crc`` is the CRC-32 of the row's other columns: numbers as signed 64-bit
little-endian integers, then the text.

``PRAGMA application_id`` is APPLICATION_ID, ``PRAGMA user_version`` the format.

Invariants
    S1. All changes of a group in a shard are one transaction, which is synced before the group is acknowledged.
    S2. The shard of a stream is the home of its name (``group.home``). The shard of a fork is that of its source. The
        source of every fork has a row.
    S3. ``tail`` and ``messages`` of a stream agree with its chunks and their entries, when its row is up to date. The
        row is behind if the stream has chunks with ids above both ``noted`` of the row and ``noted`` of ``identity``.
        Then the newest of these chunks determines ``tail`` (its end), ``messages`` (its ``number`` plus its number of
        entries), ``updated_at`` and ``touched_at`` (its ``at``).
    S4. Chunks belong to a row of ``streams`` or to a row of ``removed``.
    S5. Each transaction is synced before the next one begins, so that a crash interrupts at most one (see
        ``storage.wal``).

A deleted stream's chunks stay until :meth:`Shard.purge` removes them. So the cost of a deletion does not depend on the
stream's size (1 GB: 1 ms, and 4 s of purge in slices of 1 ms), and reads of the stream in progress can continue.

An append that only adds bytes writes a new chunk but not the stream's row, because writing the row took as long as
writing the chunk. ``Shard.note`` brings the rows up to date later, for many appends at once.

Checkpoints are run by ``maintenance``, never by SQLite during a commit, where their errors would not be noticed.
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
"""The bytes ``DSAC`` as a number."""

MEMORY: Final = ":memory:"

_SCHEMA = """
CREATE TABLE identity (
    one INTEGER PRIMARY KEY CHECK (one = 1), store TEXT NOT NULL, shard INTEGER NOT NULL, last_id INTEGER NOT NULL,
    noted INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE removed (stream_id INTEGER PRIMARY KEY, crc INTEGER NOT NULL)
"""

ADD_ROWS: Final = 16
"""Maximum number of chunks of a large append (one megabyte) of which a second copy is in memory during writing."""

PURGE_ROWS: Final = 64
"""Maximum number of chunks that one slice of a purge removes, at most 4 MiB, because commits wait for a slice."""

NOTE_CHUNKS: Final = 1000
"""Maximum number of chunks for which one slice updates the rows of their streams."""

VACUUM_PAGES: Final = 256
"""Maximum number of pages that one slice gives back to the file system."""

FREE_PAGES: Final = 2048
FREE_SHARE: Final = 4
"""Free pages are given back to the file system while there are more than FREE_PAGES of them and they are more than a
fourth of the file (FREE_SHARE). Otherwise they are kept for new bytes."""


_LAST_CHUNK = (
    "SELECT max(noted, coalesce((SELECT max(id) FROM chunks), 0), coalesce((SELECT max(noted) FROM streams), 0))"
    " FROM identity"
)
"""Selects an upper bound of the chunk ids. ``noted`` may be the id of a chunk that has since been purged."""

_UNNOTED = (
    "SELECT id, stream_id, start + length(data), number + length(entries) / 8, at FROM chunks"
    " WHERE id > (SELECT noted FROM identity) ORDER BY id LIMIT ?"
)


@define(eq=False)
class Shard:
    """A shard's database and the connection that writes to it.

    Only one thread at a time may use it.

    :param number: the shard's number in the store.
    :param cache_bytes: the maximum bytes of the database that the connection may cache in memory.
    :param exclusive: whether this is the only connection, which is then also used for reads. In memory, and without
        shared memory, no other connection is possible.
    """

    number: int
    path: str
    _connect: Connect
    _cache_bytes: int
    exclusive: bool
    database: Connection = field(init=False)
    # An upper bound of the chunk ids; new chunks get higher ids.
    _last_chunk: int = field(default=0, init=False)
    _aside: Connection | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.database = self._connect(self.path)
        if self.exclusive:
            # This must come before the first access to the file; after that a WAL would need shared memory.
            self.database.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()

    def create(self, store: str) -> None:
        """Create the tables in an empty database.

        :param store: the store's identity.
        """
        database = self.database
        # It is synced only once, at the end: a shard that a crash leaves incomplete is created again.
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
        """Make the settings that SQLite does not store in the file.

        :raise StorageError: if the file system does not support WAL mode.
        """
        self._use_wal()
        for pragma in (
            "synchronous = FULL",
            "fullfsync = ON",
            "checkpoint_fullfsync = ON",
            "wal_autocheckpoint = 0",
            # Freed pages need not be overwritten with zeros, even if that is the default that SQLite was compiled with.
            "secure_delete = OFF",
            "temp_store = MEMORY",
            f"cache_size = -{self._cache_bytes // 1024}",
        ):
            self.database.execute(f"PRAGMA {pragma}")
        self._last_chunk = int(_value(self.database, _LAST_CHUNK))
        # Detects now, not at the first commit, a file that is not writable or is locked by another program.
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
        """Check that this is the expected shard.

        :raise StorageError: if it is not; the text says what was found.
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
        """Return the store's identity, the shard's number, ``last_id`` and ``noted``.

        :raise StorageError: if the row is damaged.
        """
        *found, crc = self.database.execute("SELECT store, shard, last_id, noted, crc FROM identity").fetchone()
        store, number, last_id, noted = found
        sound = all(isinstance(each, int) for each in (number, last_id, noted))
        if not sound or crc != _identity_crc(store, number, last_id, noted):
            raise StorageError(f"{self.path}: the row of its identity is damaged; restore the directory from a backup")
        return store, number, last_id, noted

    def _update_identity(self, *, last_id: int = 0, noted: int = 0) -> None:
        """Increase ``last_id`` and ``noted`` to these values, if they are lower, in the transaction."""
        store, number, old_id, old_noted = self._identity()
        row = (store, number, max(last_id, old_id), max(noted, old_noted))
        self.database.execute("UPDATE identity SET last_id = ?, noted = ?, crc = ?", (*row[2:], _identity_crc(*row)))

    # --- loading -----------------------------------------------------------------------------------------------

    def is_unused(self) -> bool:
        """Whether the shard never contained a stream; it may have no tables."""
        known = _value(self.database, "SELECT count(*) FROM sqlite_master WHERE name = 'streams'")
        return not known or not (self.count() or self.last_id())

    def count(self) -> int:
        """Return the number of streams."""
        return stream_rows.count(self.database)

    def load(self) -> Iterator[StreamState]:
        """Yield every stream's state, without the number of its forks."""
        fresh = self._fresh()
        for state in stream_rows.load(self.database, self.path):
            found = fresh.get(state.id)
            if found is not None:
                state.tail, state.messages, state.updated_at = found
                state.touched_at = state.updated_at
            yield state

    def is_behind(self) -> bool:
        """Whether stream rows are behind their chunks."""
        return self.database.execute(_UNNOTED, (1,)).fetchone() is not None

    def _fresh(self) -> dict[int, tuple[int, int, float]]:
        """Return the tail, the number of messages and the time of the last append of streams whose rows are behind."""
        newer = "SELECT id, noted FROM streams WHERE noted > (SELECT noted FROM identity)"
        noted: dict[int, int] = dict(self.database.execute(newer).fetchall())
        found: dict[int, tuple[int, int, float]] = {}
        for chunk_id, stream_id, tail, messages, at in self.database.execute(_UNNOTED, (-1,)):
            if chunk_id > noted.get(stream_id, 0):
                found[stream_id] = (tail, messages, at)
        return found

    def last_id(self) -> int:
        """Return the highest id of a deleted stream."""
        return self._identity()[2]

    def removed(self) -> list[int]:
        """Return the ids of the deleted streams that have to be purged.

        :raise StorageError: if a row is damaged.
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
        """Write this shard's part of a group in the transaction."""
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
        """Update stream rows (``stream_rows.stream_values``) in the transaction; they then cover all chunks so far."""
        stream_rows.update(self.database, rows, self._last_chunk)

    def _add(self, rows: Sequence[chunks.Row]) -> None:
        numbered = [(number, *row) for number, row in enumerate(rows, self._last_chunk + 1)]
        self.database.executemany("INSERT INTO chunks VALUES (?,?,?,?,?,?,?,?)", numbered)
        self._last_chunk += len(rows)

    def remove(self, stream_ids: Sequence[int], last_id: int) -> None:
        """Remove streams in the transaction; their chunks are purged later.

        :param last_id: an id that is recorded as used, so that it is never used again.
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
        """Make sure that a transaction whose commit failed on a full disk is never found committed.

        SQLite writes a transaction's frames after the last commit, over the remains of earlier rounds and of rejected
        transactions. If a write fails, those older bytes may be identical to the bytes that it would have written. Then
        the transaction is complete in the file, although SQLite has reported an error. Another commit replaces it. It
        has one page, which overwrites the transaction's first frame, so the checksums of the frames after it no longer
        continue a valid one.

        The page must be written although nothing changes. SQLite does that for this pragma, but not for an UPDATE.
        """
        with self._transaction():
            self.database.execute(f"PRAGMA user_version = {FORMAT}")

    # --- maintenance -------------------------------------------------------------------------------------------

    def checkpoint_aside(self) -> None:
        """Copy committed pages from the WAL into the database, in parallel with commits.

        It runs in another thread and uses a separate connection. Pages committed meanwhile are left for
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
        """Copy the rest, between two commits, so that the WAL starts over, unless a read is in progress."""
        self.database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def note(self) -> bool:
        """Bring stream rows up to date for the next slice of chunks.

        :return: whether more chunks may be left.
        """
        found = self.database.execute(_UNNOTED, (NOTE_CHUNKS,)).fetchall()
        if found:
            tails = {stream_id: (tail, messages, at, number) for number, stream_id, tail, messages, at in found}
            with self._transaction():
                stream_rows.advance(self.database, tails, self.path)
                self._update_identity(noted=found[-1][0])
        return len(found) == NOTE_CHUNKS

    def empty_wal(self) -> None:
        """Copy all of the WAL, and give its space back to the file system, unless a read is in progress."""
        self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def purge(self, stream_ids: Sequence[int]) -> tuple[list[int], int]:
        """Remove a slice of deleted streams' chunks.

        :return: the streams of which chunks may be left, and the approximate number of pages written.
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
        """Give a slice of free pages back to the file system. The file shrinks when the WAL is copied.

        :param every_one: whether to keep no free pages at all.
        :return: whether pages were given back; then there may be more.
        """
        if not (self._free_pages() if every_one else self.has_free_pages()):
            return False
        with self._transaction():
            for _ in range(VACUUM_PAGES):
                # The pragma frees one page per step of the statement, and the sqlite3 module makes only one step.
                self.database.execute("PRAGMA incremental_vacuum(1)").fetchall()
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run a transaction outside a group. It could be repeated after a crash, but is synced because of S5."""
        try:
            self.begin()
            yield
            self.commit()
        except BaseException:
            self.roll_back()
            raise

    def has_free_pages(self) -> bool:
        """Whether the file has more free pages than it should keep."""
        free = self._free_pages()
        return free > FREE_PAGES and free * FREE_SHARE > int(_value(self.database, "PRAGMA page_count"))

    def _free_pages(self) -> int:
        return int(_value(self.database, "PRAGMA freelist_count"))

    def close(self, clean: bool) -> None:
        """Close the database.

        :param clean: whether to bring all rows up to date and copy the WAL into the database first, so that the next
            start finds no WAL.
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
        """Keep the database open, and leave its files as they are, until the process ends.

        SQLite copies the WAL when the last connection is closed. After a failed sync of the WAL that must not happen:
        the next sync would report no error, and after a power loss older pages in the WAL could cover newer ones in the
        database.
        """
        _never_close(self.database)


def _never_close(connection: Connection) -> None:
    """Keep a connection open beyond the end of the interpreter, which closes connections without references."""
    _abandoned.append(connection)
    with suppress(AttributeError):  # not every Python is CPython
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


_abandoned: Final[list[Connection]] = []


def _purge_stream(database: Connection, stream_id: int, limit: int) -> int:
    """Remove up to ``limit`` of a stream's chunks; return how many were removed."""
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
