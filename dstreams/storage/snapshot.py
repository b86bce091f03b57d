"""Reads a data directory that no server uses, without changing its streams.

In the file modes, the journal and the data files are not written: the changes of the journal stay in memory without a
checkpoint, and segments that a crash left after its end are ignored. The databases of both layouts are opened normally,
so SQLite completes what a crash interrupted, as it would at the next start of the server. ``acid`` also continues to
purge deleted streams.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from attrs import define, field

from dstreams.model.catalog import Catalog
from dstreams.runtime.progress import Progress
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid import AcidStorage
from dstreams.storage.directory import DirectoryLock, read_manifest
from dstreams.storage.disk import OsDisk
from dstreams.storage.files.catalog import CatalogFile
from dstreams.storage.files.data_files import DataFiles
from dstreams.storage.files.recovery import load_streams, replay_batches, replay_behind, replay_change
from dstreams.storage.interface import Sources, StorageError
from dstreams.storage.rebuild import Rebuild


@define(eq=False)
class Snapshot:
    """The contents of a data directory. The directory is locked until the snapshot is closed.

    :param sources: the bytes of the streams. Reading them returns the bytes, or a Deferred that has fired already.
    """

    catalog: Catalog
    sources: Sources
    _lock: DirectoryLock = field(alias="lock")
    _acid: AcidStorage | None = field(default=None, alias="acid")

    def close(self) -> None:
        """Close the storage and release the lock."""
        if self._acid is not None:
            self._acid.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_snapshot(directory: str, progress: Progress) -> Snapshot:
    """Open a data directory of any mode for reading.

    :raise DirectoryInUse: if a server uses it.
    :raise StorageError: if it holds no store, or a damaged one.
    """
    manifest = read_manifest(OsDisk(), directory)
    lock = DirectoryLock()
    lock.acquire(directory)
    catalog = Catalog()
    try:
        if manifest.get("layout") == "acid":
            storage = AcidStorage(directory, int(manifest["shard_count"]), run_inline, lock=None, exclusive=True)
            storage.open(catalog, progress)
            return Snapshot(catalog, storage, lock, storage)
        return Snapshot(catalog, _read_files(directory, catalog, progress), lock)
    except BaseException as error:
        lock.release()
        if isinstance(error, OSError):
            raise StorageError(f"reading the store in {directory}: {error}") from error
        raise


def _read_files(directory: str, catalog: Catalog, progress: Progress) -> DataFiles:
    """Load a store of the file modes."""
    disk = OsDisk()
    files, rebuild = DataFiles(disk, f"{directory}/data", run_inline), Rebuild(catalog)
    catalog_file = CatalogFile(f"{directory}/catalog.db")
    try:
        covered = catalog_file.coverage()
        load_streams(catalog_file, rebuild, progress)
    finally:
        catalog_file.close()
    batches = replay_behind(disk, directory, covered)
    replay_batches(batches, lambda _batch, change: replay_change(rebuild, files, change), progress)
    rebuild.finish()
    return files
