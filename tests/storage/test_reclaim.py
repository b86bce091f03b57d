"""The space of deleted streams comes back."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock

from dstreams.protocol.content_types import DEFAULT
from dstreams.runtime.threads import run_inline
from dstreams.runtime.timers import TimerWheel
from dstreams.storage.files.store import RECLAIM_DELAY, FileStorage
from dstreams.streams.creating import CreateRequest
from dstreams.streams.streams import Streams

APART = ("catalog.db", "catalog.db-wal", "catalog.db-shm", "reserve")


def used(directory: Path) -> int:
    """What the files of a store take, the catalog and the reserve aside."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and path.name not in APART)


class ReclaimTests:
    """On a server that is quiet after a delete."""

    def test_space_comes_back(self, tmp_path: Path) -> None:
        """A minute after deletes the bytes of the streams are gone, from the journal and from the data files."""
        clock = Clock()
        storage = FileStorage(str(tmp_path), None, run_inline, call_later=clock.callLater)
        streams = Streams(storage, TimerWheel(clock))
        streams.open()
        for name in ("early", "late"):
            streams.create(CreateRequest(name, DEFAULT, None, None, False, None, 100_000, b"x" * 100_000))
            if name == "early":
                storage.checkpoint()
        assert used(tmp_path) > 200_000
        streams.delete("early")
        streams.delete("late")
        clock.advance(RECLAIM_DELAY)
        storage.checkpoint()  # the segment of the deletes themselves goes with the one after
        assert used(tmp_path) < 5_000
        streams.close()
