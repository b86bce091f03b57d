"""What the tests of ``acid`` share: stores that are opened, crash and fail as a test wants it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from dstreams.model.changes import Append, Create, Delete, ForkPoint, StreamConfig
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import parse_content_type
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid import AcidStorage
from dstreams.storage.interface import ByteSource
from dstreams.storage.stream_rows import COLUMNS, Connection, connect, stream_crc
from dstreams.streams.limits import StoreLimits
from tests.support.engine import Engine

SHARDS = 4

PLAIN = StreamConfig(parse_content_type(b"text/plain"))


def acid(directory: Path, shard_count: int = SHARDS, **options: Any) -> AcidStorage:
    """A store that works in the calling thread and commits shard after shard.

    It doesn't sync, unless ``connect`` says so: a copy of its files is what a killed process leaves either way.
    """
    run = options.pop("run", run_inline)
    return AcidStorage(str(directory), shard_count, run, **({"parallel": 1, "connect": unsynced} | options))


def engine(directory: Path, shard_count: int = SHARDS, clock: Clock | None = None, **options: Any) -> Engine:
    """A server over such a store, opened."""
    return Engine(acid(directory, shard_count, **options), StoreLimits(1 << 40, 1 << 40), clock=clock or Clock())


def unsynced(path: str) -> Connection:
    """Open a database that is never synced (a ``Connect``)."""
    return _UnsyncedConnection(connect(path))


@define(eq=False)
class _UnsyncedConnection:
    _inner: Connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        if sql.startswith("PRAGMA synchronous"):
            sql = "PRAGMA synchronous = OFF"
        return self._inner.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any:
        return self._inner.executemany(sql, parameters)

    def close(self) -> None:
        self._inner.close()


def reseal(database: Connection) -> None:
    """Give the rows of all streams the checksums that fit them, as if a fault of the server had written them so."""
    for values in database.execute(f"SELECT {', '.join(COLUMNS)} FROM streams").fetchall():
        database.execute("UPDATE streams SET crc = ? WHERE id = ?", (stream_crc(*values), values[0]))


def crashed(directory: Path) -> Path:
    """What a killed process would leave now: a copy to open."""
    copy = directory.with_name(directory.name + "-crashed")
    while copy.exists():
        copy = copy.with_name(copy.name + "+")
    shutil.copytree(directory, copy)
    return copy


def now(outcome: Any) -> Any:
    """The value of what must not wait; raises when it failed."""
    if not isinstance(outcome, Deferred):
        return outcome
    results: list[Any] = []
    outcome.addBoth(results.append)
    assert results, "still waiting"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def contents(served: Engine) -> dict[str, object]:
    """Everything that a server would tell of its streams."""
    found: dict[str, object] = {}
    for state in served.streams._durable.streams.values():
        key = state.name if not state.soft_deleted else f"{state.name} (deleted)"
        assert key not in found
        taken = now(served.streams.read(state, 0, 1 << 40))
        data = now(taken.read(0, taken.end)) if len(taken) else b""
        found[key] = (
            data,
            state.id,
            state.config,
            state.fork,
            (state.start, state.tail, state.messages, state.forks),
            (state.closed, state.closed_by, state.stream_seq),
            dict(state.producers or {}),
            (state.created_at, state.updated_at, state.touched_at),
        )
    return found


def boundaries(source: ByteSource, state: StreamState) -> list[object]:
    """What the index answers at every position of a (small) stream."""
    answers: list[object] = [now(source.floor(position)) for position in range(state.start, state.tail + 1)]
    for position in range(state.start, state.tail):
        answers.append(list(now(source.append_ends(position))))
        answers.append([now(source.extent(position, limit)) for limit in (1, 2, 3, 10, 100, 10_000)])
    return answers


@define(eq=False)
class HeldRun:
    """Threads that work only when a test lets them."""

    held: bool = True
    _waiting: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = field(factory=list, init=False)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        if not self.held:
            return run_inline(function, *arguments)
        done: Deferred[Any] = Deferred()
        self._waiting.append((done, function, arguments))
        return done

    @property
    def waiting(self) -> int:
        """How much there is to do."""
        return len(self._waiting)

    def step(self) -> None:
        """Do the next thing."""
        done, function, arguments = self._waiting.pop(0)
        run_inline(function, *arguments).addBoth(done.callback)

    def finish(self) -> None:
        """Do everything."""
        while self._waiting:
            self.step()

    def release(self) -> None:
        """Do everything, and all that comes later at once."""
        self.held = False
        self.finish()


@define(eq=False)
class FaultyDisk:
    """Makes statements fail: the ``nth`` from now on, counted over all connections.

    :param error: its SQLite error code.
    :param only: counts statements that begin with this only.
    :param lasting: whether all later ones fail, too.
    :param log: every statement that was executed.
    """

    nth: int = 0
    error: int = sqlite3.SQLITE_IOERR
    only: str = ""
    lasting: bool = False
    done_first: bool = False
    log: list[str] = field(factory=list)

    def connect(self, path: str) -> Connection:
        """Open a database (a ``Connect``)."""
        return _FaultyConnection(self, unsynced(path))

    def fail(self, nth: int, error: int, only: str = "", lasting: bool = False, done_first: bool = False) -> None:
        """Let a statement fail.

        :param done_first: whether it takes effect all the same, as a commit whose sync fails may.
        """
        self.nth, self.error, self.only, self.lasting, self.done_first = nth, error, only, lasting, done_first

    def check(self, sql: str, act: Callable[[], Any]) -> Any:
        self.log.append(sql)
        if self.nth and sql.startswith(self.only):
            self.nth -= 1
            if not self.nth:
                if self.lasting:
                    self.nth = 1
                if self.done_first:
                    act()
                failure = sqlite3.OperationalError(f"the test's disk failed at {sql}")
                failure.sqlite_errorcode = self.error
                raise failure
        return act()


@define(eq=False)
class _FaultyConnection:
    _disk: FaultyDisk
    _inner: Connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        return self._disk.check(sql, lambda: self._inner.execute(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any:
        return self._disk.check(sql, lambda: self._inner.executemany(sql, parameters))

    def close(self) -> None:
        self._inner.close()


def create(stream_id: int, name: str, data: bytes = b"", fork: ForkPoint | None = None) -> Create:
    """A stream with one message, or none."""
    start = 0 if fork is None else fork.position
    return Create(stream_id, name, PLAIN, fork, data, (start + len(data),) if data else (), False, 1.0)


def append(stream_id: int, start: int, *messages: bytes, closes: bool = False) -> Append:
    """Messages, appended at once."""
    ends, end = [], start
    for message in messages:
        end += len(message)
        ends.append(end)
    return Append(stream_id, start, b"".join(messages), tuple(ends), None, None, closes, 2.0)


def delete(*stream_ids: int, released: tuple[int, ...] = ()) -> Delete:
    """A deletion."""
    return Delete(stream_ids, released, 3.0)
