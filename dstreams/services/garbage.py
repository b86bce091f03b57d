"""Python's collector of cyclic garbage, arranged for a server that may hold many connections."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from dstreams.runtime.timers import Scheduler

_log = Logger()

YOUNG_OBJECTS = 5_000
"""Number of new objects after which the collector visits the young ones. Every tenth time it visits those that
have survived that, too: 50,000 objects take 5 to 10 ms."""

NEVER = 1 << 30

CHECK_SECONDS = 10.0
"""Seconds between checks whether to visit all objects."""

DUE = 2
"""Number of collections that have added old objects, from which on a full collection is worthwhile."""

OVERDUE = 40
"""Number of such collections after which a full one does not wait for a quiet moment; the garbage may take 500 MB."""

QUIET_SHARE = 0.05
"""Maximum share of a core used since the last check in a quiet moment."""


class GarbageService(Service):
    """Runs full collections in quiet moments, when clients do not notice.

    A full collection can't be divided: for 20,000 connections it takes 60 ms, in which no client gets an answer. So
    it is done in quiet moments only, or when it is long overdue. It is rarely needed: requests leave no cyclic garbage
    (``tests/cost`` checks that), and what the streams are made of isn't looked at in any collection. What was there at
    the start, the program itself, is put aside for good.

    To be started when the storage is open. It changes the whole process, so an embedded server goes without it.

    :param cpu_seconds: the processor time that the process has used.
    :param collect: makes a full collection.
    """

    name: str | None = "garbage"

    def __init__(
        self,
        scheduler: Scheduler,
        cpu_seconds: Callable[[], float] = time.process_time,
        collect: Callable[[], int] = gc.collect,
        count: Callable[[], tuple[int, int, int]] = gc.get_count,
    ) -> None:
        self._scheduler = scheduler
        self._cpu_seconds = cpu_seconds
        self._collect = collect
        self._count = count
        self._used = 0.0
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        """Freeze the existing objects, and take over the full collections."""
        super().startService()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, gc.get_threshold()[1], NEVER)
        self._wait()

    def stopService(self) -> None:
        """Run no more collections, because the process ends."""
        super().stopService()
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _wait(self) -> None:
        self._used = self._cpu_seconds()
        self._call = self._scheduler.callLater(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        added = self._count()[2]
        quiet = self._cpu_seconds() - self._used <= QUIET_SHARE * CHECK_SECONDS
        if added >= (DUE if quiet else OVERDUE):
            begin = time.perf_counter()
            found = self._collect()
            _log.debug(
                "a full garbage collection found {found} objects in {seconds:.3f} s",
                found=found,
                seconds=time.perf_counter() - begin,
            )
        self._wait()
