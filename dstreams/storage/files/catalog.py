"""The catalog on disk: the state of every stream as of the last checkpoint, in one SQLite database.

It is written only by checkpoints and read only at start. ``position`` is the number of the first journal batch that
it may lack: recovery loads the catalog and replays the journal from there. A stream's row may be newer than that,
because requests are served during a checkpoint. Replaying changes that a row already includes has no effect.

Every row of every table has a CRC-32 of its other columns, because SQLite has no checksums. Every read verifies it. The
row of the checkpoint also contains the number of rows of ``streams`` and ``producers`` and the sums of their checksums,
so that a lost row is detected.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final
from zlib import crc32

from attrs import astuple, define, field, frozen

from dstreams.model.state import StreamState
from dstreams.storage import stream_rows
from dstreams.storage.directory import FORMAT, other_format
from dstreams.storage.disk import Disk
from dstreams.storage.interface import StorageError, StorageFull
from dstreams.storage.stream_rows import Connect, Connection, StreamRow, Totals, connect
from dstreams.storage.wal import check_wal

NAME: Final = "catalog.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checkpoint (
    one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, position INTEGER NOT NULL,
    seen INTEGER NOT NULL, last_id INTEGER NOT NULL, streams INTEGER NOT NULL, streams_sum INTEGER NOT NULL,
    producers INTEGER NOT NULL, producers_sum INTEGER NOT NULL, crc INTEGER NOT NULL
)
"""

_SCHEMA_REMOVED = "CREATE TABLE IF NOT EXISTS removed (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL)"
"""The table of deleted streams whose files may still exist."""


_SELECT = "SELECT position, seen, last_id, streams, streams_sum, producers, producers_sum, crc FROM checkpoint"


@frozen
class Coverage:
    """The batches and rows that a catalog holds.

    :param position: the first journal batch that it may lack.
    :param seen: the first journal batch that no row includes; the journal must contain all batches below it.
    :param last_id: the highest stream id ever assigned.
    :param totals: the number of rows, and the sums of their checksums.
    """

    position: int = 0
    seen: int = 0
    last_id: int = 0
    totals: Totals = field(factory=Totals)


