"""The ``acid`` mode on the simulated disk: power losses, kills and faults at every step, seed by seed.

SQLite runs over the simulated disk with one connection for each shard, since the disk has no shared memory. The
clients and the model are those of the file modes' simulation.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from random import Random
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from dstreams.model.changes import Change, Create, Delete, Touch
from dstreams.runtime.timers import Clocks, TimerWheel
from dstreams.storage.acid import AcidStorage
from dstreams.storage.acid.group import home
from dstreams.storage.acid.layout import Layout
from dstreams.storage.acid.shard import Shard
from dstreams.storage.interface import StorageError
from dstreams.streams.streams import Streams
from tests.crash.disk import Fault, Mount, Platter, Step
from tests.crash.expectation import Expectation, View
from tests.crash.history import History, Violation
from tests.crash.machine import DIRECTORY, LIMITS, Process, Recorder
from tests.crash.sqlite_vfs import quiet
from tests.crash.workload import Workload

GENERATIONS = 4

SEEDS = (1333,)
"""1333: a deletion that was refused for lack of space came back, since older bytes in the WAL completed its frames."""


@define(eq=False)
class AcidProcess(Process):
    """One process with an acid store."""

    shard_count: int = 1

    def __attrs_post_init__(self) -> None:
        store = AcidStorage(
            DIRECTORY,
            self.shard_count,
            self.threads.run,
            exclusive=True,
            parallel=1,
            disk=self.mount,
            connect=self.connect,
            lock=None,
            free_space=lambda: None,
            now_ns=self.now_ns,
            recent_bytes=5_000,
        )
        self.store = cast("Any", store)
        self._recorder = Recorder(self.store, self.mount, self.history)
        wall = Clocks(self.clock.seconds, self.clock.seconds)
        self.streams = Streams(self._recorder, TimerWheel(self.clock), LIMITS, wall)

    @property
    def acid(self) -> AcidStorage:
        return cast("AcidStorage", self.store)

    def open(self) -> None:
        super().open()
        # A WAL of a few commits: checkpoints happen all the time.
        self.acid._maintenance._limit = 12
        self.acid._maintenance._note_after = 10

    def views(self) -> dict[int, View]:
        catalog = self.streams._durable
        for state in catalog.streams.values():
            if catalog.names.get(state.name) is not state and not state.soft_deleted:
                raise Violation(f"stream {state.id} can't be found by its name")
        if any(catalog.streams.get(state.id) is not state for state in catalog.names.values()):
            raise Violation("a name leads to a stream that is gone")
        return {state.id: self._view(state) for state in list(catalog.streams.values())}


class AcidWorkload(Workload):
    """Clients of an acid store."""

    def checkpoint(self) -> None:
        """Checkpoints come by themselves."""

    def touch(self) -> None:
        """The engine keeps when a stream was last used."""
        state = self._existing()
        if state is not None:
            touch = Touch(state.id, self.process.clock.seconds())
            self._send(lambda: self.process.streams._commit(None, touch, 0), lambda _: None)


@define(eq=False)
class AcidHistory(History):
    """The batches of a store of several shards: a crash may commit the last one in some of them only."""

    shard_count: int = 1

    def recovered(self, found: dict[int, View], *, power_lost: bool) -> int:
        assert self.durable
        state = self._base.copy()
        for changes in self._batches[: self._acknowledged]:
            state.apply(changes)
        in_flight = self._batches[self._acknowledged :]
        assert len(in_flight) <= 1, "a batch was given to the store while another was under way"
        # Never both: a batch in doubt is void before another one is written.
        for changes in (in_flight[0] if in_flight else (), self._doubtful):
            for candidate in self._outcomes(state, changes):
                if candidate.views() == found:
                    self._settle(candidate, 0, power_lost)
                    return 0
        raise Violation(self._describe(found, self._acknowledged))

    def _outcomes(self, state: Expectation, changes: Sequence[Change]) -> list[Expectation]:
        """What a crash in the middle of a batch may leave."""
        shards: dict[int, list[Change]] = {}
        births = {each.stream_id: each for each in changes if isinstance(each, Create)}
        births |= {stream_id: stream.create for stream_id, stream in state.streams.items()}
        for change in changes:
            stream_id = change.stream_ids[0] if isinstance(change, Delete) else change.stream_id
            create = births[stream_id]
            while create.fork is not None:
                create = births[create.fork.source_id]
            shards.setdefault(home(create.name, self.shard_count), []).append(change)
        outcomes = []
        for size in range(len(shards) + 1):
            for committed in itertools.combinations(shards, size):
                outcome = state.copy()
                # In their order: what a family of forks sees is all in one shard.
                for shard in committed:
                    outcome.apply(shards[shard])
                _settle_names(outcome)
                outcomes.append(outcome)
        return outcomes


def _settle_names(state: Expectation) -> None:
    """Of two streams with one name the older was deleted."""
    newest: dict[str, int] = {}
    for stream_id, stream in state.streams.items():
        newest[stream.create.name] = max(stream_id, newest.get(stream.create.name, 0))
    for stream_id in sorted(state.streams):
        stream = state.streams.get(stream_id)
        if stream is None or newest[stream.create.name] == stream_id or stream.soft_deleted:
            continue
        if _forks(state, stream_id):
            stream.soft_deleted = True
            continue
        doomed: int | None = stream_id
        while doomed is not None:
            fork = state.streams.pop(doomed).create.fork
            doomed = None if fork is None else fork.source_id
            if doomed is not None and (_forks(state, doomed) or not state.streams[doomed].soft_deleted):
                doomed = None


def _forks(state: Expectation, stream_id: int) -> int:
    creates = [stream.create for stream in state.streams.values()]
    return sum(create.fork is not None and create.fork.source_id == stream_id for create in creates)


@define(eq=False)
class Life:
    """The life of one store through several processes.

    :param sabotage: changes every process before it opens the store: a planted bug.
    :param trouble: what is wrong with the disk; drawn when it isn't said.
    """

    seed: int
    sabotage: Callable[[AcidProcess], object] = lambda _: None
    random: Random = field(init=False)
    platter: Platter = field(factory=Platter, init=False)
    clock: Clock = field(factory=Clock, init=False)
    history: AcidHistory = field(init=False)
    trouble: str | None = None
    steps: int = 0

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)
        self.history = AcidHistory(durable=True, shard_count=self.random.choice((1, 2, 4)))
        self.trouble = self.trouble or self.random.choice(("none", "none", "full", "broken", "commit"))

    def run(self) -> int:
        """Live; how many steps the disk has done."""
        self.clock.advance(1_000_000.0)
        mount = Mount(self.platter)
        mount.make_directories(DIRECTORY)
        mount.sync_directory("/")
        # The store's identity is drawn at random otherwise.
        with quiet(), patch("dstreams.storage.acid.layout.uuid4", lambda: UUID(int=self.seed)):
            for _ in range(GENERATIONS):
                self.work(self.recover())
            self.end(self.recover())
        return self.steps

    def recover(self) -> AcidProcess:
        """Open the store, cut off by crashes now and then, and check it."""
        for attempt in range(10):
            process = self.process()
            if attempt < 9 and self.random.random() < 0.4:
                process.mount.crash_at = self.random.randint(1, self.random.choice((10, 40, 120)))
                process.mount.crash_how = self.random.choice(("before", "during", "after"))
            if not self.open(process):
                self.crash(process)
                continue
            process.mount.crash_at = None
            try:
                found = process.views()
            except StorageError as error:
                raise Violation(f"a stream can't be read: {error}") from error
            self.history.recovered(found, power_lost=True)
            problems = process.acid.problems()
            if problems:
                raise Violation(f"the check finds {problems}")
            if attempt == 9 or self.random.random() < 0.7:
                return process
            self.crash(process)
        raise AssertionError

    def process(self) -> AcidProcess:
        process = AcidProcess(Mount(self.platter), self.history, self.clock, shard_count=self.history.shard_count)
        self.sabotage(process)
        return process

    def open(self, process: AcidProcess) -> bool:
        """Whether it could be opened; else it was cut off."""
        try:
            process.open()
        except (StorageError, OSError) as error:
            if not process.mount.off:
                raise Violation(f"the store refuses to open: {error}") from error
        return not process.mount.off

    def work(self, process: AcidProcess) -> None:
        """Let clients work until the process ends in one way or another."""
        mount, random = process.mount, self.random
        workload = AcidWorkload(process, random, lambda error: self.refused(process, error))
        if random.random() < 0.7:
            mount.crash_at = mount.steps + random.randint(1, random.choice((10, 60, 250)))
            mount.crash_how = random.choice(("before", "during", "after"))
        mount.fault = self.faults()
        haste = random.choice((0.2, 0.5, 0.8))
        for _ in range(random.choice((5, 30, 80))):
            if mount.off:
                break
            if process.threads and random.random() < haste:
                process.threads.step(random.randrange(len(process.threads)))
            else:
                workload.step()
            process.raise_problems()
        if not mount.off and random.random() < 0.4:
            if random.random() < 0.5:
                process.close()
            process.drain()
            process.raise_problems()
            if not mount.off and workload.unanswered:
                raise Violation(f"{workload.unanswered} requests were never answered")
        self.crash(process)

    def faults(self) -> Callable[[Step], Fault | None]:
        """What goes wrong with the disk while one process works."""
        random = self.random
        if self.trouble == "full":
            chance = random.choice((0.01, 0.1))
            return lambda step: (
                Fault(errno.ENOSPC, random.choice((None, 0, 600)))
                if step.kind == "write" and random.random() < chance
                else None
            )
        if self.trouble == "broken":
            when = random.randint(0, 80)
            return lambda step: Fault(errno.EIO, random.choice((None, 10))) if step.number == when else None
        if self.trouble == "commit":
            syncs = itertools.count(-random.randint(0, 12))
            return lambda step: (
                Fault(errno.EIO) if (step.kind, step.path[-4:]) == ("sync", "-wal") and not next(syncs) else None
            )
        return lambda _: None

    def refused(self, process: AcidProcess, error: BaseException) -> None:
        if self.trouble == "none" and not process.closed:
            raise Violation(f"a request was refused on a sound disk: {error}")

    def crash(self, process: AcidProcess) -> None:
        self.steps += process.mount.steps
        process.end()
        if self.random.random() < 0.7:
            self.platter.lose_power(self.random)

    def end(self, process: AcidProcess) -> None:
        """After an orderly end nothing is left that isn't needed."""
        process.drain()
        process.streams._commits.settled()
        while process.acid._maintenance.purging:
            process.acid._maintenance.go_on()
            if not process.threads:
                raise Violation("deleted streams are never purged")
            process.drain()
        process.close()
        process.drain()
        expected = {f"{DIRECTORY}/acid/shard_{number:02x}.db" for number in range(self.history.shard_count)}
        expected |= {f"{DIRECTORY}/store.json", f"{DIRECTORY}/shards.json"}
        found = {path for path, _ in self.platter.files()}
        if found > expected:
            raise Violation(f"files are left: {found - expected}")
        process.end()


