"""The newest messages of a stream, kept in memory: they are not on disk yet, or can be read without the disk."""

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
    """Consecutive messages of one stream, up to its tail.

    :param start: the stream's own start.
    :param written: the position where these messages begin. Earlier ones are only on disk.
    :param number: the number of the stream's messages before these.
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
        """Discard the first ``count`` messages, which have ``size`` bytes.

        :return: whether no messages are left.
        """
        # New objects, because sources that exist already continue to read from the old ones.
        self.data, self.entries = self.data.without(size), self.entries[count:]
        self.written += size
        self.number += count
        return not self.data
