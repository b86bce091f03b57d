"""A store that runs on the simulated disk: one process, with its threads made explicit.

What the server would do in a thread waits in a queue until the driver lets it run. So commits stay in flight for as
long as the driver likes, and checkpoints interleave with everything else, the same way for the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Change
from dstreams.model.state import StreamState
from dstreams.protocol.producers import unpack
from dstreams.runtime.pending import Pending, as_deferred
from dstreams.runtime.progress import Progress
from dstreams.runtime.timers import Clocks, TimerWheel
from dstreams.storage.acid.faults import Undecided
from dstreams.storage.damage import DamageLog
from dstreams.storage.disk import File
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import ByteSource, Charges, StorageError, Verified
from dstreams.storage.sync import Syncer
from dstreams.streams.limits import StoreLimits
from dstreams.streams.streams import Streams
from tests.crash.disk import MachineOff, Mount
from tests.crash.expectation import View, config_of, fork_of
from tests.crash.history import History, Violation
from tests.crash.sqlite_vfs import SimConnection

_T = TypeVar("_T")

DIRECTORY = "/store"

RESERVE_BYTES = 2000

LIMITS = StoreLimits(total_bytes=1 << 40, stream_bytes=1 << 30)


@define(eq=False)
class Threads:
    """Work that waits for its turn."""

    _waiting: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = field(factory=list, init=False)

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Queue a call (a ``Run``)."""
        done: Deferred[Any] = Deferred()
        self._waiting.append((done, function, args))
        return done

    def __len__(self) -> int:
        return len(self._waiting)

    def step(self, number: int = 0) -> None:
        """Let one queued call run and report."""
        done, function, args = self._waiting.pop(number)
        try:
            result = function(*args)
        except Exception:
            done.errback(Failure())
        else:
            done.callback(result)


@define(eq=False)
class QueuedSyncer:
    """Syncs when its turn comes (a ``Syncer``)."""

    _threads: Threads
    name: str = field(default="queued", init=False)

    def sync(self, file: File) -> Deferred[None]:
        return self._threads.run(file.sync)

    def close(self) -> None:
        pass


@define(eq=False)
class Recorder:
    """Writes down what a store is given and what it acknowledges (a ``Storage``)."""

    store: FileStorage
    _mount: Mount
    _history: History
    # The journal's number of every batch, where it is known at once, and how many batches came before.
    _sequences: list[int] = field(factory=list, init=False)
    _before: int = field(default=0, init=False)
    name: str = field(default="recorded", init=False)

    @property
    def immediate(self) -> bool:
        return self.store.immediate

    @property
    def persistent(self) -> bool:
        return self.store.persistent

    @property
    def charges(self) -> Charges:
        return self.store.charges

    @property
    def failure(self) -> str | None:
        return self.store.failure

    @property
    def damage(self) -> DamageLog:
        return self.store.damage

    def scrub(self) -> Iterator[Deferred[Verified]]:
        return self.store.scrub()

    def open(self, catalog: Catalog, progress: Progress) -> None:
        self.store.open(catalog, progress)

    def next_stream_id(self) -> int:
        return self.store.next_stream_id()

    def source(self, state: StreamState) -> ByteSource:
        return self.store.source(state)

    def close(self) -> Deferred[None] | None:
        return self.store.close()

    def commit(self, changes: Sequence[Change]) -> Deferred[None] | None:
        if self.store.failure is None:
            self._history.accept(changes)
        try:
            done = self.store.commit(changes)
        except StorageError as error:
            self._refused(error)
            raise
        if done is None:
            self._acknowledged()
            return None
        return done.addCallbacks(lambda _: self._acknowledged(), self._failed)

    def checkpointed(self, position: int) -> None:
        """A checkpoint covers all batches below ``position``."""
        if not self._history.durable:
            self._history.checkpointed(self._before + sum(number < position for number in self._sequences))

    def _acknowledged(self) -> None:
        if not self._history.durable:
            if not self._sequences:
                self._before = self._history.acknowledged
            self._sequences.append(self.store._journal.next_sequence - 1)
        if not self._mount.off:
            self._history.acknowledge()

    def _failed(self, failure: Failure) -> Failure:
        self._refused(failure.value)
        return failure

    def _refused(self, error: BaseException | None) -> None:
        """Unless the store is dead now or can't tell, it promises that nothing of the batch is left."""
        if self._mount.off or self.store.failure is not None:
            return
        if isinstance(error, Undecided):
            self._history.doubt()
        else:
            self._history.refuse()


