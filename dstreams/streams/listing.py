"""Lists the streams page by page, ordered by name, without blocking the reactor.

Names are kept in a dictionary, so every listing has to sort them. A few names are sorted in one step, for every page.
Many names (a million take a fifth of a second) are sorted in runs of a few milliseconds, one in each turn of the
reactor. Pages are merged from the runs, and the runs are kept for the following pages. So a long listing contains the
streams that existed when it began, without those deleted since, and perhaps some that were created during sorting. The
properties of each stream are those at the time of its page.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from dstreams.model.catalog import Catalog
from dstreams.model.state import StreamState
from dstreams.runtime.timers import TimerWheel

RUN_NAMES = 5_000
"""Number of names sorted in one step, perhaps exceeded by a few: one to three milliseconds."""

KEEP_SECONDS = 60.0
"""Seconds for which a snapshot of many names is kept after its last page."""

LOOKS_PER_STREAM = 10
"""Maximum number of names examined for each stream that a page may hold; many may be deleted since the snapshot."""


@frozen
class Page:
    """One page of the listing.

    :param streams: the streams, ordered by name; perhaps fewer than requested, even none.
    :param after: the ``after`` for the next page, or ``None`` if this is the last one.
    """

    streams: list[StreamState]
    after: str | None


@define(eq=False)
class Listing:
    """Lists a catalog page by page.

    :param shown: whether a stream is visible to clients.
    """

    _catalog: Catalog
    _shown: Callable[[StreamState], bool]
    _wheel: TimerWheel
    # Sorted runs of names, ``None`` while there is no snapshot.
    _runs: list[list[str]] | None = field(default=None, init=False)
    _used_at: float = field(default=0.0, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def page(self, prefix: str, after: str | None, limit: int) -> Page | Deferred[Page]:
        """Return streams whose names begin with ``prefix`` and sort after ``after``.

        :param after: the previous page's :attr:`Page.after`, or ``None`` for the first page.
        :param limit: the maximum number of streams.
        """
        if len(self._catalog.names) <= RUN_NAMES:
            return self._merge([sorted(self._catalog.names)], prefix, after, limit)
        if after is not None and self._runs is not None:
            self._used_at = self._wheel.seconds()
            return self._merge(self._runs, prefix, after, limit)
        sorted_names: Deferred[None] = Deferred()
        self._waiting.append(sorted_names)
        if len(self._waiting) == 1:
            self._sort(self._catalog.names.key_lists(), [])
        return sorted_names.addCallback(lambda _: self._merge(self._runs or [], prefix, after, limit))

    def _merge(self, runs: list[list[str]], prefix: str, after: str | None, limit: int) -> Page:
        found: list[StreamState] = []
        looks = limit * LOOKS_PER_STREAM
        last = after
        for name in heapq.merge(*(_begin(run, prefix, after) for run in runs)):
            if not name.startswith(prefix):
                break
            if len(found) == limit or not looks:
                return Page(found, last)
            looks -= 1
            last = name
            state = self._catalog.find(name)
            if state is not None and self._shown(state):
                found.append(state)
        return Page(found, None)

    def _sort(self, lists: Iterator[list[str]], runs: list[list[str]]) -> None:
        """Sort the next run of names, and the others in the reactor's next turns."""
        names: list[str] = []
        for some in lists:
            names += some
            if len(names) >= RUN_NAMES:
                runs.append(sorted(names))
                self._wheel.soon(lambda: self._sort(lists, runs))
                return
        runs.append(sorted(names))
        if self._runs is None:
            self._wheel.call_later(KEEP_SECONDS, self._forget)
        self._runs, self._used_at = runs, self._wheel.seconds()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _forget(self) -> None:
        """Discard the snapshot if it has not been used for :data:`KEEP_SECONDS`."""
        left = self._used_at + KEEP_SECONDS - self._wheel.seconds()
        if left > 0:
            self._wheel.call_later(left, self._forget)
        else:
            self._runs = None


def _begin(run: list[str], prefix: str, after: str | None) -> Iterator[str]:
    """Yield the names of one run, from the start of the page."""
    start = bisect_left(run, prefix) if after is None or after < prefix else bisect_right(run, after)
    for position in range(start, len(run)):
        yield run[position]
