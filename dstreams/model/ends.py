"""The ends of many messages, stored without an object for each of them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, overload

from attrs import define

MANY: Final = 2048
"""Minimum number of messages in an append for which their ends are :class:`ManyEnds`; the ends of fewer are a tuple."""


@define(eq=False)
class ManyEnds(Sequence[int]):
    """The absolute ends of the messages of one append.

    A tuple of 4 million numbers takes 170 MB, and each pass over it takes 0.1 s or more. These arrays are built in
    slices while the body is checked, before the start of the append is known. Afterwards no work per message is needed.

    :param start: the position at which the first message begins.
    :param relative: the ends minus ``start``, ascending, 64 bits each.
    :param lengths: the lengths of the messages, 32 bits each.
    """

    start: int
    relative: array[int]
    lengths: array[int]

    @classmethod
    def of_lengths(cls, start: int, lengths: array[int]) -> ManyEnds:
        """Return the ends of messages of these lengths."""
        return cls(start, array("Q", accumulate(lengths)), lengths)

    def at(self, start: int) -> ManyEnds:
        """Return the ends of the same messages with another start, without copying anything."""
        return ManyEnds(start, self.relative, self.lengths)

    def __len__(self) -> int:
        return len(self.relative)

    @overload
    def __getitem__(self, number: int) -> int: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[int]: ...
    def __getitem__(self, number: int | slice) -> int | Sequence[int]:
        if isinstance(number, slice):
            return [self.start + end for end in self.relative[number]]
        return self.start + self.relative[number]