@define(eq=False)
class CatalogFile:
    """The database of the catalog.

    :raise StorageError: if it is damaged or has another format.
    """

    _path: str
    _connect: Connect = connect
    _database: Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        try:
            self._database = self._connect(self._path)
            mode = self._database.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            self._database.execute("PRAGMA synchronous=FULL")
            # If a sync of the WAL failed in an earlier process, its contents may be only in the page cache, and a later
            # sync would not report that. So they are written again, into the database.
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._database.execute(_SCHEMA)
            self._database.execute(_SCHEMA_REMOVED)
            stream_rows.create_tables(self._database)
            found = self._database.execute("SELECT format FROM checkpoint").fetchone()
        except Exception as error:
            raise self._unreadable(error) from error
        if mode != "wal":
            # SQLite has fallen back to another mode without an error. There, a power loss may undo a commit.
            raise StorageError(f"{self._path}: SQLite can't use a write-ahead log here, but journal_mode {mode!r}")
        if found is not None and found[0] != FORMAT:
            raise other_format(self._path, found[0])

    def coverage(self) -> Coverage:
        """Return what the catalog holds; before the first checkpoint that is nothing.

        :raise StorageError: if the row of the checkpoint is damaged.
        """
        try:
            found = self._database.execute(_SELECT).fetchone()
        except Exception as error:
            raise self._unreadable(error) from error
        if found is None:
            return Coverage()
        self._verify("the row of the checkpoint", found[:-1], found[-1])
        return Coverage(found[0], found[1], found[2], Totals(*found[3:-1]))

    def removed(self) -> set[int]:
        """Return the ids of deleted streams whose files may still exist.

        :raise StorageError: if a row is damaged, because the files of another stream would be removed.
        """
        try:
            rows = self._database.execute("SELECT id, crc FROM removed").fetchall()
        except Exception as error:
            raise self._unreadable(error) from error
        for stream_id, checksum in rows:
            self._verify(f"the row of the removed stream {stream_id}", (stream_id,), checksum)
        return {row[0] for row in rows}

    def _verify(self, what: str, numbers: Sequence[int], checksum: object) -> None:
        try:
            right = _checksum(*numbers) == checksum
        except struct.error:
            right = False
        if not right:
            raise self._unreadable(f"{what} is damaged: its checksum is wrong")

    def count(self) -> int:
        """Return the number of streams.

        :raise StorageError: if the database cannot be read.
        """
        try:
            return stream_rows.count(self._database)
        except Exception as error:
            raise self._unreadable(error) from error

    def load(self) -> Iterator[StreamState]:
        """Load the states of all streams, in the order of their ids, without fork counts.

        :raise StorageError: if a row is damaged, or, at the end, if one is missing.
        """
        try:
            yield from stream_rows.load(self._database, self._path, self.coverage().totals)
        except StorageError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    def save(self, rows: Sequence[StreamRow], removed: Sequence[int], covered: Coverage) -> None:
        """Store a checkpoint durably, completely or not at all. May run in a thread.

        :param rows: streams to add or replace.
        :param removed: the deleted streams whose files may still exist after this checkpoint; they replace those noted
            before, whose files are gone.
        :param covered: what the catalog holds after this checkpoint; its totals are ignored and computed here.
        :raise StorageFull: if there is no space.
        :raise StorageError: if the disk or the database is broken.
        """
        totals = self.coverage().totals
        try:
            self._database.execute("BEGIN IMMEDIATE")
            before = stream_rows.totals_before(self._database, rows, removed)
            self._remove(removed)
            totals = totals.replaced(before, stream_rows.store(self._database, rows))
            numbers = (covered.position, covered.seen, covered.last_id, *astuple(totals))
            self._database.execute(
                "INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (FORMAT, *numbers, _checksum(*numbers)),
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            full = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
            raise (StorageFull if full else StorageError)(f"writing the catalog {self._path}: {error}") from error

    def _remove(self, stream_ids: Sequence[int]) -> None:
        """Remove deleted streams, and record that their files may still exist."""
        stream_rows.remove(self._database, stream_ids)
        self._database.execute("DELETE FROM removed")
        self._database.executemany(
            "INSERT INTO removed (id, crc) VALUES (?, ?)", [(each, _checksum(each)) for each in stream_ids]
        )

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # SQLite may already have rolled back
            self._database.execute("ROLLBACK")

    def problems(self) -> list[str]:
        """Return the problems that SQLite's integrity check finds."""
        try:
            return [each[0] for each in self._database.execute("PRAGMA integrity_check") if each[0] != "ok"]
        except Exception as error:
            return [str(error)]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _unreadable(self, error: object) -> StorageError:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return StorageFull(f"the catalog {self._path} can't be opened: the disk is full; make room on it")
        return StorageError(
            f"the catalog {self._path} can't be read ({error}); restore it from a backup,"
            " or run 'durable-streams check' to see what is left"
        )


def check_catalog_wal(disk: Disk, directory: str, *, repairs: bool = False) -> None:
    """Check that the catalog's write-ahead log holds no commits that SQLite would ignore (see ``wal``).

    :param directory: the data directory.
    :param repairs: whether to empty a log whose header is torn, because SQLite would continue with the salts in it,
        which old frames have too.
    :raise WalDamage: if it holds such commits.
    """
    names = disk.list(directory)
    if NAME + "-wal" not in names or NAME not in names:
        return
    log = disk.open(f"{directory}/{NAME}-wal", write=repairs)
    if not check_wal(log, disk.open(f"{directory}/{NAME}", write=False)) and repairs:
        log.truncate(0)


def _checksum(*numbers: int) -> int:
    """Return the CRC-32 of a row: of its numbers as signed 64-bit integers."""
    return crc32(struct.pack(f"<{len(numbers)}q", *numbers))
