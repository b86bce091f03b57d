"""The catalog's database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NoReturn

import pytest

from dstreams.storage.catalog_file import CatalogFile
from dstreams.storage.interface import StorageError, StorageFull


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
