"""The scrub: how fast it reads, what it tells, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent

from dstreams.runtime.timers import TimerWheel
from dstreams.storage.interface import StorageDamaged, Verified
from dstreams.storage.memory import MemoryStorage
from dstreams.storage.scrub import FIRST_PASS_DELAY, PASS_INTERVAL, RETRY_DELAY, Scrubber

RATE = 1000


@define(eq=False)
class Scrubbed(MemoryStorage):
    """A storage whose steps a test finishes.

    :param steps: how many a pass has.
    """

    steps: int = 10
    asked: int = 0
    broken: bool = False
    waiting: list[Deferred[Verified]] = field(factory=list)

    def scrub(self) -> Iterator[Deferred[Verified]]:
        for _ in range(self.steps):
            if self.broken:
                raise ValueError("a fault of the server")
            self.asked += 1
            done: Deferred[Verified] = Deferred()
            self.waiting.append(done)
            yield done

    def finish(self, size: int, *damaged: StorageDamaged) -> None:
        self.waiting.pop().callback(Verified(size, damaged))


def text(events: Sequence[LogEvent]) -> str:
    """What was logged."""
    return "\n".join(formatEvent(event) for event in events)


def started(clock: Clock, storage: Scrubbed, rate: int = RATE) -> Scrubber:
    """A scrub whose first pass has begun."""
    scrubber = Scrubber(storage, TimerWheel(clock), rate)
    scrubber.start()
    assert storage.asked == 0
    clock.advance(FIRST_PASS_DELAY + 0.2)
    return scrubber


def pump(clock: Clock, seconds: float) -> None:
    """Let time pass in small steps."""
    clock.pump([0.1] * round(seconds * 10))


class PaceTests:
    def test_rate(self) -> None:
        """The next step waits until the bytes of the last one are paid for."""
        clock, storage = Clock(), Scrubbed()
        started(clock, storage)
        assert storage.asked == 1
        storage.finish(2000)
        pump(clock, 1.8)
        assert storage.asked == 1
        pump(clock, 0.5)
        assert storage.asked == 2

    def test_one_step_at_a_time(self) -> None:
        """A step that takes long isn't followed by others, nor made up for by more than half a second's worth."""
        clock, storage = Clock(), Scrubbed()
        started(clock, storage)
        pump(clock, 60)
        assert storage.asked == 1
        storage.finish(100)
        for _ in range(4):
            storage.finish(100)
        assert storage.asked == 6
        storage.finish(100)
        assert storage.asked == 6
        pump(clock, 0.3)
        assert storage.asked == 7

    def test_small_steps(self) -> None:
        """Many small steps have the same rate as few large ones, although timers have a width."""
        clock, storage = Clock(), Scrubbed(steps=10_000)
        scrubber = started(clock, storage)
        for _ in range(100):
            while storage.waiting:
                storage.finish(7)
            clock.advance(0.1)
        assert 9_000 < scrubber.read_bytes < 11_000

    def test_no_scrub(self) -> None:
        """With a rate of 0 there is none."""
        clock, storage = Clock(), Scrubbed()
        scrubber = Scrubber(storage, TimerWheel(clock), 0)
        scrubber.start()
        pump(clock, 100)
        assert storage.asked == 0
        assert scrubber.stop().called


class PassTests:
    def test_passes(self) -> None:
        """A pass is followed by another one a day after it began."""
        clock, storage = Clock(), Scrubbed(steps=1)
        scrubber = started(clock, storage)
        with capturedLogs() as events:
            storage.finish(500)
            pump(clock, 1)
        assert (scrubber.passes, scrubber.pass_bytes, scrubber.read_bytes) == (1, 500, 500)
        assert "scrub: 500 bytes verified in 1 s, 0 damaged places" in text(events)
        clock.advance(PASS_INTERVAL - 2)
        assert storage.asked == 1
        clock.advance(2)
        assert storage.asked == 2
        assert (scrubber.passes, scrubber.pass_bytes, scrubber.read_bytes) == (1, 0, 500)

    def test_damage(self) -> None:
        """What it finds is counted; the first place of each stream is logged."""
        clock, storage = Clock(), Scrubbed(steps=3)
        started(clock, storage)
        with capturedLogs() as events:
            storage.finish(1, StorageDamaged("one", 7, "a"), StorageDamaged("two", 7, "b"))
            pump(clock, 0.3)
            storage.finish(1, StorageDamaged("one", 7, "a"), StorageDamaged("three", 8, "a"))
            pump(clock, 0.3)
            storage.finish(1)
            pump(clock, 1)
        assert (storage.damage.places, storage.damage.streams) == (3, 2)
        said = text(events)
        assert said.count("stored data is damaged: one;") == 1
        assert said.count("stored data is damaged: three;") == 1
        assert "two" not in said
        assert "3 bytes verified in 1 s, 4 damaged places" in said

    def test_fault(self, failures: list[str]) -> None:
        """A pass that can't go on is begun again a minute later."""
        clock, storage = Clock(), Scrubbed(broken=True)
        scrubber = started(clock, storage)
        assert "a fault of the server" in failures.pop()
        storage.broken = False
        clock.advance(RETRY_DELAY + 0.2)
        assert storage.asked == 1
        assert scrubber.passes == 0

    @pytest.mark.parametrize("resting", [False, True])
    def test_stop(self, resting: bool) -> None:
        """It ends at once, or with the step under way."""
        clock, storage = Clock(), Scrubbed()
        scrubber = started(clock, storage)
        if resting:
            storage.finish(5000)
        done = scrubber.stop()
        assert done.called == resting
        if not resting:
            storage.finish(5000)
        assert done.called
        assert not clock.getDelayedCalls() or pump(clock, 100) is None
        assert storage.asked == 1
