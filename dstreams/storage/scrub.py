"""Scrubs the storage: reads everything slowly and repeatedly, and compares it with its checksums.

A disk may change bytes that are rarely read. Damage that a scrub finds early can still be restored from a backup that
was made before it.
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
"""Seconds from the start to the first pass, so that clients that reconnect after a restart are served first."""

PASS_INTERVAL: Final = 86_400.0
"""Seconds from the beginning of one pass to the beginning of the next, unless a pass takes longer."""

RETRY_DELAY: Final = 60.0
"""Seconds until a failed pass is started again from the beginning."""

MAX_LAG: Final = 0.5
"""Maximum lag, in seconds, that is made up for by running the following steps without a pause."""


@define(eq=False)
class Scrubber:
    """Scrubs a storage while it is open.

    :param rate: the average number of bytes read per second; 0 disables scrubbing.
    """

    _storage: Storage
    _wheel: TimerWheel
    rate: int
    passes: int = field(default=0, init=False)
    """The number of completed passes."""
    read_bytes: int = field(default=0, init=False)
    """The number of bytes read."""
    pass_bytes: int = field(default=0, init=False)
    """The number of bytes read in the current pass, or in the last one if none is running."""
    _running: Deferred[None] | None = field(default=None, init=False)
    _waiting: Deferred[None] | None = field(default=None, init=False)
    _stopping: bool = field(default=False, init=False)

    def start(self) -> None:
        """Start scrubbing. The storage must be open."""
        if self.rate:
            self._running = Deferred.fromCoroutine(self._run())

    def stop(self) -> Deferred[None]:
        """Stop scrubbing; the Deferred fires when no step is running."""
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
        """Wait, but not if scrubbing is to stop."""
        if self._stopping:
            return succeed(None)
        waiting = self._waiting = Deferred[None]()
        timer = self._wheel.call_later(max(0.0, seconds), lambda: waiting.callback(None))

        def over(_: object) -> None:
            timer.cancel()
            self._waiting = None

        return waiting.addCallback(over)