@define(eq=False)
class Process:
    """One process on the disk.

    :param checkpoint_bytes: how small the segments are.
    :param now_ns: the clock that stream ids begin at.
    :param spare_after: when a spare segment is made, ``None`` for never, and in which pieces.
    """

    mount: Mount
    history: History
    clock: Clock
    checkpoint_bytes: int = 1000
    now_ns: Callable[[], int] = lambda: 0
    make_syncer: Callable[[Threads], Syncer] = QueuedSyncer
    spare_after: int | None = 100
    spare_piece: int = 300
    threads: Threads = field(factory=Threads, init=False)
    store: FileStorage = field(init=False)
    streams: Streams = field(init=False)
    # What clients found wrong, where it could not be raised.
    problems: list[Violation] = field(factory=list, init=False)
    _connections: list[SimConnection] = field(factory=list, init=False)
    closed: bool = field(default=False, init=False)
    _recorder: Recorder = field(init=False)
    _checkpoints_seen: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        make_syncer = (lambda: self.make_syncer(self.threads)) if self.history.durable else None
        self.store = FileStorage(
            DIRECTORY,
            make_syncer,
            self.threads.run,
            self.checkpoint_bytes,
            disk=self.mount,
            connect=self.connect,
            lock=None,
            now_ns=self.now_ns,
            reserve_bytes=RESERVE_BYTES,
            spare_after=self.spare_after,
            spare_piece=self.spare_piece,
        )
        self._recorder = Recorder(self.store, self.mount, self.history)
        wall = Clocks(self.clock.seconds, self.clock.seconds)
        self.streams = Streams(self._recorder, TimerWheel(self.clock), LIMITS, wall)

    def connect(self, path: str) -> SimConnection:
        """Open a database on the mount (a ``Connect``)."""
        connection = SimConnection(self.mount, path)
        self._connections.append(connection)
        return connection

    def make_directory(self) -> None:
        """Make the data directory, as the lock does it in a real process."""
        self.mount.make_directories(DIRECTORY)

    def open(self) -> None:
        """Recover.

        :raise StorageError:
        """
        self.make_directory()
        self.streams.open()

    def end(self) -> None:
        """The process is dead: nothing that it still tries reaches the disk."""
        self.mount.off = True
        for connection in self._connections:
            connection.close()
        self.streams._wheel.stop()

    def close(self) -> None:
        """Begin to close the store as a server that stops does."""
        self.closed = True
        self.streams.close()

    def note_progress(self) -> None:
        """Tell the history what a checkpoint has made safe from power loss, if one has been taken."""
        checkpoints = self.store._checkpoints
        if not self.mount.off and not self.closed and checkpoints.count > self._checkpoints_seen:
            self._checkpoints_seen = checkpoints.count
            position = checkpoints._catalog_file.coverage().position
            self._recorder.checkpointed(position)

    def raise_problems(self) -> None:
        """Raise what a client has found wrong, if one has."""
        if self.problems:
            raise self.problems[0]

    def wait(self, value: Pending[_T]) -> _T:
        """The value of an operation, letting threads run as long as it takes.

        :raise Violation: when nothing is left that could fire it.
        """
        results: list[Any] = []
        as_deferred(value).addBoth(results.append)
        while not results:
            if not self.threads:
                raise Violation("an answer never comes: nothing is under way that it could wait for")
            self.threads.step()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        found: _T = results[0]
        return found

    def drain(self) -> None:
        """Let all threads finish."""
        while self.threads:
            self.threads.step()

    def views(self) -> dict[int, View]:
        """Every stream as readers see it.

        :raise Violation: when a read contradicts itself.
        """
        catalog = self.streams._durable
        if {id(state) for state in catalog.names.values()} != {id(state) for state in catalog.streams.values()}:
            raise Violation("names and ids don't agree")
        usage = self.streams._usage
        if usage.used != sum(map(usage.cost, catalog.streams.values())):
            raise Violation("the running counter of used bytes is wrong")
        return {stream_id: self._view(state) for stream_id, state in list(catalog.streams.items())}

    def _view(self, state: StreamState) -> View:
        closed_by = state.closed_by
        producers = state.producers or {}
        return View(
            name=state.name,
            config=config_of(state),
            fork=fork_of(state),
            start=state.start,
            content=self._content(state),
            groups=self._groups(state),
            closed=state.closed,
            closed_by=None if closed_by is None else (closed_by.id, closed_by.epoch, closed_by.seq),
            stream_seq=state.stream_seq,
            producers=tuple(sorted((name, *unpack(last)) for name, last in producers.items())),
            soft_deleted=state.soft_deleted,
            forks=state.forks,
            times=(state.created_at, state.updated_at, state.touched_at),
        )

    def _content(self, state: StreamState) -> bytes:
        found = self.wait(self.streams.read(state, 0, 1 << 40))
        if not len(found):
            return b""
        whole = self.wait(found.read(found.start, found.end))
        middle = found.start + len(found) // 3
        parts = self.wait(found.read(found.start, middle)) + self.wait(found.read(middle, found.end))
        if parts != whole or len(whole) != state.tail:
            raise Violation(f"{state.name} reads {len(whole)} bytes at once, {len(parts)} in parts of {state.tail}")
        return whole

    def _groups(self, state: StreamState) -> tuple[tuple[int, ...], ...]:
        source = self.store.source(state)
        groups: list[tuple[int, ...]] = []
        position, messages = state.start, 0
        while position < state.tail:
            found: Sequence[int] = self.wait(source.append_ends(position))
            group = tuple(found)
            groups.append(group)
            position, messages = group[-1], messages + len(group)
        if messages != state.messages:
            raise Violation(f"{state.name} has {messages} messages in its index, {state.messages} in its state")
        ends = [end for group in groups for end in group]
        for end in ends[:: max(1, len(ends) // 8)]:
            # Just before an end there is one only after a message of one byte.
            alone = end - 1 in ends
            if self.wait(source.floor(end)) != end or (
                end - 1 > state.start and (self.wait(source.floor(end - 1)) == end - 1) != alone
            ):
                raise Violation(f"{state.name} has other boundaries one by one than in a row")
        return tuple(groups)


__all__ = ["DIRECTORY", "MachineOff", "Process", "QueuedSyncer", "Recorder", "Threads"]
