"""The spare segment: how it is made, taken and given up, and that a failure to make one harms nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from random import Random

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from dstreams.storage.files import spare
from dstreams.storage.files.checkpoint import Checkpoints
from dstreams.storage.files.journal import Journal
from dstreams.storage.files.segments import segments
from dstreams.storage.files.spare import ROOM, SpareSegment
from tests.crash.disk import Fault, MachineOff, Mount, Platter, Step
from tests.crash.machine import DIRECTORY, Threads
from tests.crash.script import Script
from tests.crash.sqlite_vfs import quiet
from tests.support.logs import logged

FOLDER = f"{DIRECTORY}/journal"
SPARE = f"{FOLDER}/spare"

SIZE = 1062
"""A spare's length where 1000 bytes make a checkpoint due."""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite may do without some of what fails; a thread fills one piece at a time."""
    monkeypatch.setattr(spare, "PIECES", 1)
    with quiet():
        yield


@pytest.fixture
def warnings() -> Iterator[list[LogEvent]]:
    """What is said about spares that can't be made."""
    with logged(lambda event: event["log_namespace"].endswith("storage.files.spare")) as events:
        yield events


def at_spare(kind: str, fault: Fault) -> Callable[[Step], Fault | None]:
    """A fault at the calls of one kind that concern the spare."""
    return lambda step: fault if step.kind == kind and step.path == SPARE else None


def a_store(*, durable: bool = True, after: int | None = 300, checkpoint_bytes: int = 1000) -> Script:
    """A store with a stream ``a``, a spare segment in view."""
    script = Script(durable, checkpoint_bytes, spare_after=after)
    script.begin()
    script.create("a")
    script.settle()
    return script


def grow(script: Script, size: int) -> None:
    """Append until the journal has grown by so many bytes in all, a hundred bytes and more at a time."""
    journal = script.process.store._journal
    while journal.grown_bytes < size:
        script.append("a", b"x" * 60)
        script.settle()


def a_store_that_fills_one() -> Script:
    """A store whose spare has its first piece."""
    script = a_store()
    grow(script, 300)
    script.append("a", b"begins it")
    while "write" not in steps(script):
        script.process.threads.step()
    return script


def steps(script: Script, path: str = SPARE) -> list[str]:
    """The kinds of calls that concerned a file so far."""
    return [step.kind for step in script.process.mount.trace if step.path == path]


def names(script: Script) -> list[str]:
    return script.process.mount.list(FOLDER)


def journal_of(script: Script) -> Journal:
    return script.process.store._journal


def checkpoints(script: Script) -> Checkpoints:
    return script.process.store._checkpoints


def restart(script: Script, *, lose_power: bool = True, seed: int = 1) -> None:
    """End the process, and recover."""
    script.end(lose_power=Random(seed) if lose_power else None)
    script.begin()
    script.check(power_lost=lose_power)


