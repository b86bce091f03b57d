"""The bytes of a stream: the newest ones from memory, all others from its shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from attrs import define
from twisted.internet.defer import Deferred

from dstreams.storage import index
from dstreams.storage.acid import chunks
from dstreams.storage.rope import Rope

_T = TypeVar("_T")


class Fetch(Protocol):
    """Runs queries on a shard."""

    def __call__(self, question: Callable[..., _T], *arguments: int) -> _T | Deferred[_T]:
        """Run a query function of ``chunks``, immediately or in a thread."""


@define(eq=False, weakref_slot=True)
class PinnedBytes:
    """Keeps the chunks of a stream from being purged as long as this object exists."""


@define(eq=False)
class StreamBytes:
    """The bytes of one stream at one point in time (a ``ByteSource``).

    The shard has all of them, including those in memory. Bytes beyond the tail at that time are never requested.

    :param fetch: runs queries on the stream's shard.
    :param written: the position at which ``memory`` begins.
    :param memory: the newest bytes; more may be appended to them.
    :param entries: the index entries of the messages in memory.
    :param hold: keeps the chunks from being purged; ``None`` if all bytes are in memory.
    """

    _fetch: Fetch
    _stream_id: int
    _written: int
    _memory: Rope
    _entries: index.Index
    _hold: PinnedBytes | None

    def read(self, start: int, end: int) -> bytes | Deferred[bytes]:
        """Return the bytes from ``start`` up to ``end``."""
        if start >= self._written:
            return self._memory.read(start, end)
        return self._ask(chunks.read, start, end)

    def in_file(self, start: int, end: int) -> None:
        """Always ``None``: the bytes are in databases."""

    def floor(self, position: int) -> int | Deferred[int]:
        """Return the last message end at or before ``position``, or else the incarnation's own start."""
        if position >= self._written:
            return index.floor(self._entries, position, self._written)
        return self._ask(chunks.floor, position)

    def extent(self, start: int, limit: int) -> int | Deferred[int]:
        """Return the end of the last message within ``limit`` bytes from ``start``; at least one message."""
        if start >= self._written:
            return index.extent(self._entries, start, limit)
        return self._ask(chunks.extent, start, limit)

    def append_ends(self, position: int) -> Sequence[int] | Deferred[Sequence[int]]:
        """Return the message ends after ``position``, up to the first that also ends an append."""
        if position >= self._written:
            return index.append_ends(self._entries, position)
        return self._ask(chunks.append_ends, position)

    def entries(self, position: int, most: int) -> Sequence[int] | Deferred[Sequence[int]]:
        """Return the index entries of the messages that end after ``position``, at most ``most``."""
        if position >= self._written:
            return index.following(self._entries, position, most)
        return self._ask(chunks.entries, position, most)

    def _ask(self, question: Callable[..., _T], *arguments: int) -> _T | Deferred[_T]:
        found: _T | Deferred[_T] = self._fetch(question, self._stream_id, *arguments)
        hold = self._hold
        if hold is not None and isinstance(found, Deferred):
            # Keep the chunks until the result arrives; the caller may release this object before that.
            found.addBoth(lambda answer, _: answer, hold)
        return found