def live(seed: int, sabotage: Callable[[AcidProcess], object] = lambda _: None, trouble: str | None = None) -> int:
    """One seed."""
    try:
        return Life(seed, sabotage, trouble).run()
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation}") from violation


class CrashTests:
    @pytest.mark.parametrize("block", range(4))
    def test_whatever_happens(self, block: int) -> None:
        """After any crash a store holds all that was acknowledged and, shard by shard, all or nothing of the rest."""
        for seed in range(block * 25, block * 25 + 25):
            live(seed)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_seeds_that_have_found_something(self, seed: int) -> None:
        """What a seed has found once stays found."""
        live(seed)

    def test_a_refused_commit_that_comes_back(self) -> None:
        """Without voiding commits that found no room, a refused deletion is found by the next start."""
        with patch.object(Shard, "void", lambda _: None), pytest.raises(Violation, match="is missing"):
            live(1333)


Plant = Callable[[], AbstractContextManager[object]]


def _lying(kind: str, path: str) -> Callable[[AcidProcess], object]:
    """Syncs of that kind, of files that end so, do nothing."""

    def sabotage(process: AcidProcess) -> None:
        process.mount.lies = lambda step: step.kind == kind and step.path.endswith(path)

    return sabotage


def _configure_unsynced(shard: Shard) -> None:
    _configure(shard)
    shard.database.execute("PRAGMA synchronous = NORMAL")