class MakingTests:
    def test_small_store_stays_small(self) -> None:
        """Nothing is prepared before the journal has grown by as much as the store was told."""
        script = a_store(after=600)
        grow(script, 400)
        assert steps(script) == []
        grow(script, 700)
        assert steps(script)

    def test_pieces_are_synced_one_by_one(self) -> None:
        """A spare is filled with zeros, each piece durable before the next is written, and no longer than is useful."""
        script = a_store()
        grow(script, 600)
        assert steps(script)[:2] == ["open", "truncate"]
        pieces = -(-SIZE // script.process.spare_piece)
        assert steps(script)[2 : 2 + 2 * pieces] == ["write", "sync"] * pieces
        content = script.process.mount.find(SPARE) or script.process.mount.find(journal_of(script).file.path)
        assert len(content.durable) == SIZE  # type: ignore[union-attr]

    def test_journal_rolls_over(self) -> None:
        """When the spare is ready the next batch goes into it, without a checkpoint, and survives a power loss."""
        script = a_store()
        grow(script, 300)
        first = journal_of(script).file.path
        while journal_of(script).file.path == first:
            script.append("a", b"more")
            script.settle()
        assert checkpoints(script).count == 0
        assert journal_of(script).prepared_bytes > 0
        assert journal_of(script).grown_bytes > 300 > journal_of(script).segment_bytes
        script.append("a", b"and more")
        script.settle()
        assert script.process.mount.open(journal_of(script).file.path).size() == SIZE
        restart(script)
        assert not script.refusals

    def test_checkpoint_is_due_by_all_segments(self) -> None:
        """Segments that were rolled over count, and go when a checkpoint covers them; one is kept as the next spare."""
        script = a_store()
        grow(script, 900)
        assert checkpoints(script).count == 0
        assert len(segments(script.process.mount, FOLDER)) == 2
        while not checkpoints(script).count:
            script.append("a", b"x" * 60)
            script.settle()
        assert journal_of(script).grown_bytes < 300
        script.checkpoint()
        assert len(segments(script.process.mount, FOLDER)) == 1
        restart(script)

    def test_checkpoints_reuse_the_same_files(self) -> None:
        """Once there are two of the right length, nothing is filled or lengthened any more."""
        script = a_store()
        for count in range(1, 8):
            while checkpoints(script).count < count:
                script.append("a", b"x" * 60)
                script.settle()
            if count == 4:
                seen = len(script.process.mount.trace)
        later = [step for step in script.process.mount.trace[seen:] if "/journal/" in step.path]
        assert {step.kind for step in later if step.path == SPARE} <= {"open", "write", "sync", "rename"}
        assert not [step for step in later if step.path.endswith(".new") or step.kind == "truncate"]
        sizes = {len(node.current) for path, node in script.platter.files() if path.startswith(FOLDER)}
        assert sizes == {SIZE}
        restart(script)

    @pytest.mark.parametrize(("durable", "after"), [(False, 300), (True, None)], ids=["file-fast", "never"])
    def test_none_is_made(self, durable: bool, after: int | None) -> None:
        """Where nothing is synced, or nobody wants one, there is never a spare."""
        script = a_store(durable=durable, after=after)
        grow(script, 900)
        for _ in range(3):
            script.append("a", b"x" * 900)
            script.settle()
            script.checkpoint()
        assert checkpoints(script).count >= 3
        assert steps(script) == []

    def test_commits_go_on_while_it_is_filled(self) -> None:
        """Appends are acknowledged between two pieces."""
        script = a_store_that_fills_one()
        threads = script.process.threads
        before = script.history.acknowledged
        script.append("a", b"meanwhile")
        while script.history.acknowledged == before:
            threads.step(len(threads) - 1)
        assert not script.process.store._spare.ready
        script.settle()
        assert script.process.store._spare.ready


class RecyclingTests:
    def test_too_short_a_segment(self) -> None:
        """What isn't as long as a segment gets is removed, not kept."""
        script = a_store(after=10_000)
        grow(script, 600)
        script.checkpoint()
        script.checkpoint()
        assert "spare" not in names(script)

    def test_too_long_a_segment(self) -> None:
        """One that has grown beyond that is cut."""
        script = a_store(after=10_000)
        script.append("a", b"x" * 5000)
        script.settle()
        script.checkpoint()
        assert len(script.process.mount.find(SPARE).current) == SIZE  # type: ignore[union-attr]
        script.append("a", b"y")
        script.settle()
        script.checkpoint()
        assert journal_of(script).prepared_bytes > 0
        restart(script)

    @pytest.mark.parametrize("enough", [True, False])
    def test_disk_that_is_nearly_full(self, enough: bool, warnings: list[LogEvent]) -> None:
        """Nothing is made or kept where the disk hasn't several times its length free."""
        script = a_store(after=10_000)
        script.process.mount.room = ROOM * SIZE - (not enough)
        grow(script, 1000)
        script.checkpoint()
        assert ("spare" in names(script)) is enough
        assert len(warnings) == (not enough)

    @pytest.mark.parametrize("kind", ["open", "rename", "sync_directory", "truncate"])
    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
    def test_failure(self, kind: str, code: int, warnings: list[LogEvent]) -> None:
        """A segment that can't be recycled is removed as any other, and the checkpoint is as good."""
        script = a_store(after=10_000)
        script.append("a", b"x" * 2000)
        script.settle()
        old = journal_of(script).file.path
        script.process.store.checkpoint()
        while checkpoints(script).count == 0:
            script.process.threads.step()
        script.process.mount.fault = lambda step: (
            Fault(code) if step.kind == kind and step.path in (old, SPARE, FOLDER) else None
        )
        script.settle()
        assert len(warnings) == 1
        assert script.process.store.failure is None
        assert len(names(script)) == 1
        script.append("a", b"y")
        script.settle()
        assert not script.refusals
        restart(script)

    @pytest.mark.parametrize("seed", range(20))
    @pytest.mark.parametrize("step", range(1, 12))
    def test_power_loss(self, step: int, seed: int) -> None:
        """A power loss anywhere between a segment's end and its next life leaves a store that is whole."""
        script = a_store(after=10_000)
        script.append("a", b"x" * 2000)
        script.settle()
        script.process.store.checkpoint()
        while checkpoints(script).count == 0:
            script.process.threads.step()
        mount = script.process.mount
        mount.crash_at = mount.steps + step
        try:
            script.settle()
            for _ in range(2):
                script.append("a", b"y" * 100)
                script.checkpoint()
        except MachineOff:
            pass
        restart(script, seed=seed)
        script.append("a", b"z")
        script.settle()
        restart(script, seed=seed)


class FailureTests:
    @pytest.mark.parametrize("kind", ["open", "truncate", "write", "sync"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
    def test_making_one_fails(self, kind: str, code: int, warnings: list[LogEvent]) -> None:
        """The journal goes on without, says it once, and tries again after the next checkpoint."""
        script = a_store()
        script.process.mount.fault = at_spare(kind, Fault(code))
        grow(script, 900)
        assert steps(script).count(kind) == 1
        assert checkpoints(script).count == 0
        assert "spare" not in names(script)
        script.checkpoint()
        grow(script, 900)
        assert steps(script).count(kind) == 2
        assert len(warnings) == 1
        assert script.process.store.failure is None
        assert not script.refusals
        script.process.mount.fault = lambda _: None
        script.checkpoint()
        grow(script, 500)
        assert journal_of(script).prepared_bytes > 0
        restart(script)

    def test_unsynced_one_is_never_used(self) -> None:
        """One piece whose sync fails, and the file is no spare: what the disk has of it is unknown."""
        script = a_store()
        failing = iter([False, False, True])
        script.process.mount.fault = lambda step: (
            Fault(errno.EIO) if step.kind == "sync" and step.path == SPARE and next(failing, False) else None
        )
        grow(script, 950)
        assert "rename" not in [step.kind for step in script.process.mount.trace if step.path == SPARE]
        assert len(segments(script.process.mount, FOLDER)) == 1
        assert script.process.store.failure is None

    @pytest.mark.parametrize("kind", ["write", "sync"])
    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
    def test_it_does_not_become_a_segment(self, kind: str, code: int) -> None:
        """When the header can't be put into it, the segment goes on, and a checkpoint makes a plain one."""
        script = a_store()
        grow(script, 300)
        script.append("a", b"begins it")
        while not script.process.store._spare.ready:
            script.process.threads.step()
        script.settle()
        script.process.mount.fault = at_spare(kind, Fault(code))
        first = journal_of(script).file.path
        grow(script, 900)
        assert journal_of(script).file.path == first
        assert steps(script).count("open") == 1  # no other is made
        script.checkpoint()
        assert checkpoints(script).count == 1
        assert script.process.store.failure is None
        assert not script.refusals
        restart(script)

    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
    def test_it_does_not_get_its_name(self, code: int) -> None:
        """Where there is no room for its name the segment goes on; when it is the disk that fails, all writing ends."""
        script = a_store()
        first = journal_of(script).file.path
        script.process.mount.fault = lambda step: Fault(code) if step.kind == "rename" else None
        for _ in range(7):
            script.append("a", b"x" * 60)
            script.settle()
        assert any(step.kind == "rename" for step in script.process.mount.trace[-40:])
        assert journal_of(script).file.path == first
        assert (script.process.store.failure is None) == (not script.refusals) == (code == errno.ENOSPC)
        assert "spare" not in names(script)
        script.process.mount.fault = lambda _: None
        restart(script)

    def test_directory_is_not_synced(self) -> None:
        """When nobody knows whether a crash leaves the new segment, all writing ends."""
        script = a_store()
        script.process.mount.fault = lambda step: Fault(errno.EIO) if step.kind == "sync_directory" else None
        for _ in range(8):
            script.append("a", b"x" * 60)
            script.settle()
        assert "Input/output error" in str(script.process.store.failure)
        assert script.refusals
        script.process.mount.fault = lambda _: None
        restart(script)


class FullDiskTests:
    def test_spare_goes_first(self) -> None:
        """An append that finds no room takes what the spare had, and is acknowledged."""
        script = a_store(checkpoint_bytes=2000)
        script.append("a", b"x" * 4000)
        script.settle()
        script.append("a", b"y")
        script.settle()
        assert script.process.store._spare.ready

        def full(step: Step) -> Fault | None:
            return Fault(errno.ENOSPC) if step.kind == "write" and "spare" in names(script) else None

        script.process.mount.fault = full
        script.append("a", b"taken")
        script.settle()
        assert not script.refusals
        assert "spare" not in names(script)
        assert script.process.store._reserve.is_there
        restart(script)

    def test_one_that_is_being_filled(self) -> None:
        """So does one that isn't ready yet; no thread writes to it any more."""
        script = a_store_that_fills_one()
        threads = script.process.threads
        while script.process.streams._commits.under_way:
            threads.step(len(threads) - 1)
        full = [True]

        def fault(step: Step) -> Fault | None:
            fails, full[0] = full[0], False
            return Fault(errno.ENOSPC) if fails else None

        script.process.mount.fault = fault
        script.append("a", b"taken")
        script.settle()
        assert not script.refusals
        assert not script.process.store._spare.ready
        assert "spare" not in names(script)
        assert steps(script).count("write") <= 2

    def test_room_for_a_checkpoint(self) -> None:
        """When a checkpoint finds no room, the spare goes, so that the next has some."""
        script = a_store_that_fills_one()
        threads = script.process.threads
        script.process.mount.fault = lambda step: Fault(errno.ENOSPC) if "/data/" in step.path else None
        script.process.store.checkpoint()
        while script.process.store._checkpoints.error is None:
            threads.step(len(threads) - 1)
        assert "spare" not in names(script)
        script.settle()
        assert not script.process.store._spare.ready
        assert not script.refusals


class StartTests:
    def left_behind(self, size: int, *, durable: bool = True) -> Script:
        """A store whose process was killed, with a spare of that length."""
        script = a_store(durable=durable, after=10_000)
        script.append("a", b"kept")
        script.settle()
        script.end()
        file = Mount(script.platter).open(SPARE, create=True)
        file.pwrite(b"\xff" * size, 0)
        return script

    @pytest.mark.parametrize("size", [1000, SIZE])
    def test_adopted(self, size: int) -> None:
        """A spare of the right length becomes the first segment of the next process, whatever is in it."""
        script = self.left_behind(size)
        script.begin()
        assert "spare" not in names(script)
        assert script.process.mount.open(journal_of(script).file.path).size() == size
        script.append("a", b"and more")
        script.settle()
        restart(script)

    @pytest.mark.parametrize("size", [0, 999, SIZE + 1])
    def test_removed(self, size: int) -> None:
        """One of another length is removed: it was being filled, or the configuration has changed."""
        script = self.left_behind(size)
        script.begin()
        assert "spare" not in names(script)
        assert journal_of(script).prepared_bytes == 0

    def test_file_fast(self) -> None:
        """A store that is opened in another mode has no use for it."""
        script = self.left_behind(SIZE, durable=False)
        script.begin()
        assert "spare" not in names(script)
        assert journal_of(script).prepared_bytes == 0

    def test_write_that_failed_before(self) -> None:
        """When the kernel reports that it couldn't be written back, the start makes a plain segment."""
        script = self.left_behind(SIZE)
        node = Mount(script.platter).find(SPARE)
        node.failed = True  # type: ignore[union-attr]
        script.begin()
        assert "spare" not in names(script)
        assert journal_of(script).prepared_bytes == 0
        script.append("a", b"and more")
        script.settle()
        restart(script)


@define(eq=False)
class Held:
    """A spare whose threads are let run by hand."""

    platter: Platter = field(factory=Platter)
    threads: Threads = field(factory=Threads)
    spare: SpareSegment = field(init=False)
    mount: Mount = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.mount = Mount(self.platter)
        self.mount.make_directories(FOLDER)
        self.spare = SpareSegment(self.mount, FOLDER, self.threads.run, 1000, 100, 100)

    def run(self) -> None:
        while self.threads:
            self.threads.step()


class SpareTests:
    def test_only_one(self) -> None:
        """While one is being made, or is there, no other is begun."""
        held = Held()
        held.spare.prepare()
        held.spare.prepare()
        assert len(held.threads) == 1
        assert held.spare.recycle(list).called
        held.run()
        assert held.spare.ready
        held.spare.prepare()
        assert not held.threads
        assert held.spare.take() is not None
        assert held.spare.take() is None

    def test_stop_waits_for_the_thread(self) -> None:
        """A stop waits for the piece under way, and leaves no half spare."""
        held = Held()
        held.spare.prepare()
        for _ in range(3):
            held.threads.step()
        over: list[object] = []
        held.spare.stop().addCallback(over.append)
        assert over == []
        held.threads.step()
        assert over == [None]
        assert not held.threads
        assert held.mount.list(FOLDER) == []
        held.spare.prepare()
        assert not held.threads

    def test_stop_before_it_is_filled(self) -> None:
        """A stop doesn't wait until a spare is filled whose file is being made."""
        held = Held()
        held.spare.prepare()
        over: list[object] = []
        held.spare.stop().addCallback(over.append)
        held.threads.step()
        assert over == [None]
        assert not held.threads
        assert held.mount.list(FOLDER) == []

    def test_stop_of_one_that_is_ready(self) -> None:
        """A spare that is ready stays for the next start."""
        held = Held()
        held.spare.prepare()
        held.run()
        assert held.spare.stop().called
        assert held.mount.list(FOLDER) == ["spare"]

    def test_given_up_between_two_tries(self) -> None:
        """What a thread still writes to a file that was given up never becomes a spare."""
        held = Held()
        held.spare.prepare()
        held.threads.step()
        assert held.spare.give_up()
        assert not held.spare.give_up()
        held.run()
        assert not held.spare.ready
        assert held.mount.list(FOLDER) == []

    def test_seldom_checkpoints(self) -> None:
        """However far apart checkpoints are, a spare isn't longer than a bound."""
        assert SpareSegment(Mount(Platter()), FOLDER, Threads().run, 1 << 40).size == spare.MAX_BYTES

    def test_failure_of_another_kind(self) -> None:
        """A thread that can't be had leaves nobody waiting."""

        def refuse(*_: object) -> Deferred[object]:
            raise RuntimeError("no threads")

        held = Held()
        held.spare._run = refuse
        held.spare.prepare()
        assert held.spare.stop().called
