"""A rope: bytes that grow at the end, of which large additions are kept as they came.

A large body is in memory already; one buffer for everything would take another copy of it, in fresh pages, and again
as much whenever the older half is dropped or written. Small additions share a buffer, which is sealed when a large
one comes or when somebody wants pieces that don't change.
"""

from __future__ import annotations

from bisect import bisect_right

from attrs import define, field

from dstreams.storage.pieces import LARGE_BYTES, Chunk


@define(eq=False, weakref_slot=False)
class Rope:
    """Bytes at the positions from ``begin`` up to :attr:`end`.

    :param begin: the position of the first byte.
    """

    begin: int
    tail: bytearray = field(factory=bytearray)
    """The newest small additions; they may be added right here, which saves a call."""
    _tail_begin: int = field(init=False)
    # Sealed chunks, and the position after each of them. Most ropes never have any.
    _sealed: list[Chunk] | tuple[()] = field(default=(), init=False)
    _ends: list[int] | tuple[()] = field(default=(), init=False)

    @_tail_begin.default
    def _begin_tail(self) -> int:
        return self.begin

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self._tail_begin + len(self.tail)

    def __len__(self) -> int:
        return self._tail_begin + len(self.tail) - self.begin

    def append(self, data: bytes) -> None:
        """Add bytes; large ones aren't copied."""
        if len(data) < LARGE_BYTES:
            self.tail += data
        else:
            self._seal_tail()
            self._seal(data)

    def pieces(self) -> list[Chunk]:
        """All of it, in pieces that will not change."""
        self._seal_tail()
        return list(self._sealed)

    def _seal_tail(self) -> None:
        if self.tail:
            tail, self.tail = self.tail, bytearray()
            self._seal(tail)

    def _seal(self, chunk: Chunk) -> None:
        self._tail_begin += len(chunk)
        if isinstance(self._sealed, list) and isinstance(self._ends, list):
            self._sealed.append(chunk)
            self._ends.append(self._tail_begin)
        else:
            self._sealed, self._ends = [chunk], [self._tail_begin]

    def read(self, start: int, end: int) -> bytes:
        """The bytes from position ``start`` up to ``end``; both lie in it."""
        begin = self._tail_begin
        if start < begin:
            return self._read_sealed(start, end)
        # Through a view: slicing a bytearray makes a bytearray first, and copies twice.
        with memoryview(self.tail) as view:
            return bytes(view[start - begin : end - begin])

    def _read_sealed(self, start: int, end: int) -> bytes:
        found: list[Chunk | memoryview] = []
        number = bisect_right(self._ends, start)
        while start < end and number < len(self._sealed):
            chunk, after = self._sealed[number], self._ends[number]
            begin, until = after - len(chunk), min(end, after)
            found.append(memoryview(chunk)[start - begin : until - begin])
            start, number = until, number + 1
        if start < end:
            found.append(self.tail[: end - start])
        return b"".join(found)

    def without(self, size: int) -> Rope:
        """A rope without the first ``size`` bytes. This one is as it was, for those who read on from it."""
        begin = self.begin + size
        rest = Rope(begin)
        for chunk, after in zip(self._sealed, self._ends, strict=True):
            if after > begin:
                rest._seal(chunk if after - len(chunk) >= begin else chunk[begin - after :])
        rest.tail = self.tail[max(0, begin - self._tail_begin) :]
        return rest
