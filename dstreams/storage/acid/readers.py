"""Reads from the shards in threads, in parallel with the thread that writes, as WAL mode allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from attrs import define, field

from dstreams.storage.acid.faults import is_damage
from dstreams.storage.acid.shard import Shard
from dstreams.storage.interface import StorageDamaged, StorageError
from dstreams.storage.stream_rows import Connect, Connection

_T = TypeVar("_T")

MAX_IDLE: Final = 32
"""Maximum number of idle connections kept for later reads. Each read in progress has a connection in addition."""


@define(eq=False)
class Readers:
    """Connections for reading. May be used from several threads."""

    _shards: Sequence[Shard]
    _connect: Connect
    _cache_bytes: int
    # (shard, connection), the least recently used first. A list's append, pop and remove are atomic.
    _idle: list[tuple[int, Connection]] = field(factory=list, init=False)
    _closed: bool = field(default=False, init=False)

    def ask(self, shard: int, question: Callable[..., _T], *arguments: int) -> _T:
        """Run a query function of ``chunks`` on a shard.

        :param arguments: passed to the function after the connection. The first one is the id of the stream that the
            query is about, except for ``chunks.verify``.
        :raise StorageDamaged: if the data that it needs is damaged.
        :raise StorageError: if it fails for another reason.
        """
        path = self._shards[shard].path
        if self._shards[shard].exclusive:
            return self._ask(path, self._shards[shard].database, question, arguments)
        try:
            database = self._take(shard) or self._open(path)
        except Exception as error:
            raise StorageError(f"opening {path} to read: {error}") from error
        try:
            answer = self._ask(path, database, question, arguments)
        except BaseException:
            database.close()
            raise
        self._idle.append((shard, database))
        self._close_down_to(0 if self._closed else MAX_IDLE)
        return answer

    def close(self) -> None:
        """Close the idle connections. Those in use are closed when their read ends."""
        self._closed = True
        self._close_down_to(0)

    def _close_down_to(self, count: int) -> None:
        while len(self._idle) > count:
            try:
                _, database = self._idle.pop(0)
            except IndexError:
                return  # another thread was faster
            database.close()

    @staticmethod
    def _ask(path: str, database: Connection, question: Callable[..., _T], arguments: tuple[int, ...]) -> _T:
        try:
            return question(database, *arguments)
        except StorageDamaged as error:
            raise StorageDamaged(f"{path}: {error}", error.stream_id, error.place) from error
        except Exception as error:
            if is_damage(error):
                raise StorageDamaged(f"reading {path}: {error}", arguments[0], "database") from error
            raise StorageError(f"reading {path}: {error}") from error

    def _take(self, shard: int) -> Connection | None:
        for each in reversed(self._idle[:]):
            if each[0] == shard:
                try:
                    self._idle.remove(each)
                except ValueError:
                    continue  # another thread was faster
                return each[1]
        return None

    def _open(self, path: str) -> Connection:
        database = self._connect(path)
        database.execute("PRAGMA query_only = ON")
        database.execute(f"PRAGMA cache_size = -{self._cache_bytes // 1024}")
        return database
