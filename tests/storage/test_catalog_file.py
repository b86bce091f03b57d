"""The catalog's database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NoReturn

import pytest

from dstreams.storage.catalog_file import CatalogFile
from dstreams.storage.interface import StorageError, StorageFull
from dstreams.storage.stream_rows import connect


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
            ("UPDATE checkpoint SET last_id = last_id - 1", "the row of the checkpoint is damaged"),
            ("UPDATE checkpoint SET position = 'x'", "the row of the checkpoint is damaged"),
            ("UPDATE removed SET id = 4", "the row of the removed stream 4 is damaged"),
        ],
    )
    def test_damaged_row(self, tmp_path: Path, change: str, what: str) -> None:
        """A row whose checksum is wrong isn't used: streams' files would be removed, or batches left out."""
        path = f"{tmp_path}/catalog.db"
        catalog = CatalogFile(path)
        catalog.save([], [3], 7, 5)
        assert (catalog.position(), catalog.removed()) == ((7, 5), {3})
        catalog.close()
        database = connect(path)
        database.execute(change)
        database.close()
        catalog = CatalogFile(path)
        with pytest.raises(StorageError, match=f"{what}: its checksum is wrong.*restore it from a backup"):
            catalog.position(), catalog.removed()
        catalog.close()
