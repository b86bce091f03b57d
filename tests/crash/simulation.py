"""One seed: a store lives through several generations of processes, each ended by a crash, and keeps its promise.

In some seeds the disk has no room for a moment now and then; in a few it breaks: a write or a sync fails, and the
process that saw it takes no more changes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from unittest.mock import patch

from attrs import define, field, frozen
from twisted.internet.task import Clock

from dstreams.storage.files.segments import segments
from dstreams.storage.files.store import FileStorage
from dstreams.storage.files.verifying import verify_stream
from dstreams.storage.interface import StorageError
from tests.crash.disk import Fault, Mount, Platter, Step
from tests.crash.history import History, Violation
from tests.crash.machine import DIRECTORY, Process
from tests.crash.sqlite_vfs import quiet
from tests.crash.workload import Workload

GENERATIONS = 4
MAX_RECOVERIES = 12
"""How often in a row a recovery may be cut off by a crash."""


@frozen
class Outcome:
    """What a seed did, for the statistics.

    :param steps: calls that changed the disk.
    :param recoveries: how often the store was opened and checked.
    """

    steps: int = 0
    batches: int = 0
    crashes: int = 0
    recoveries: int = 0
    checkpoints: int = 0
    faults: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.steps + other.steps,
            self.batches + other.batches,
            self.crashes + other.crashes,
            self.recoveries + other.recoveries,
            self.checkpoints + other.checkpoints,
            self.faults + other.faults,
        )


@define(eq=False)
class Simulation:
    """The life of one store.

    :param sabotage: changes every process before it opens the store: a planted bug.
    """

    seed: int
    sabotage: Callable[[Process], object] = lambda _: None
    random: Random = field(init=False)
    platter: Platter = field(factory=Platter, init=False)
    history: History = field(init=False)
    clock: Clock = field(factory=Clock, init=False)
    outcome: Outcome = field(factory=Outcome, init=False)
    _checkpoint_bytes: int = field(init=False)
    _backlog: int = field(init=False)
    _cold: float = field(init=False)
    _spare_after: int | None = field(init=False)
    _spare_piece: int = field(init=False)
    _trouble: str = field(init=False)
    _now: int = field(default=0, init=False)
    # Whether power was lost since the last check.
    _power_lost: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)
        self.history = History(durable=self.random.random() < 0.7)
        self._checkpoint_bytes = self.random.choice((150, 600, 2000, 8000))
        self._backlog = self.random.choice((0, 1 << 30))
        self._cold = self.random.choice((0.0, 0.3))
        self._spare_after = self.random.choice((None, 0, 50, 50, 400))
        self._spare_piece = self.random.choice((200, 4000))
        self._trouble = self.random.choice(("none", "none", "none", "full", "broken"))

    def run(self) -> Outcome:
        """Live.

        :raise Violation: when the store breaks its promise.
        """
        self.clock.advance(1_000_000.0)
        small = patch.multiple(
            "dstreams.storage.files.checkpoint",
            MAX_BACKLOG=self._backlog,
            SLICE_STREAMS=self.random.choice((1, 2, 500)),
        )
        runs = patch.multiple(
            "dstreams.storage.files.runs",
            RUN_BYTES=self.random.choice((8, 30, 8192)),
            RUN_ENTRIES=self.random.choice((1, 3, 1024)),
            BLOCK_RUNS=self.random.choice((1, 3, 128)),
        )
        # Drawn apart, so that seeds that once found something still do the same.
        large = Random(f"large commits of {self.seed}").choice((0, 60, 1 << 20))
        in_threads = patch("dstreams.storage.files.store.LARGE_COMMIT_BYTES", large)
        with (
            small,
            runs,
            in_threads,
            patch("dstreams.storage.files.spare.PIECES", self.random.choice((1, 1, 16))),
            quiet(),
        ):
            for _ in range(GENERATIONS):
                self._work(self._recover())
            self._retire(self._recover())
        return self.outcome

    def _recover(self) -> Process:
        """Open the store, however often it takes, and check it."""
        for _ in range(MAX_RECOVERIES):
            process = self._process(crashes=self.random.random() < 0.3)
            if not self._open(process):
                continue
            self._check(process)
            if self.random.random() < 0.7:
                return process
            # Nothing was written since: the next one must find the same.
            self._crash(process)
        process = self._process(crashes=False)
        if not self._open(process):
            raise Violation("the store can't be opened, though nothing is wrong any more")
        self._check(process)
        return process

    def _process(self, *, crashes: bool) -> Process:
        mount = Mount(self.platter, cold=lambda: self.random.random() < self._cold)
        if crashes:
            mount.crash_at = self.random.randint(1, self.random.choice((5, 25, 60)))
            mount.crash_how = self.random.choice(("before", "during", "after"))
        process = Process(
            mount, self.history, self.clock, self._checkpoint_bytes, self._now_ns,
            spare_after=self._spare_after, spare_piece=self._spare_piece,
        )  # fmt: skip
        self.sabotage(process)
        return process

    def _now_ns(self) -> int:
        """A clock that stands still, so that ids must come from the store; it is the promise of durable modes only."""
        if not self.history.durable:
            self._now += 1 << 20
        return self._now

    def _open(self, process: Process) -> bool:
        """Whether recovery went through; else it was cut off."""
        mount = process.mount
        try:
            process.open()
        except StorageError as error:
            if not mount.off and not mount.faults:
                raise Violation(f"the store refuses to open: {error}") from error
        except OSError:
            if not mount.off:
                raise
        else:
            if not mount.off:
                mount.crash_at = None
                return True
        self._crash(process)
        return False

    def _check(self, process: Process) -> None:
        try:
            views = process.views()
        except StorageError as error:
            raise Violation(f"a stream can't be read: {error}") from error
        self._verify(process)
        self.history.recovered(views, power_lost=self._power_lost)
        self._power_lost = False
        self._count(recoveries=1)

    def _verify(self, process: Process) -> None:
        """The check of a directory finds nothing wrong with the files either."""
        if not isinstance(process.store, FileStorage):
            return
        files = process.store._files
        for state in process.store._catalog.streams.values():
            extent = files.source(state).extent_in_files()
            if extent.end > extent.start:
                for step in verify_stream(process.mount, files.paths(state.id), extent):
                    if step.damaged:
                        raise Violation(f"the check finds damage: {step.damaged[0]}")

    def _work(self, process: Process) -> None:
        """Let clients work until the process ends in one way or another."""
        mount, workload = process.mount, Workload(process, self.random, self._refused)
        if self.random.random() < 0.6:
            mount.crash_at = mount.steps + self.random.randint(1, self.random.choice((10, 50, 200)))
            mount.crash_how = self.random.choice(("before", "during", "after"))
        mount.fault = self._faults()
        before = self.history.total
        haste = self.random.choice((0.2, 0.5, 0.8))
        for _ in range(self.random.choice((5, 30, 80))):
            if mount.off:
                break
            if process.threads and self.random.random() < haste:
                process.threads.step(self.random.randrange(len(process.threads)))
            else:
                workload.step()
            process.note_progress()
            process.raise_problems()
        if not mount.off and self.random.random() < 0.3:
            self._finish(process, workload)
        self._count(batches=self.history.total - before, checkpoints=process.store._checkpoints.count)
        self._crash(process)

    def _finish(self, process: Process, workload: Workload) -> None:
        """Let everything come to its end, and perhaps close the store properly."""
        if self.random.random() < 0.5:
            process.close()
        process.drain()
        process.note_progress()
        process.raise_problems()
        if not process.mount.off and workload.unanswered:
            raise Violation(f"{workload.unanswered} requests were never answered")

    def _retire(self, process: Process) -> None:
        """After two checkpoints and an orderly end nothing is left that isn't needed."""
        for _ in range(2):
            process.store.checkpoint()
            process.drain()
        process.close()
        process.drain()
        needed = {f"{stream_id:016x}" for stream_id in self.history.acknowledged_state.streams}
        paths = [path for path, _ in self.platter.files() if path.startswith(f"{DIRECTORY}/data/")]
        orphans = [path for path in paths if path.rpartition("/")[2].partition(".")[0] not in needed]
        # In file-fast a power loss may take away a stream of which a checkpoint has just written files.
        if orphans and self.history.durable:
            raise Violation(f"files of deleted streams stay for ever: {orphans}")
        if len(segments(process.mount, f"{DIRECTORY}/journal")) > 2:
            raise Violation("segments stay for ever")
        self._crash(process)

    # --- trouble ---

    def _faults(self) -> Callable[[Step], Fault | None]:
        """What goes wrong with the disk while one process works."""
        random = self.random
        if self._trouble == "full":
            chance = random.choice((0.01, 0.1))
            kinds = ("open", "write", "truncate", "rename", "mkdir")
            return lambda step: (
                Fault(errno.ENOSPC, random.choice((None, 0, 10, 600)))
                if step.kind in kinds and random.random() < chance
                else None
            )
        if self._trouble == "broken":
            return _Breakdown(random)
        return lambda _: None

    def _refused(self, error: BaseException) -> None:
        """A request was refused for what isn't its own fault."""
        # file-fast says no rather than wait for a checkpoint that can't keep up.
        backlogged = not self.history.durable and not self._backlog
        if self._trouble == "none" and not backlogged:
            raise Violation(f"a request was refused on a sound disk: {error}")

    def _crash(self, process: Process) -> None:
        self._count(steps=process.mount.steps, crashes=1, faults=process.mount.faults)
        process.end()
        if self.random.random() < 0.7:
            self._power_lost = True
            self.platter.lose_power(self.random)

    def _count(self, **more: int) -> None:
        self.outcome += Outcome(**more)


@define(eq=False)
class _Breakdown:
    """One I/O error, at some step."""

    random: Random
    when: int = field(init=False)
    over: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.when = self.random.randint(0, 60)

    def __call__(self, step: Step) -> Fault | None:
        # A failed sync of the catalog followed by a power loss in the very next recovery is more than SQLite bears.
        if self.over or step.number < self.when or "catalog" in step.path:
            return None
        self.over = True
        return Fault(errno.EIO, self.random.choice((None, 10)))


def run(seed: int, sabotage: Callable[[Process], object] = lambda _: None) -> Outcome:
    """Simulate one seed.

    :raise Violation: with the seed in its text.
    """
    try:
        return Simulation(seed, sabotage).run()
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation}") from violation
