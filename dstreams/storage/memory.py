"""The ``memory`` mode: everything is in process memory and is lost when the process ends.

The bytes of a stream are one buffer, except large bodies, which are kept as received. Its message ends are one array of
64-bit numbers, so there is no object per message. A million one-byte messages cost 9 bytes each. A buffer grows by at
most an eighth more than needed.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence

from attrs import define, field
from msgspec import Struct
from twisted.internet.defer import Deferred

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete
from dstreams.model.state import StreamState
from dstreams.runtime.progress import Progress
from dstreams.runtime.sharded import SHARD_MASK, SHARD_SHIFT, ShardedDict
from dstreams.storage import index
from dstreams.storage.damage import DamageLog
from dstreams.storage.index import Index
from dstreams.storage.interface import Charges, StorageFull, Verified
from dstreams.storage.pieces import LARGE_BYTES
from dstreams.storage.rope import Rope

CHARGES = Charges(stream=1024, message=9, producer=320)
"""The memory that each takes in this process, measured with ``bench/memory.py`` and rounded up."""


class MemoryStream(Struct, eq=False, gc=False):
    """The bytes of one incarnation (a ``ByteSource``). As with a stream's state, the garbage collector ignores it.

    :param start: the position of the first byte.
    """

    _start: int
    _data: Rope | None = None
    _entries: Index | tuple[()] = ()

    def append(self, data: bytes, ends: Sequence[int]) -> None:
        """Add the messages of one append."""
        if self._data is None:
            self._data, self._entries = Rope(self._start), array("Q")
        entries = self._entries
        assert not isinstance(entries, tuple)
        count = len(entries)
        try:
            self._entries = index.extend(entries, ends)
            if len(data) < LARGE_BYTES:
                self._data.tail += data
            else:
                self._data.append(data)
        except MemoryError:
            self._entries = entries
            if isinstance(entries, array):
                del entries[count:]
            raise StorageFull("there is no memory left") from None

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` up to ``end``."""
        if self._data is None:
            return b""
        return self._data.read(start, end)

    def in_file(self, start: int, end: int) -> None:
        """Return ``None``: the bytes are not in a file."""

    def floor(self, position: int) -> int:
        """Return the last message end at or before ``position``, or the start if there is none."""
        return index.floor(self._entries, position, self._start)

    def extent(self, start: int, limit: int) -> int:
        """Return the end of the last message within ``limit`` bytes from ``start``; if there is none, of the first."""
        return index.extent(self._entries, start, limit)

    def append_ends(self, position: int) -> Sequence[int]:
        """Return the message ends after ``position``, up to the first that also ends an append."""
        return index.append_ends(self._entries, position)

    def entries(self, position: int, most: int) -> Sequence[int]:
        """Return the index entries of the messages that end after ``position``, at most ``most``."""
        return index.following(self._entries, position, most)


@define(eq=False)
class MemoryStorage:
    """Keeps all changes in memory until the process ends (a ``Storage``)."""

    name: str = field(default="memory", init=False)
    immediate: bool = field(default=True, init=False)
    persistent: bool = field(default=False, init=False)
    charges: Charges = field(default=CHARGES, init=False)
    damage: DamageLog = field(factory=DamageLog, init=False)
    _streams: ShardedDict[int, MemoryStream] = field(factory=ShardedDict, init=False)
    # Starts at the current time, so that an ETag from before a restart matches nothing after it.
    _last_id: int = field(factory=time.time_ns, init=False)

    @property
    def failure(self) -> None:
        """Always ``None``, because memory does not fail."""
        return

    def open(self, catalog: Catalog, progress: Progress) -> None:
        """Do nothing: no streams survive a restart."""

    def next_stream_id(self) -> int:
        """Return a number that no stream of this process has had."""
        self._last_id += 1
        return self._last_id

    def commit(self, changes: Sequence[Change]) -> None:
        """Keep the bytes of the changes. The mode promises no more than that."""
        for change in changes:
            if type(change) is Append:
                if change.data:
                    shards, stream_id = self._streams.shards, change.stream_id
                    shards[hash(stream_id) >> SHARD_SHIFT & SHARD_MASK][stream_id].append(change.data, change.ends)
            elif type(change) is Create:
                stream = self._streams[change.stream_id] = MemoryStream(change.start)
                if change.data:
                    stream.append(change.data, change.ends)
            elif type(change) is Delete:
                for stream_id in change.stream_ids:
                    del self._streams[stream_id]

    def source(self, state: StreamState) -> MemoryStream:
        """Return the bytes of a stream."""
        return self._streams.shards[hash(state.id) >> SHARD_SHIFT & SHARD_MASK][state.id]

    def scrub(self) -> Iterator[Deferred[Verified]]:
        """Return no steps, because memory is not verified."""
        return iter(())

    def close(self) -> None:
        """Discard everything."""
        self._streams.clear()
