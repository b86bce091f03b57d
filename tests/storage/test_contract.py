"""The backends that use files or SQLite, against the suite that all share; memory has joined it next door."""

from __future__ import annotations

from pathlib import Path

from dstreams.runtime.threads import run_inline
from dstreams.storage.acid import AcidStorage
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import Storage
from dstreams.storage.sync import ThreadSyncer
from tests.storage.contract import StorageContract


class FastFileStorageTests(StorageContract):
    """``file-fast``, with checkpoints after every few bytes."""

    def make(self, directory: Path) -> Storage:
        return FileStorage(str(directory), None, run_inline, checkpoint_bytes=200)


class DurableFileStorageTests(StorageContract):
    """``file-durable``."""

    def make(self, directory: Path) -> Storage:
        return FileStorage(str(directory), lambda: ThreadSyncer(run_inline), run_inline)


class AcidStorageTests(StorageContract):
    """``acid``."""

    def make(self, directory: Path) -> Storage:
        return AcidStorage(str(directory), 4, run_inline)


class InMemoryAcidStorageTests(StorageContract):
    """``acid`` in memory."""

    def make(self, directory: Path) -> Storage:
        return AcidStorage(str(directory), 4, run_inline, in_memory=True)
