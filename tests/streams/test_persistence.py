"""What outlives the process besides appends: renewed TTLs; and what disks are bounded by."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dstreams.protocol.content_types import DEFAULT
from dstreams.protocol.problems import NotFound
from dstreams.runtime.threads import run_inline
from dstreams.runtime.timers import Clocks, TimerWheel
from dstreams.storage.files.store import FileStorage
from dstreams.streams.creating import CreateRequest
from dstreams.streams.expiry import PERSIST_INTERVAL
from dstreams.streams.streams import Streams

TTL = 1000


class Machine:
    """A server on one directory, and the clocks of its world."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self._directory = str(directory)
        self.start()

    def start(self) -> None:
        """Open the store."""
        self.storage = FileStorage(self._directory, None, run_inline)
        clocks = Clocks(self.clock.seconds, lambda: 1_800_000_000.0 + self.clock.seconds())
        self.streams = Streams(self.storage, TimerWheel(self.clock), clocks=clocks)
        self.streams.open()

    def stop(self) -> None:
        """Close it as a server does."""
        self.streams.close()

    def kill(self) -> None:
        """Leave it as a killed process does."""
        assert self.storage._lock is not None
        self.storage._lock.release()
        self.storage._checkpoints.close()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A server with one stream that lives for a thousand seconds."""
    machine = Machine(tmp_path)
    machine.streams.create(CreateRequest("s", DEFAULT, TTL, None, False, None, 0, b""))
    return machine


class TouchTests:
    """A sliding TTL goes on where it was."""

    def test_stop(self, machine: Machine) -> None:
        """A renewal just before a stop counts after the start."""
        machine.clock.advance(TTL - 1)
        machine.streams.renew(machine.streams.find("s"))
        machine.stop()
        machine.start()
        machine.clock.advance(TTL - 1)
        assert machine.streams.find("s").name == "s"
        machine.stop()

    def test_kill(self, machine: Machine) -> None:
        """A renewal that was handed over before a kill counts after it."""
        machine.clock.advance(TTL - 1)
        machine.streams.renew(machine.streams.find("s"))
        machine.clock.advance(PERSIST_INTERVAL + 1)
        machine.kill()
        machine.start()
        machine.clock.advance(TTL - PERSIST_INTERVAL - 2)
        assert machine.streams.find("s").name == "s"
        machine.stop()

    def test_last_moments(self, machine: Machine) -> None:
        """A renewal that a kill has lost costs the stream nothing that it still had."""
        machine.clock.advance(TTL - PERSIST_INTERVAL)
        machine.streams.renew(machine.streams.find("s"))
        machine.clock.advance(PERSIST_INTERVAL - 1)
        machine.kill()
        machine.start()
        machine.clock.advance(PERSIST_INTERVAL - 1)
        assert machine.streams.find("s").name == "s"
        machine.stop()

    def test_over(self, machine: Machine) -> None:
        """A stream whose time came while the server was down is gone."""
        machine.stop()
        machine.clock.advance(TTL + PERSIST_INTERVAL + 1)
        machine.start()
        with pytest.raises(NotFound):
            machine.streams.find("s")
        machine.stop()

    def test_reads_write_nothing(self, machine: Machine) -> None:
        """However often a stream is used, it costs one small batch in half a minute."""
        before = machine.storage._journal.next_sequence
        for _ in range(1000):
            machine.streams.renew(machine.streams.find("s"))
        assert machine.storage._journal.next_sequence == before
        machine.clock.advance(PERSIST_INTERVAL + 1)
        assert machine.storage._journal.next_sequence == before + 1
        machine.stop()
