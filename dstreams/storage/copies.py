"""Reads SQLite databases without writing to them, which SQLite itself cannot guarantee if there is a WAL."""

from __future__ import annotations

import os
import shutil
import sqlite3
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from urllib.parse import quote

from attrs import define, field

from dstreams.storage.stream_rows import Connection, connect


@define(eq=False)
class Copies:
    """Private copies of databases, which exist during the ``with`` statement.

    They are made in the directory for temporary files (``TMPDIR``) and need as much space there as their originals.
    """

    _directory: TemporaryDirectory[str] = field(factory=lambda: TemporaryDirectory(prefix="durable-streams-"))
    _count: int = field(default=0, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    def connect(self, path: str) -> Connection:
        """Open a copy of a database and of its WAL, if they exist (a ``Connect``)."""
        self._count += 1
        copy = os.path.join(self._directory.name, f"{self._count}.db")
        if os.path.exists(path):
            shutil.copyfile(path, copy)
        if os.path.exists(path + "-wal"):
            shutil.copyfile(path + "-wal", copy + "-wal")
        return connect(copy)

    def connect_unchanged(self, path: str) -> Connection:
        """Open a database itself if it has no WAL, else a copy (a ``Connect``). No process may change it meanwhile."""
        wal = path + "-wal"
        if os.path.exists(wal) and os.path.getsize(wal):
            return self.connect(path)
        address = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
