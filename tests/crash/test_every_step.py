from __future__ import annotations

from random import Random

import pytest

from dstreams.storage.interface import StorageError
from tests.crash.disk import MachineOff, Step
from tests.crash.script import Script


def steps(*, durable: bool) -> list[Step]:
    """The calls that the script makes when nothing happens to it."""
    script = Script(durable)
    script.begin()
    script.play()
    made = list(script.process.mount.trace)
    script.end()
    return made


def crash(script: Script, number: int, how: str, *, lose_power: bool) -> None:
    """Play the script up to a crash at one call."""
    try:
        script.begin(crash_at=number, crash_how=how)
        script.play()
    except (MachineOff, StorageError):
        assert script.process.mount.off
    script.end(lose_power=Random(number) if lose_power else None)


@pytest.mark.parametrize("lose_power", [True, False], ids=["power loss", "killed"])
@pytest.mark.parametrize("durable", [True, False], ids=["file-durable", "file-fast"])
class EveryStepTests:
    def test_crash_at_every_call(self, durable: bool, lose_power: bool) -> None:
        """Wherever a process ends, the next one finds what it must, and so does the one after it."""
        for step in steps(durable=durable):
            for how in ("before", "during") if step.kind == "write" else ("before",):
                script = Script(durable)
                crash(script, step.number, how, lose_power=lose_power)
                script.begin()
                script.check(power_lost=lose_power)
                script.end(lose_power=Random(step.number))
                script.begin()
                script.check(power_lost=True)
                script.end()

    def test_crash_at_every_call_of_a_recovery(self, durable: bool, lose_power: bool) -> None:
        """Wherever a recovery ends, the next one finds the same."""
        number, going = 0, True
        while going:
            number += 1
            script = Script(durable)
            crash(script, 150, "before", lose_power=lose_power)
            try:
                script.begin(crash_at=number)
            except (MachineOff, StorageError):
                assert script.process.mount.off
            going = script.process.mount.off
            script.end(lose_power=Random(number) if lose_power else None)
            script.begin()
            script.check(power_lost=lose_power)
            script.end()
        assert number > 10
