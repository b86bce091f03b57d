"""Creates a directory of shards, and opens all of its shards or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from uuid import uuid4

from attrs import frozen

from dstreams.storage.acid.shard import MEMORY, Shard
from dstreams.storage.directory import FORMAT, check_manifest, read_members, write_members
from dstreams.storage.disk import Disk, write_all
from dstreams.storage.interface import StorageError
from dstreams.storage.stream_rows import Connect
from dstreams.storage.wal import check_wal

FOLDER: Final = "acid"
IDENTITY: Final = "shards.json"

CACHE_BYTES: Final = 64 * 1024 * 1024
LEAST_CACHE_BYTES: Final = 512 * 1024
"""All shards together cache CACHE_BYTES of their databases in memory, but each at least LEAST_CACHE_BYTES."""

COPY_BYTES: Final = 1024 * 1024
"""Maximum bytes of a WAL that are rewritten in one step."""


@frozen
class Layout:
    """Where the shards are and how they are opened.

    :param directory: the data directory.
    :param shard_count: a power of two.
    :param exclusive: see ``Shard``.
    """

    disk: Disk
    directory: str
    shard_count: int
    connect: Connect
    exclusive: bool

    @property
    def cache_bytes(self) -> int:
        """Maximum bytes of its database that each connection may cache in memory."""
        return max(LEAST_CACHE_BYTES, CACHE_BYTES // self.shard_count)

    def open(self) -> list[Shard]:
        """Open all shards. They are created first if the directory is empty.

        :raise StorageError: if one is missing, damaged, or not the expected one.
        """
        check_manifest(
            self.disk,
            self.directory,
            {"layout": "acid", "format": FORMAT, "shard_count": self.shard_count, "hash": "crc32"},
        )
        folder = f"{self.directory}/{FOLDER}"
        self.disk.make_directories(folder)
        # An interrupted start may have written the manifest and the folder without making them durable.
        self.disk.sync_directory(self.directory)
        found = set(self.disk.list(folder))
        if IDENTITY not in self.disk.list(self.directory):
            return self._create(folder, found)
        store = self._identity(found)
        wals = [name for name in self._names() if f"{name}-wal" in found]
        for name in wals:
            wal = self.disk.open(f"{folder}/{name}-wal")
            if not check_wal(wal, self.disk.open(f"{folder}/{name}", write=False)):
                # SQLite would use the salts of a torn header for the next round, and old frames have the same salts.
                wal.truncate(0)
        self._secure_wals(folder, wals)
        return self._open_shards(folder, store)

    def open_to_check(self) -> list[Shard]:
        """Open the shards of a store as they are, without writing anything. The connections must be read-only.

        :raise StorageError: if the server could not start with this store.
        """
        folder = f"{self.directory}/{FOLDER}"
        found = set(self.disk.list(folder))
        if IDENTITY not in self.disk.list(self.directory):
            for name in sorted(found):
                if name.endswith(".db"):
                    self._check_unused(f"{folder}/{name}")
            return []
        store = self._identity(found)
        for name in self._names():
            if f"{name}-wal" in found:
                files = [self.disk.open(f"{folder}/{each}", write=False) for each in (f"{name}-wal", name)]
                check_wal(*files)
        paths = [f"{folder}/{name}" for name in self._names()]
        return self._open_all(paths, lambda shard: shard.verify(store))

    def _identity(self, found: set[str]) -> str:
        """Return the store's identity, after checking that all shards exist.

        :param found: the names of the files in the shards' folder.
        """
        missing = [name for name in self._names() if name not in found]
        if missing:
            raise StorageError(
                f"{self.directory}/{FOLDER}: {len(missing)} of {self.shard_count} shards are missing"
                f" ({', '.join(missing[:3])}); restore the directory from a backup"
            )
        return str(read_members(self.disk, f"{self.directory}/{IDENTITY}").get("store"))

    def _secure_wals(self, folder: str, names: Sequence[str]) -> None:
        """Make the WALs durable before they are read.

        A process that was killed, or whose sync failed, leaves commits that are only in the page cache. Readers will
        see them, so a power loss must not remove them. They are written again, because after a failed sync the kernel
        regards the pages as written, and another sync alone would do nothing.
        """
        for name in names:
            file = self.disk.open(f"{folder}/{name}-wal")
            for offset in range(0, file.size(), COPY_BYTES):
                write_all(file, file.pread(COPY_BYTES, offset), offset)
            file.sync()
        self.disk.sync_directory(folder)

    def open_in_memory(self) -> list[Shard]:
        """Return new shards in memory, which are lost when they are closed."""
        return self._open_all([MEMORY] * self.shard_count, lambda shard: shard.create(MEMORY))

    def _create(self, folder: str, found: set[str]) -> list[Shard]:
        """Create the shards, after removing those that an interrupted first start has left.

        A shard gets its name only when it is complete. So a shard that cannot be read is damaged, not incomplete.
        """
        for name in sorted(found):
            if name.endswith(".db"):
                self._check_unused(f"{folder}/{name}")
        for name in sorted(found):
            self.disk.unlink(f"{folder}/{name}")
        store = uuid4().hex
        for number, name in enumerate(self._names()):
            self._create_shard(number, f"{folder}/{name}", store)
        self.disk.sync_directory(folder)
        write_members(self.disk, self.directory, IDENTITY, {"store": store})
        return self._open_shards(folder, store)

    def _create_shard(self, number: int, path: str, store: str) -> None:
        new = path + ".new"
        try:
            shard = self._shard(number, new)
            try:
                shard.create(store)
            finally:
                shard.close(clean=False)
        except Exception as error:
            raise unusable(new, error) from error
        self.disk.rename(new, path)

    def _open_shards(self, folder: str, store: str) -> list[Shard]:
        def prepare(shard: Shard) -> None:
            shard.verify(store)
            shard.configure()

        return self._open_all([f"{folder}/{name}" for name in self._names()], prepare)

    def _check_unused(self, path: str) -> None:
        """Check that a shard was never used, because only such a shard may be created again.

        :raise StorageError: if it contains streams or cannot be read.
        """
        shard = None
        try:
            shard = self._shard(0, path)
            unused = shard.is_unused()
        except Exception as error:
            raise unusable(path, error) from error
        finally:
            if shard is not None:
                shard.close(clean=False)
        if not unused:
            raise StorageError(
                f"{self.directory} has no {IDENTITY}, but {path} holds streams; restore the directory from a backup"
            )

    def _open_all(self, paths: Sequence[str], prepare: Callable[[Shard], None]) -> list[Shard]:
        shards: list[Shard] = []
        for number, path in enumerate(paths):
            try:
                shards.append(self._shard(number, path))
                prepare(shards[-1])
            except Exception as error:
                close_all(shards)
                raise error if isinstance(error, StorageError) else unusable(path, error) from error
        return shards

    def _shard(self, number: int, path: str) -> Shard:
        return Shard(number, path, self.connect, self.cache_bytes, self.exclusive)

    def _names(self) -> Sequence[str]:
        return [f"shard_{number:02x}.db" for number in range(self.shard_count)]


def close_all(shards: Sequence[Shard]) -> None:
    """Close shards that were only read, without finishing pending work."""
    for shard in shards:
        shard.close(clean=False)


def unusable(path: str, error: Exception) -> StorageError:
    """Return the error for a shard that cannot be used, with a text for the operator."""
    return StorageError(f"{path} can't be used: {error}; if it is damaged, restore the directory from a backup")
