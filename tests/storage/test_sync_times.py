"""Timing another syncer."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field
from twisted.internet.defer import Deferred

from dstreams.storage.disk import File, OsDisk
from dstreams.storage.sync import TimedSyncer
from dstreams.telemetry.histograms import Histogram


@define(eq=False)
class FakeSyncer:
    """Syncs when the test says so."""

    name: str = "fake"
    done: list[Deferred[None]] = field(factory=list)
    closed: bool = False

    def sync(self, file: File) -> Deferred[None]:
        self.done.append(Deferred())
        return self.done[-1]

    def close(self) -> None:
        self.closed = True


class TimedSyncerTests:
    """It does what the other does, and looks at its watch."""

    def test_times(self, tmp_path: Path) -> None:
        """A sync is counted when it is over, and its result passes."""
        syncer, seconds = FakeSyncer(), Histogram()
        timed = TimedSyncer(syncer, seconds)
        assert timed.name == "fake"
        results: list[object] = []
        timed.sync(OsDisk().open(f"{tmp_path}/f", create=True)).addCallback(results.append)
        assert seconds.count == 0
        syncer.done[0].callback(None)
        assert results == [None]
        assert seconds.count == 1
        assert seconds.total > 0

    def test_failure(self, tmp_path: Path) -> None:
        """A failure passes, and is counted."""
        syncer, seconds = FakeSyncer(), Histogram()
        failures: list[str] = []
        syncing = TimedSyncer(syncer, seconds).sync(OsDisk().open(f"{tmp_path}/f", create=True))
        syncing.addErrback(lambda failure: failures.append(failure.getErrorMessage()))
        syncer.done[0].errback(OSError(5, "broken"))
        assert failures == ["[Errno 5] broken"]
        assert seconds.count == 1

    def test_close(self) -> None:
        """Closing closes the other."""
        syncer = FakeSyncer()
        TimedSyncer(syncer, Histogram()).close()
        assert syncer.closed
