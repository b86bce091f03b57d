"""Determines when streams expire (time-to-live, Expires-At) and removes expired ones (PROTOCOL 5.1).

A sliding TTL is measured on the monotonic clock, so that setting the wall clock expires nothing. Renewing it only
updates memory. An Expires-At is a time on the wall clock. If that clock jumps forward, requests for streams past their
Expires-At get a 404, as their clients requested, but nothing is removed until the clock has been steady for a while. So
streams that a wrong clock hides are available again when the clock is corrected.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dstreams.model.state import StreamState
from dstreams.runtime.sharded import ShardedDict
from dstreams.runtime.timers import Clocks, TimerWheel

_log = Logger()

REAP_INTERVAL = 1.0
"""Seconds between two checks for expired streams."""

REAP_SLICE = 200
"""Maximum number of deadlines examined in one check. The others are examined :data:`REAP_PAUSE` later, so that requests
are not delayed."""

REAP_PAUSE = 0.05
"""Seconds between two checks while a backlog is left."""

PERSIST_INTERVAL = 30.0
"""Seconds for which renewed TTLs are collected before they are stored together. A crash loses the last ones, so
recovery extends the remaining time of a stream by this much."""

FORGOTTEN = 1000
"""Number of deleted streams after which unused deadlines are removed. Half the number of deadlines is added to it, so
that removing them costs a few look-ups for each deleted stream."""

CLEAR_SLICE = 500
"""Maximum number of deadlines examined in one step of removing unused ones: less than 1 ms."""

PERSIST_SLICE = 100
"""Maximum number of renewed TTLs committed together: about 1 ms."""

CLOCK_JUMP = 5.0
"""Maximum seconds by which the wall clock may shift against the monotonic one between two checks to count as steady."""

CLOCK_QUARANTINE = 600.0
"""Seconds after a clock jump for which nothing is removed because of Expires-At."""


def idle_at_rest(state: StreamState, now: float) -> float:
    """Return the seconds for which a stream that is not being served has been idle, at the least.

    The last renewals before a crash may be missing, so :data:`PERSIST_INTERVAL` is subtracted. A stream that expired
    longer ago than that stays expired.

    :param now: Unix seconds.
    """
    return max(0.0, now - state.touched_at - PERSIST_INTERVAL)


def is_over_at_rest(state: StreamState, now: float) -> bool:
    """Whether the stream would be expired for a server that started now."""
    config = state.config
    if config.ttl is not None:
        return idle_at_rest(state, now) >= config.ttl
    return config.expires_at is not None and now >= config.expires_at


@define(eq=False)
class Expiry:
    """Tracks the streams that expire.

    :param get: finds a stream by id.
    :param live: whether a stream has live readers; such a stream is not idle.
    :param remove: deletes an expired stream, now or later; never raises.
    :param persist: stores renewed TTLs, pairs of stream id and Unix time. It returns a Deferred that fires when that
        has ended, or ``None`` if it has ended already. Itself ``None`` if the storage does not outlive the process.
    """

    _clocks: Clocks
    _wheel: TimerWheel
    _get: Callable[[int], StreamState | None]
    _live: Callable[[int], bool]
    _remove: Callable[[StreamState], None]
    _persist: Callable[[list[tuple[int, float]]], Deferred[None] | None] | None = None
    # The time of each stream's last use, on the monotonic clock; only streams with a TTL.
    _used: ShardedDict[int, float] = field(factory=ShardedDict, init=False)
    # (deadline, stream id), on the monotonic clock for TTLs, on the wall clock for Expires-At. One entry per stream.
    # Renewing a TTL does not move the entry; the entry is corrected when its deadline is reached.
    _idle_deadlines: list[tuple[float, int]] = field(factory=list, init=False)
    _absolute_deadlines: list[tuple[float, int]] = field(factory=list, init=False)
    _armed: bool = field(default=False, init=False)
    _renewed: set[int] = field(factory=set, init=False)
    # The renewed ones that are being stored.
    _persisting: set[int] = field(factory=set, init=False)
    # The number of streams deleted since unused deadlines were last removed.
    _forgotten: int = field(default=0, init=False)
    _clearing_out: bool = field(default=False, init=False)
    _skew: float = field(init=False)
    _steady_since: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._skew = self._clocks.wall() - self._clocks.monotonic()
        self._steady_since = self._clocks.monotonic() - CLOCK_QUARANTINE

    def track(self, state: StreamState, idle: float = 0.0) -> None:
        """Start tracking a stream.

        :param idle: the seconds for which it has already been idle.
        """
        if not self._armed:
            self._skew = self._clocks.wall() - self._clocks.monotonic()  # the clocks were not compared for a while
        if state.config.ttl is not None:
            used = self._used[state.id] = self._clocks.monotonic() - idle
            heapq.heappush(self._idle_deadlines, (used + state.config.ttl, state.id))
        elif state.config.expires_at is not None:
            heapq.heappush(self._absolute_deadlines, (state.config.expires_at, state.id))
        else:
            return
        self._arm(REAP_INTERVAL)

    def renew(self, state: StreamState) -> None:
        """Restart a stream's TTL, because a read or write has used it."""
        if state.id in self._used:  # not while its creation is pending, because that may fail
            self._used[state.id] = self._clocks.monotonic()
            if self._persist is not None:
                if not self._renewed:
                    self._wheel.call_later(PERSIST_INTERVAL, self._persist_in_slices)
                self._renewed.add(state.id)

    def persist_renewals(self) -> None:
        """Store all renewed TTLs at once, at shutdown."""
        renewed = self._persisting | self._renewed
        self._persisting, self._renewed = set(), set()
        self._hand_over(renewed)

    def _persist_in_slices(self) -> None:
        self._persisting |= self._renewed
        self._renewed = set()
        done = self._wheel.in_slices(self._hand_over_some())
        done.addErrback(lambda failure: _log.failure("renewed TTLs could not be stored", failure))

    def _hand_over_some(self) -> Iterator[Deferred[None] | None]:
        """Store some of the renewed TTLs in each step, after the commit of the previous ones has ended."""
        while self._persisting:
            yield self._hand_over([self._persisting.pop() for _ in range(min(PERSIST_SLICE, len(self._persisting)))])

    def _hand_over(self, renewed: Iterable[int]) -> Deferred[None] | None:
        if self._persist is None:
            return None
        skew = self._clocks.wall() - self._clocks.monotonic()
        known = [(stream_id, self._used[stream_id] + skew) for stream_id in renewed if stream_id in self._used]
        return self._persist(known) if known else None

    def forget(self, stream_id: int) -> None:
        """Stop tracking a stream that was deleted."""
        self._used.shard(stream_id).pop(stream_id, None)
        self._forgotten += 1
        if self._forgotten > FORGOTTEN + (len(self._idle_deadlines) + len(self._absolute_deadlines)) // 2:
            self._forgotten = 0
            if not self._clearing_out:
                self._clearing_out = True
                done = self._wheel.in_slices(self._clear_out())
                done.addErrback(lambda failure: _log.failure("deadlines could not be cleared out", failure))

    def _clear_out(self) -> Iterator[None]:
        """Remove the deadlines of deleted streams, some in each step. Meanwhile other streams may be removed late."""
        try:
            for deadlines in (self._idle_deadlines, self._absolute_deadlines):
                old = deadlines[:]
                deadlines.clear()
                while old:
                    for _ in range(min(CLEAR_SLICE, len(old))):
                        each = old.pop()
                        if self._get(each[1]) is not None:
                            heapq.heappush(deadlines, each)
                    yield
        finally:
            self._clearing_out = False
        if self._idle_deadlines or self._absolute_deadlines:
            self._arm(REAP_INTERVAL)

    def is_over(self, state: StreamState) -> bool:
        """Whether the stream has expired."""
        config = state.config
        if config.ttl is not None:
            used = self._used.get(state.id)
            if used is None:
                return False  # accepted, but not committed yet
            return self._clocks.monotonic() - used >= config.ttl and not self._live(state.id)
        return config.expires_at is not None and self._clocks.wall() >= config.expires_at

    def may_remove(self, state: StreamState) -> bool:
        """Whether an expired stream may be removed for good."""
        return state.config.ttl is not None or self._clock_is_steady()

    def _clock_is_steady(self) -> bool:
        now = self._clocks.monotonic()
        skew = self._clocks.wall() - now
        if abs(skew - self._skew) > CLOCK_JUMP:
            _log.warn(
                "the wall clock jumped by {jump:.0f} s; no stream is removed by Stream-Expires-At for {pause:.0f} s",
                jump=skew - self._skew,
                pause=CLOCK_QUARANTINE,
            )
            self._steady_since = now
        self._skew = skew
        return now - self._steady_since >= CLOCK_QUARANTINE

    def _arm(self, delay: float) -> None:
        if not self._armed:
            self._armed = True
            self._wheel.call_later(delay, self._reap)

    def _reap(self) -> None:
        """Remove expired streams, as many as one check may."""
        self._armed = False
        budget = REAP_SLICE
        budget = self._reap_from(self._idle_deadlines, self._clocks.monotonic(), budget)
        if self._clock_is_steady():
            budget = self._reap_from(self._absolute_deadlines, self._clocks.wall(), budget)
        if self._idle_deadlines or self._absolute_deadlines:
            self._arm(REAP_INTERVAL if budget else REAP_PAUSE)

    def _reap_from(self, deadlines: list[tuple[float, int]], now: float, budget: int) -> int:
        while budget and deadlines and deadlines[0][0] <= now:
            budget -= 1
            _, stream_id = heapq.heappop(deadlines)
            state = self._get(stream_id)
            if state is None or state.soft_deleted:
                continue
            if not self.is_over(state):
                # It was used since. Check it again when it would expire; a live reader keeps it for another whole TTL.
                used, ttl = self._used.get(stream_id, now), state.config.ttl or 0
                heapq.heappush(deadlines, (max(used + ttl, now + REAP_INTERVAL), stream_id))
                continue
            self._remove(state)
            if self._get(stream_id) is not None:
                # Its removal is pending or has failed, or it is kept for its forks. Check it again.
                heapq.heappush(deadlines, (now + REAP_INTERVAL, stream_id))
        return budget
