"""The catalog's database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NoReturn

import pytest

from dstreams.model.changes import StreamConfig
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import DEFAULT
from dstreams.storage.files.catalog import CatalogFile, Coverage
from dstreams.storage.interface import StorageError, StorageFull
from dstreams.storage.stream_rows import StreamRow, connect, row


def failing(code: int) -> NoReturn:
    """Fail as SQLite does."""
    error = sqlite3.OperationalError("as told")
    error.sqlite_errorcode = code
    raise error


class OpeningTests:
    def test_full_disk(self, tmp_path: Path) -> None:
        """Whoever lacks room is told to make some, not to fetch a backup."""
        with pytest.raises(StorageFull, match="the disk is full; make room") as caught:
            CatalogFile(f"{tmp_path}/catalog.db", lambda _: failing(sqlite3.SQLITE_FULL))
        assert "backup" not in str(caught.value)

    def test_damage(self, tmp_path: Path) -> None:
        """A database that can't be read is to be restored."""
        with pytest.raises(StorageError, match="restore it from a backup"):
            CatalogFile(f"{tmp_path}/catalog.db", lambda _: failing(sqlite3.SQLITE_CORRUPT))


class ChecksumTests:
    @pytest.mark.parametrize(
        ("change", "what"),
        [
            ("UPDATE checkpoint SET position = 8", "the row of the checkpoint is damaged"),
            ("UPDATE checkpoint SET seen = 7", "the row of the checkpoint is damaged"),
            ("UPDATE checkpoint SET streams = 1", "the row of the checkpoint is damaged"),
            ("UPDATE checkpoint SET last_id = last_id - 1", "the row of the checkpoint is damaged"),
            ("UPDATE checkpoint SET position = 'x'", "the row of the checkpoint is damaged"),
            ("UPDATE removed SET id = 4", "the row of the removed stream 4 is damaged"),
        ],
    )
    def test_damaged_row(self, tmp_path: Path, change: str, what: str) -> None:
        """A row whose checksum is wrong isn't used: streams' files would be removed, or batches left out."""
        path = f"{tmp_path}/catalog.db"
        catalog = CatalogFile(path)
        catalog.save([], [3], Coverage(7, 8, 5))
        assert (catalog.coverage(), catalog.removed()) == (Coverage(7, 8, 5), {3})
        catalog.close()
        database = connect(path)
        database.execute(change)
        database.close()
        catalog = CatalogFile(path)
        with pytest.raises(StorageError, match=f"{what}: its checksum is wrong.*restore it from a backup"):
            catalog.coverage(), catalog.removed()
        catalog.close()


def a_row(number: int, *producers: str) -> StreamRow:
    """A stream, its tail a hundred times its number, with producers."""
    state = StreamState(number, f"s{number}", StreamConfig(DEFAULT), None, 0, 100 * number, 1, 0.0, 0.0, 0.0)
    state.producers = dict.fromkeys(producers, number)
    return row(state, producers)


class LostRowTests:
    """SQLite can lose rows without noticing: when a number in the head of a page has changed, or a pointer."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        """A catalog after several checkpoints."""
        path = f"{tmp_path}/catalog.db"
        catalog = CatalogFile(path)
        catalog.save([a_row(1, "p", "q"), a_row(2), a_row(3, 'p\xe9"')], [], Coverage(1, 1, 3))
        catalog.save([a_row(2, "p"), a_row(4, "r"), a_row(3, 'p\xe9"', "new")], [1], Coverage(2, 2, 4))
        catalog.save([], [1, 4, 99], Coverage(3, 3, 4))
        assert [state.id for state in catalog.load()] == [2, 3]
        catalog.close()
        return path

    @pytest.mark.parametrize(
        "change",
        [
            "DELETE FROM streams WHERE id = 3",
            "DELETE FROM streams",
            "DELETE FROM producers WHERE stream_id = 2",
            "DELETE FROM producers WHERE producer = 'new'",
            "DELETE FROM checkpoint",
            "INSERT INTO producers VALUES (9, 'p', 0, 0, (SELECT crc FROM producers WHERE stream_id = 2))",
        ],
    )
    def test_found(self, path: str, change: str) -> None:
        """A start refuses a catalog that has lost a row, or has one too many."""
        database = connect(path)
        database.execute(change)
        database.close()
        catalog = CatalogFile(path)
        with pytest.raises(StorageError, match="restore the data directory from a backup"):
            list(catalog.load())
        catalog.close()

    def test_page_with_a_smaller_number_of_rows(self, tmp_path: Path) -> None:
        """The lowest bit of a page's number of rows: SQLite's own check may say it, reading doesn't."""
        path = tmp_path / "catalog.db"
        catalog = CatalogFile(str(path))
        catalog.save([a_row(number) for number in range(1, 4)], [], Coverage(1, 1, 3))
        catalog.close()
        content = bytearray(path.read_bytes())
        page = next(at for at in range(4096, len(content), 4096) if content[at] == 13 and content[at + 4] == 3)
        content[page + 4] = 2
        path.write_bytes(content)
        database = connect(str(path))
        assert [found[0] for found in database.execute("SELECT id FROM streams ORDER BY id")] == [1, 2]
        database.close()
        catalog = CatalogFile(str(path))
        with pytest.raises(StorageError, match="it has 2 streams and 0 producers, and should have 3 and 0"):
            list(catalog.load())
        catalog.close()
