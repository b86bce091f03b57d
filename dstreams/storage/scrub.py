"""Scrubbing: all that is stored is read slowly, again and again, and compared with its checksums.

A disk may change bytes that are read seldom. What a scrub finds can still be restored from a backup that isn't older
than the damage.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from dstreams.runtime.timers import TimerWheel
from dstreams.storage.interface import Storage, Verified

_log = Logger()

FIRST_PASS_DELAY: Final = 30.0
"""Seconds from the start to the first pass: clients that come back after a restart go first."""

PASS_INTERVAL: Final = 86_400.0
"""Seconds from the beginning of a pass to that of the next, if it doesn't take longer."""

RETRY_DELAY: Final = 60.0
"""Seconds until a pass that could not go on is begun again."""

MAX_LAG: Final = 0.5
"""Seconds by which steps may be late and still be made up for by others that follow at once."""


@define(eq=False)
class Scrubber:
    """Scrubs a storage while it is open.

    :param rate: how many bytes are read each second, on average; 0: no scrubbing.
    """

    _storage: Storage
    _wheel: TimerWheel
    rate: int
    passes: int = field(default=0, init=False)
    """How many passes are complete."""
    read_bytes: int = field(default=0, init=False)
    """How many bytes were read."""
    pass_bytes: int = field(default=0, init=False)
    """How many of them in the pass under way, or in the last one."""
    _running: Deferred[None] | None = field(default=None, init=False)
    _waiting: Deferred[None] | None = field(default=None, init=False)
    _stopping: bool = field(default=False, init=False)

    def start(self) -> None:
        """Begin; the storage is open."""
        if self.rate:
            self._running = Deferred.fromCoroutine(self._run())

    def stop(self) -> Deferred[None]:
        """Go no further; fires when no step is under way."""
        self._stopping = True
        running, self._running = self._running, None
        if running is None:
            return succeed(None)
        if self._waiting is not None:
            self._waiting.callback(None)
        return running

    async def _run(self) -> None:
        await self._sleep(FIRST_PASS_DELAY)
        while not self._stopping:
            began = self._wheel.seconds()
            try:
                await self._pass()
            except Exception:
                _log.failure("scrubbing failed; it begins again in {seconds} s", seconds=RETRY_DELAY)
                await self._sleep(RETRY_DELAY)
            else:
                await self._sleep(began + PASS_INTERVAL - self._wheel.seconds())

    async def _pass(self) -> None:
        began = due = self._wheel.seconds()
        damaged = self.pass_bytes = 0
        for step in self._storage.scrub():
            found = await step
            self._note(found)
            damaged += len(found.damaged)
            now = self._wheel.seconds()
            due = max(due, now - MAX_LAG) + found.size / self.rate
            if due > now:
                await self._sleep(due - now)
            if self._stopping:
                return
        self.passes += 1
        if self.pass_bytes:
            _log.info(
                "scrub: {size} bytes verified in {seconds} s, {damaged} damaged places",
                size=self.pass_bytes,
                seconds=round(self._wheel.seconds() - began),
                damaged=damaged,
            )

    def _note(self, found: Verified) -> None:
        self.read_bytes += found.size
        self.pass_bytes += found.size
        for error in found.damaged:
            self._storage.damage.note(error)

    def _sleep(self, seconds: float) -> Deferred[None]:
        """Wait, unless it is to stop."""
        if self._stopping:
            return succeed(None)
        waiting = self._waiting = Deferred[None]()
        timer = self._wheel.call_later(max(0.0, seconds), lambda: waiting.callback(None))

        def over(_: object) -> None:
            timer.cancel()
            self._waiting = None

        return waiting.addCallback(over)
