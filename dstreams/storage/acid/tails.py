"""The newest bytes of the streams, in memory: for live readers, and for merging small chunks."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import Final

from attrs import define, field

from dstreams.model.changes import Append, Create
from dstreams.storage import index
from dstreams.storage.acid.chunks import OpenRun
from dstreams.storage.recent import RecentBytes

STREAM_SHARE: Final = 4
"""One stream may use at most the budget divided by this number, so that a fast stream does not evict all others."""

OVERHEAD: Final = 640
"""Bytes that a tail takes besides its data and entries: measured, rounded up."""


@define(eq=False)
class Tail(RecentBytes):
    """The newest bytes of one stream, and its open run of small chunks."""

    run: OpenRun = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.run = OpenRun(self.written, self.number, 0)

    @property
    def cost(self) -> int:
        """The bytes that count against the budget."""
        return len(self.data) + 8 * len(self.entries) + OVERHEAD

    @property
    def has_run(self) -> bool:
        """Whether the whole open run is still in memory."""
        return self.run.start >= self.written

    def run_bytes(self) -> tuple[bytes, array[int]]:
        """Return the bytes and entries of the open run."""
        entries = self.entries[index.count_up_to(self.entries, self.run.start) :]
        return self.data.read(self.run.start, self.data.end), index.unpacked(index.packed(entries))


@define(eq=False)
class Tails:
    """The tails of the most recently written streams.

    :param budget: the maximum number of bytes of all tails; the least recently written ones are evicted first.
    """

    _budget: int
    _tails: OrderedDict[int, Tail] = field(factory=OrderedDict, init=False)
    used: int = field(default=0, init=False)

    def get(self, stream_id: int) -> Tail | None:
        """Return a stream's tail, or ``None`` if it is not in memory."""
        return self._tails.get(stream_id)

    def append(self, change: Append | Create, start: int, number: int) -> None:
        """Keep the messages of a committed change.

        :param start: the stream's own start.
        :param number: the number of messages that the stream had before.
        """
        tail = self._tails.get(change.stream_id)
        if tail is None:
            tail = self._tails[change.stream_id] = Tail(start, change.start, number)
            self.used += OVERHEAD
        else:
            self._tails.move_to_end(change.stream_id)
        tail.append(change.data, change.ends)
        self.used += len(change.data) + 8 * len(change.ends)
        if len(tail.data) * STREAM_SHARE > self._budget:
            self._halve(change.stream_id, tail)
        while self.used > self._budget:
            self._halve(*next(iter(self._tails.items())))

    def forget(self, stream_id: int) -> None:
        """Remove a stream's tail, if it is in memory."""
        tail = self._tails.pop(stream_id, None)
        if tail is not None:
            self.used -= tail.cost

    def _halve(self, stream_id: int, tail: Tail) -> None:
        """Evict the older half of a large tail, or all of it if it is small or if half of it would still be too large.

        The half that is kept is copied.
        """
        count = len(tail.entries) // 2
        if not self._budget < tail.cost * STREAM_SHARE <= 2 * self._budget or not count:
            self.forget(stream_id)
            return
        before = tail.cost
        tail.drop((tail.entries[count - 1] >> 1) - tail.written, count)
        self.used -= before - tail.cost
