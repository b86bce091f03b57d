"""A disk of a certain size, full to the last byte."""

from __future__ import annotations

from random import Random

import pytest
from attrs import define, field

from dstreams.protocol.problems import InsufficientStorage
from tests.crash.disk import Fault, Platter, Step
from tests.crash.machine import DIRECTORY
from tests.crash.script import Script

ENOSPC = 28


@define(eq=False)
class Capacity:
    """Lets what takes up more room fail once the disk is full.

    :param size: how many bytes fit; ``None`` as long as there is enough.
    """

    platter: Platter
    size: int | None = field(default=None, init=False)

    @property
    def used(self) -> int:
        return sum(len(inode.current) for _, inode in self.platter.files())

    def __call__(self, step: Step) -> Fault | None:
        grows = step.kind in ("write", "open", "mkdir")
        return Fault(ENOSPC) if self.size is not None and grows and self.used >= self.size else None


def filled(durable: bool) -> tuple[Script, Capacity]:
    """A store with two streams whose bytes are in files, on a disk without a free byte."""
    script = Script(durable, checkpoint_bytes=1 << 20, spare_after=None)
    capacity = Capacity(script.platter)
    script.begin(capacity)
    script.create("a", body=b"a" * 20_000)
    script.create("b", body=b"b" * 100)
    script.checkpoint()
    script.checkpoint()
    capacity.size = capacity.used
    return script, capacity


@pytest.mark.parametrize("durable", [True, False], ids=["file-durable", "file-fast"])
class FullDiskTests:
    def test_a_delete_makes_room(self, durable: bool) -> None:
        """Appends are refused; a delete isn't, and gives back its stream's space, and then appends are taken again."""
        script, _ = filled(durable)
        script.append("b", b"refused")
        script.settle()
        assert [type(error) for error in script.refusals] == [InsufficientStorage]
        script.refusals.clear()
        script.delete("a")
        script.settle()
        assert not script.refusals
        script.process.store._reclaim()  # what the reactor does in its next turn
        script.settle()
        script.append("b", b"taken")
        script.settle()
        assert not script.refusals
        assert f"{DIRECTORY}/reserve" in dict(script.platter.files())
        assert sum(len(node.current) for path, node in script.platter.files() if "/data/" in path) < 1000
        script.end(lose_power=Random(0))
        script.begin()
        script.check(power_lost=True)

    def test_what_shares_a_group_with_a_delete(self, durable: bool) -> None:
        """An append that is committed together with a delete gets into the last room with it."""
        script, _ = filled(durable)
        script.create("c")  # alone: it is under way when the others come
        script.delete("a")
        script.append("b", b"together")
        script.settle()
        assert len(script.refusals) == 1

    def test_a_checkpoint_waits_for_the_last_room(self, durable: bool) -> None:
        """A checkpoint that is to make room begins its segment only after the group that found none is written."""
        script, capacity = filled(durable)
        process = script.process
        state = process.streams.find("a")
        reader = process.store.source(state)
        capacity.size = None
        script.delete("a")  # its files stay, since they are read
        script.settle()
        capacity.size = capacity.used
        queued: list[int] = []

        def fault(step: Step) -> Fault | None:
            if step.kind == "write" and "/journal/" in step.path and capacity.size and capacity.used < capacity.size:
                queued.append(len(process.threads))
            return capacity(step)

        process.mount.fault = fault
        script.delete("b")
        assert queued[0] == 0
        script.settle()
        assert not script.refusals
        del reader
        script.end(lose_power=Random(0))
        capacity.size = None
        script.begin()
        script.check(power_lost=True)

    def test_files_that_went_early(self, durable: bool) -> None:
        """Between the early end of a stream's files and the checkpoint a crash loses nothing."""
        for steps in range(1, 40):
            script, _ = filled(durable)
            script.delete("a")
            script.settle()
            mount = script.process.mount
            mount.crash_at = mount.steps + steps
            script.append("b", b"refused" * 1000)
            try:
                script.settle()
            except OSError:
                assert mount.off
            script.end(lose_power=Random(steps))
            script.begin()
            script.check(power_lost=True)
            script.end()

    def test_start_without_a_reserve(self, durable: bool) -> None:
        """A start takes the room of what a failed checkpoint has written when there is no reserve to give up."""
        script, capacity = filled(durable)
        capacity.size = None
        script.create("c", body=b"c" * 5000)
        script.append("b", b"more" * 500)
        script.create("d", body=b"d" * 5000)
        script.settle()
        script.process.mount.fault = lambda step: Fault(ENOSPC) if "catalog" in step.path else None
        script.checkpoint()  # the files are written, the catalog isn't
        script.process.mount.fault = capacity
        script.delete("d")
        script.settle()
        assert not script.refusals
        script.process.store._reserve.release()
        script.end()
        before = capacity.used
        capacity.size = capacity.used
        script.begin(lambda step: capacity(step) if "/journal/" in step.path else None)
        assert capacity.used < before - 12_000
        script.check()
        capacity.size = None
        script.process.store.checkpoint()
        script.settle()
        script.end()
        script.begin()
        script.check()

    def test_the_room_is_used_up(self, durable: bool) -> None:
        """Without a reserve even a delete is refused, and nothing else goes wrong."""
        script, capacity = filled(durable)
        script.process.store._reserve.release()
        capacity.size = capacity.used
        script.delete("a")
        script.settle()
        assert [type(error) for error in script.refusals] == [InsufficientStorage]
        capacity.size = None
        script.refusals.clear()
        script.delete("a")
        script.settle()
        assert not script.refusals
        assert script.process.store.failure is None


def test_a_spare_segment_goes_first() -> None:
    """What another program has left is used up, then the spare's room, and only then are appends refused."""
    script = Script(checkpoint_bytes=5000)
    capacity = Capacity(script.platter)
    script.begin(capacity)
    script.create("a")
    # A plain segment, so that appends take room; it is recycled when the checkpoint is over.
    script.append("a", b"x" * 10_000)
    script.settle()
    script.process.store.checkpoint()
    while not script.process.store._spare.ready:
        script.process.threads.step()
    script.settle()
    spare = f"{DIRECTORY}/journal/spare"
    assert len(dict(script.platter.files())[spare].current) > 5000
    capacity.size = capacity.used
    script.append("a", b"taken" * 20)
    script.settle()
    assert not script.refusals
    assert spare not in dict(script.platter.files())
    assert f"{DIRECTORY}/reserve" in dict(script.platter.files())
    while not script.refusals:
        script.append("a", b"taken" * 20)
        script.settle()
    assert [type(error) for error in script.refusals] == [InsufficientStorage]
    assert script.process.store.failure is None
    assert capacity.used > capacity.size
    script.end(lose_power=Random(0))
    capacity.size = None
    script.begin()
    script.check(power_lost=True)