_configure = Shard.configure


def _passing(error: BaseException, doing: str) -> StorageError:
    return StorageError(f"{doing}: {error}")


PLANTS: dict[str, Plant] = {
    "commits don't sync": lambda: patch.object(Shard, "configure", _configure_unsynced),
    "each statement commits": lambda: patch.multiple(
        Shard, begin=lambda _: None, commit=lambda _: None, roll_back=lambda _: None
    ),
    "a WAL is read that may not be durable": lambda: patch.object(Layout, "_secure_wals", lambda *_: None),
    "the store goes on after a failed commit": lambda: patch("dstreams.storage.acid.writer.commit_fault", _passing),
    "used ids are forgotten": lambda: patch.object(Shard, "last_id", lambda _: 0),
    "nothing is planted": nullcontext,
}


class PlantedBugTests:
    """Each planted bug is found within some seeds, so that what isn't found has been looked for."""

    @pytest.mark.parametrize("bug", sorted(PLANTS))
    def test_a_bug_in_the_store(self, bug: str) -> None:
        """A store that takes a short cut breaks its promise; without one the same seeds are all right."""
        trouble = "commit" if bug == "the store goes on after a failed commit" else None
        with PLANTS[bug]():
            found = _first_violation(lambda _: None, 40 if bug == "nothing is planted" else 300, trouble)
        assert (found is None) == (bug == "nothing is planted")

    @pytest.mark.parametrize(
        ("kind", "path"), [("sync", "-wal"), ("sync", ".db"), ("sync", ".new"), ("sync_directory", "/acid")]
    )
    def test_a_disk_that_lies(self, kind: str, path: str) -> None:
        """No sync can be left out."""
        assert _first_violation(_lying(kind, path), 300) is not None


def _first_violation(sabotage: Callable[[AcidProcess], object], seeds: int, trouble: str | None = None) -> int | None:
    for seed in range(seeds):
        try:
            live(seed, sabotage, trouble)
        except Violation:
            return seed
    return None
