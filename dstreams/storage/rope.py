"""A rope: bytes that grow at the end, which keeps large additions without copying them.

A large body is in memory already. A single buffer for everything would need another copy of it, in fresh pages, and
one more whenever the older half is dropped or written. Small additions share a buffer. It is sealed when a large
addition arrives, or when a caller needs pieces that do not change.
"""

from __future__ import annotations

from bisect import bisect_right

from attrs import define, field

from dstreams.storage.pieces import LARGE_BYTES, Chunk


@define(eq=False, weakref_slot=False)
class Rope:
    """The bytes from position ``begin`` up to :attr:`end`.

    :param begin: the position of the first byte.
    """

    begin: int
    tail: bytearray = field(factory=bytearray)
    """The newest small additions. Callers may add to it directly, which saves a call."""
    _tail_begin: int = field(init=False)
    # Sealed chunks, and the position after each of them. Most ropes never have one.
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
        """Add bytes; large ones are not copied."""
        if len(data) < LARGE_BYTES:
            self.tail += data
        else:
            self._seal_tail()
            self._seal(data)

    def pieces(self) -> list[Chunk]:
        """Return all bytes, in pieces that will not change."""
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
        """Return the bytes from position ``start`` up to ``end``; both must be within the rope."""
        begin = self._tail_begin
        if start < begin:
            return self._read_sealed(start, end)
        # A slice of the bytearray itself would be another bytearray, so the bytes would be copied twice.
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
        """Return a rope without the first ``size`` bytes. This one is unchanged, because it may still be read."""
        begin = self.begin + size
        rest = Rope(begin)
        for chunk, after in zip(self._sealed, self._ends, strict=True):
            if after > begin:
                rest._seal(chunk if after - len(chunk) >= begin else chunk[begin - after :])
        rest.tail = self.tail[max(0, begin - self._tail_begin) :]
        return rest
