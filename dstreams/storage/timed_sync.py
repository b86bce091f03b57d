"""Times the syncs of another syncer."""

from __future__ import annotations

from time import perf_counter

from attrs import define, field
from twisted.internet.defer import Deferred

from dstreams.storage.disk import File
from dstreams.storage.sync import Syncer
from dstreams.telemetry.histograms import Histogram


@define(eq=False)
class TimedSyncer:
    """Notes how long syncs take, the failed ones too (a ``Syncer``): 2 us for each sync, which takes 50 and more.

    :param syncer: does the work.
    :param seconds: where durations are noted.
    """

    _syncer: Syncer
    _seconds: Histogram
    name: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self._syncer.name

    def sync(self, file: File) -> Deferred[None]:
        """As the syncer does it."""
        return self._syncer.sync(file).addBoth(self._note, perf_counter())

    def close(self) -> None:
        """As the syncer does it."""
        self._syncer.close()

    def _note(self, result: None, started: float) -> None:
        self._seconds.observe(perf_counter() - started)
        return result
