"""Time-to-live and Expires-At: when a stream is over, and who clears it away (PROTOCOL 5.1).

A sliding TTL is measured on the monotonic clock, so that setting the wall clock expires nothing. Renewing it
is a note in memory. An Expires-At is a point on the wall clock; when that clock jumps forward, streams past
it answer 404, as their clients asked, but nothing is removed until the clock has been steady for a while:
what a wrong clock hides comes back when the clock is put right.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dstreams.model.state import StreamState
from dstreams.runtime.clocks import Clocks
from dstreams.runtime.sharded import ShardedDict
from dstreams.runtime.timers import TimerWheel

_log = Logger()

REAP_INTERVAL = 1.0
"""Seconds between two looks for expired streams."""

REAP_SLICE = 200
"""How many deadlines one look may examine; more are left for :data:`REAP_PAUSE` later, to keep requests going."""

REAP_PAUSE = 0.05
"""Seconds between the slices of a backlog."""

PERSIST_INTERVAL = 30.0
"""Seconds for which renewed TTLs are collected before they are handed to the storage together. A crash forgets the
last ones; so much is added to what a stream has left when it is recovered."""

FORGOTTEN = 1000
"""How many streams may be deleted before their time until their deadlines are cleared out; more if there are
many, so that clearing out costs a few looks for each."""

CLEAR_SLICE = 500
"""How many deadlines are looked at in one step of clearing out: less than 1 ms."""

PERSIST_SLICE = 100
"""How many renewed TTLs are committed together: about 1 ms."""

CLOCK_JUMP = 5.0
"""Seconds by which the wall clock may move against the monotonic one between two looks and still count as steady."""

CLOCK_QUARANTINE = 600.0
"""Seconds for which nothing is removed by Expires-At after a jump."""


def idle_at_rest(state: StreamState, now: float) -> float:
    """For how long a stream that nobody serves has been idle, as far as that can be known.

    The last renewals before a crash may be missing; what was over before that stays over.

    :param now: Unix seconds.
    """
    return max(0.0, now - state.touched_at - PERSIST_INTERVAL)


def is_over_at_rest(state: StreamState, now: float) -> bool:
    """Whether a server that started now would find that the stream's time has come."""
    config = state.config
    if config.ttl is not None:
        return idle_at_rest(state, now) >= config.ttl
    return config.expires_at is not None and now >= config.expires_at


@define(eq=False)
class Expiry:
    """Watches the streams that end by themselves.

    :param get: finds a stream by id.
    :param live: whether a stream has live readers: it isn't idle then.
    :param remove: deletes an expired stream, now or later; never raises.
    :param persist: stores renewed TTLs, pairs of stream id and Unix time, and returns a Deferred that fires at the end
        of that, or ``None`` if it is over; ``None`` where nothing lasts.
    """

    _clocks: Clocks
    _wheel: TimerWheel
    _get: Callable[[int], StreamState | None]
    _live: Callable[[int], bool]
    _remove: Callable[[StreamState], None]
    _persist: Callable[[list[tuple[int, float]]], Deferred[None] | None] | None = None
    # When each stream with a TTL was last used, on the monotonic clock.
    _used: ShardedDict[int, float] = field(factory=ShardedDict, init=False)
    # (deadline, stream id), on the monotonic clock for TTLs, on the wall clock for Expires-At. One entry a stream;
    # a renewed TTL isn't moved but found renewed when its entry comes up.
    _idle_deadlines: list[tuple[float, int]] = field(factory=list, init=False)
    _absolute_deadlines: list[tuple[float, int]] = field(factory=list, init=False)
    _armed: bool = field(default=False, init=False)
    _renewed: set[int] = field(factory=set, init=False)
    # Those of the renewed ones that are being handed to the storage.
    _persisting: set[int] = field(factory=set, init=False)
    # Streams deleted since the deadlines were last cleared out.
    _forgotten: int = field(default=0, init=False)
    _clearing_out: bool = field(default=False, init=False)
    _skew: float = field(init=False)
    _steady_since: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._skew = self._clocks.wall() - self._clocks.monotonic()
        self._steady_since = self._clocks.monotonic() - CLOCK_QUARANTINE

    def track(self, state: StreamState, idle: float = 0.0) -> None:
        """Begin to watch a stream.

        :param idle: for how many seconds it has been idle already.
        """
        if not self._armed:
            self._skew = self._clocks.wall() - self._clocks.monotonic()  # nobody has looked for a while
        if state.config.ttl is not None:
            used = self._used[state.id] = self._clocks.monotonic() - idle
            heapq.heappush(self._idle_deadlines, (used + state.config.ttl, state.id))
        elif state.config.expires_at is not None:
            heapq.heappush(self._absolute_deadlines, (state.config.expires_at, state.id))
        else:
            return
        self._arm(REAP_INTERVAL)

    def renew(self, state: StreamState) -> None:
        """A read or write has used the stream: its TTL begins anew."""
        if state.id in self._used:  # not while its creation is under way: that may fail
            self._used[state.id] = self._clocks.monotonic()
            if self._persist is not None:
                if not self._renewed:
                    self._wheel.call_later(PERSIST_INTERVAL, self._persist_in_slices)
                self._renewed.add(state.id)

    def persist_renewals(self) -> None:
        """Hand all renewed TTLs to the storage at once, at the end."""
        renewed = self._persisting | self._renewed
        self._persisting, self._renewed = set(), set()
        self._hand_over(renewed)

    def _persist_in_slices(self) -> None:
        self._persisting |= self._renewed
        self._renewed = set()
        done = self._wheel.in_slices(self._hand_over_some())
        done.addErrback(lambda failure: _log.failure("renewed TTLs could not be stored", failure))

    def _hand_over_some(self) -> Iterator[Deferred[None] | None]:
        """Hand over a part of the renewed TTLs at each step, after the commit of the part before."""
        while self._persisting:
            yield self._hand_over([self._persisting.pop() for _ in range(min(PERSIST_SLICE, len(self._persisting)))])

    def _hand_over(self, renewed: Iterable[int]) -> Deferred[None] | None:
        if self._persist is None:
            return None
        skew = self._clocks.wall() - self._clocks.monotonic()
        known = [(stream_id, self._used[stream_id] + skew) for stream_id in renewed if stream_id in self._used]
        return self._persist(known) if known else None

    def forget(self, stream_id: int) -> None:
        """The stream is gone."""
        self._used.shard(stream_id).pop(stream_id, None)
        self._forgotten += 1
        if self._forgotten > FORGOTTEN + (len(self._idle_deadlines) + len(self._absolute_deadlines)) // 2:
            self._forgotten = 0
            if not self._clearing_out:
                self._clearing_out = True
                done = self._wheel.in_slices(self._clear_out())
                done.addErrback(lambda failure: _log.failure("deadlines could not be cleared out", failure))

    def _clear_out(self) -> Iterator[None]:
        """Drop the deadlines of streams that are gone, some at each step; meanwhile the others may be noticed late."""
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
        """Whether the stream's time has come."""
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
        """Remove a slice of what is due."""
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
                # Used since: look again when it would be over. A live reader keeps it for a whole TTL more.
                used, ttl = self._used.get(stream_id, now), state.config.ttl or 0
                heapq.heappush(deadlines, (max(used + ttl, now + REAP_INTERVAL), stream_id))
                continue
            self._remove(state)
            if self._get(stream_id) is not None:
                # Its removal is under way, or has failed, or it stays for its forks: look again.
                heapq.heappush(deadlines, (now + REAP_INTERVAL, stream_id))
        return budget
