from __future__ import annotations

import errno
from itertools import pairwise
from random import Random

import pytest

from dstreams.protocol.problems import InsufficientStorage, Unavailable
from dstreams.storage.interface import StorageError
from tests.crash.disk import Fault, Step
from tests.crash.history import Violation
from tests.crash.script import Faults, Script

SYNCS = ("sync", "sync_directory", "sync_all")


def steps(*, durable: bool) -> list[Step]:
    """The calls that the script makes when nothing fails."""
    script = Script(durable)
    script.begin()
    script.play()
    assert not script.refusals
    made = list(script.process.mount.trace)
    script.end()
    return made


def at(number: int, fault: Fault) -> Faults:
    """That fault at that call."""
    return lambda step: fault if step.number == number else None


def live_through(script: Script, faults: Faults) -> bool:
    """Play the script with faults, and check that nothing is lost and nothing falsely acknowledged.

    :return: whether the store could be opened.
    """
    try:
        script.begin(faults)
        opened = True
    except StorageError as error:
        text, opened = str(error), False
        assert "\n" not in text
    if opened:
        script.play()
        # What readers see is what was acknowledged, whatever has failed.
        found, expected = script.process.views(), script.history.acknowledged_state.views()
        if found != expected:
            raise Violation("readers see something else than what was acknowledged")
    return opened


def restart(script: Script) -> None:
    """Start again on a disk that is sound now."""
    try:
        script.begin()
    except StorageError as error:
        # The kernel tells the next one to sync a file that writing it back has failed, once.
        text = str(error)
        assert "Input/output error" in text
        assert not script.durable
        script.end()
        script.begin()


def go_on(script: Script, seed: int) -> None:
    """Restart on a disk that is sound again, use the store, lose power, and start once more."""
    script.end()
    restart(script)
    script.check()
    script.refusals.clear()
    script.play()
    assert not script.refusals
    script.end(lose_power=Random(seed))
    script.begin()
    script.check(power_lost=True)


def test_script_has_a_spare_segment() -> None:
    """The calls of a spare's whole life are among those that fail: it is filled, taken, recycled, and taken again."""
    spare = "/store/journal/spare"
    made = [(step.kind, step.path) for step in steps(durable=True)]
    assert {"open", "truncate", "write", "sync", "rename"} <= {kind for kind, path in made if path == spare}
    taken = [path for before, (kind, path) in pairwise(made) if before == ("sync", spare) and kind == "rename"]
    assert len(taken) > 2
    assert made.index(("rename", spare)) < made.index(("rename", taken[-1]))


@pytest.mark.parametrize("durable", [True, False], ids=["file-durable", "file-fast"])
class SingleFaultTests:
    @pytest.mark.parametrize("short", [None, 5], ids=["at once", "after a part"])
    def test_full_disk_at_any_call(self, durable: bool, short: int | None) -> None:
        """A disk without room at one call: 507 for what it concerns, nothing lost, and the store goes on."""
        for step in steps(durable=durable):
            script = Script(durable)
            opened = live_through(script, at(step.number, Fault(errno.ENOSPC, short)))
            if opened and script.process.store.failure is None:
                assert all(isinstance(error, InsufficientStorage) for error in script.refusals), step
            elif opened:
                assert step.kind in SYNCS, f"{step} ended all writing: {script.process.store.failure}"
                assert all(isinstance(error, Unavailable) for error in script.refusals), step
            go_on(script, step.number)

    def test_broken_disk_at_any_call(self, durable: bool) -> None:
        """An I/O error at one call: nothing lost; either it does no harm, or all writing ends and reads go on."""
        for step in steps(durable=durable):
            script = Script(durable)
            opened = live_through(script, at(step.number, Fault(errno.EIO)))
            failure = script.process.store.failure if opened else None
            if opened and failure is None:
                assert not script.refusals, step
            elif opened:
                script.append("b", b"more", None)
                script.process.drain()
                assert all(isinstance(error, Unavailable) for error in script.refusals), step
                assert "Input/output error" in str(failure), step
            go_on(script, step.number)

    def test_short_write_at_any_call(self, durable: bool) -> None:
        """A write that writes less than asked, and says so, is continued: nobody notices."""
        for step in steps(durable=durable):
            if step.kind == "write":
                script = Script(durable)
                assert live_through(script, at(step.number, Fault(0, 3)))
                assert not script.refusals
                go_on(script, step.number)


@pytest.mark.parametrize("durable", [True, False], ids=["file-durable", "file-fast"])
class LastingFaultTests:
    def test_disk_stays_full_for_a_while(self, durable: bool) -> None:
        """From any call on there is no room for a while: the store refuses, and goes on when space returns."""
        trace = steps(durable=durable)
        for step in trace[:: max(1, len(trace) // 60)]:
            script = Script(durable)
            begin, end = step.number, step.number + 25

            def full(each: Step, begin: int = begin, end: int = end) -> Fault | None:
                takes_room = each.kind in ("open", "write", "mkdir", "rename")
                return Fault(errno.ENOSPC, 3) if takes_room and begin <= each.number < end else None

            if live_through(script, full):
                assert script.process.store.failure is None
                assert all(isinstance(error, InsufficientStorage) for error in script.refusals)
                script.refusals.clear()
                while script.process.mount.steps < end:
                    script.process.mount.check_on()
                    script.process.mount.steps += 1
                script.play()
                assert not script.refusals
                script.history.recovered(script.process.views(), power_lost=False)
            go_on(script, step.number)

    def test_disk_stays_broken(self, durable: bool) -> None:
        """From any call on nothing succeeds any more: no request hangs, and nothing acknowledged before is lost."""
        trace = steps(durable=durable)
        for step in trace[:: max(1, len(trace) // 60)]:
            script = Script(durable)

            def broken(each: Step, begin: int = step.number) -> Fault | None:
                return Fault(errno.EIO) if each.number >= begin and each.kind != "open to read" else None

            live_through(script, broken)
            go_on(script, step.number)
