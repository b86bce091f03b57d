"""The newest messages of a stream, in memory: the disk has them not yet, or need not be asked for them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from attrs import define, field

from dstreams.storage import index
from dstreams.storage.index import Index
from dstreams.storage.pieces import LARGE_BYTES
from dstreams.storage.rope import Rope


@define(eq=False)
class RecentBytes:
    """A run of messages of one stream that ends at its tail.

    :param start: the stream's own start.
    :param written: where the run begins; what lies before is only on the disk.
    :param number: how many of the stream's messages lie before.
    """

    start: int
    written: int
    number: int
    data: Rope = field(init=False)
    entries: Index = field(factory=lambda: array("Q"), init=False)

    @data.default
    def _begin(self) -> Rope:
        return Rope(self.written)

    def append(self, data: bytes, ends: Sequence[int]) -> None:
        """Add the messages of one append."""
        if len(data) < LARGE_BYTES:
            self.data.tail += data
        else:
            self.data.append(data)
        self.entries = index.extend(self.entries, ends)

    def drop(self, size: int, count: int) -> bool:
        """Forget the first ``count`` messages, ``size`` bytes; whether that was all."""
        # New objects rather than a cut in place: a source made before reads on from the old ones.
        self.data, self.entries = self.data.without(size), self.entries[count:]
        self.written += size
        self.number += count
        return not self.data
