"""Chunks: how a shard stores a stream's bytes and the index of its messages.

Form
    A row of ``chunks``: ``id``, at the time of writing higher than all other ids and every ``noted`` (see ``shard``);
    ``stream_id``; ``start``, the absolute position of the first byte; ``checksum``; ``entries``, the index entries (see
    ``index``, unsigned 64-bit little-endian) of the messages that end in the chunk; ``data``, the bytes; ``number``,
    the number of the stream's messages that end before the chunk; ``at``, the time when the newest bytes in it were
    appended, in Unix seconds. The checksum is the CRC-32 of stream_id, start and number (unsigned 64-bit little-endian
    each), at (a double), entries, data, in this order. The unique index ``chunk_places`` is used to find a stream's
    chunks in order.

    The table is clustered by id. As a WITHOUT ROWID table, clustered by (stream_id, start), writing to it was more than
    ten times slower (424 us per row instead of 27, with 100 streams of 1 MB): to compare two keys of such a table,
    SQLite reads the whole rows, which are large.

Invariants
    C1. A stream's chunks follow each other without gap or overlap: the first one begins at the stream's own start,
        each following one at the end of the previous one, and the last one ends at the tail. No chunk is empty.
    C2. A chunk's entries are those e with start < e >> 1 <= start + len(data), ascending. A chunk need not end at
        the end of a message: a message of more than CHUNK_BYTES is stored in several chunks.
    C3. ``number`` of a stream's first chunk is 0. For each following chunk it is the previous chunk's ``number`` plus
        the number of that chunk's entries.
    C4. A row is replaced only in a transaction that preserves C1 and C2, and only by a row with the same bytes at
        the same positions. So bytes that were readable at a position stay readable there.

Merging
    A group adds one row to each stream that it appends to, unless the appends are large. Rows of a few bytes would
    make reads slow. Therefore the small rows at the end of a stream, the *open run*, are replaced by one row when the
    run has MERGE_ROWS rows or MERGE_BYTES bytes; a row of at least MERGE_BYTES is not replaced any more. Measured with
    100 streams and appends of 100 bytes: the files have 1.2 times the size of the payload and its index, and are read
    at 250 MB/s, instead of 160 MB/s without merging.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Final
from zlib import crc32

from attrs import define, field, frozen

from dstreams.model.changes import Append, Create
from dstreams.storage import index
from dstreams.storage.index import Index
from dstreams.storage.interface import StorageDamaged
from dstreams.storage.rope import Rope
from dstreams.storage.stream_rows import Connection

SCHEMA = """
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, stream_id INTEGER NOT NULL, start INTEGER NOT NULL, checksum INTEGER NOT NULL,
    entries BLOB NOT NULL, data BLOB NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL
);
CREATE UNIQUE INDEX chunk_places ON chunks (stream_id, start)
"""

CHUNK_BYTES: Final = 64 * 1024
"""Maximum bytes of a chunk. Reading a piece of a response fetches at most two chunks of unneeded bytes."""

MERGE_BYTES: Final = 16 * 1024
MERGE_ROWS: Final = 32

_KEY = struct.Struct("<QQQd")

Row = tuple[int, int, int, bytes, bytes, int, float]
"""The columns of a chunk without its id."""

Earlier = Callable[[], "tuple[bytes, array[int]]"]


@define(eq=False)
class OpenRun:
    """The small rows at the end of a stream, which will be merged into one.

    :param start: the position at which the first of them begins.
    :param number: the number of the stream's messages that end before it.
    :param rows: the number of rows; if it is 0, ``start`` is the tail.
    """

    start: int
    number: int
    rows: int


@define(eq=False)
class Addition:
    """The bytes and messages that a group appends to one stream.

    :param start: the position at which they begin: the stream's tail before the group.
    :param number: the number of messages that the stream has before the group.
    """

    start: int
    number: int
    at: float = field(default=0.0, init=False)
    size: int = field(default=0, init=False)
    parts: list[bytes] = field(factory=list, init=False)
    entries: Index = field(factory=lambda: array("Q"), init=False)

    def add(self, change: Append | Create) -> None:
        """Add the messages of one change after those added before."""
        self.parts.append(change.data)
        self.size += len(change.data)
        self.entries = index.extend(self.entries, change.ends)
        self.at = change.at

    @property
    def data(self) -> bytes:
        """All added bytes."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


@frozen(eq=False)
class Large:
    """Bytes of one stream that are cut into chunks in the thread that writes them, because there are many chunks.

    :param start: the position of the first byte.
    :param number: the number of the stream's messages that end before it.
    """

    stream_id: int
    start: int
    number: int
    at: float
    size: int
    parts: Sequence[bytes]
    entries: Index

    @property
    def count(self) -> int:
        """The number of chunks."""
        return -(-self.size // CHUNK_BYTES)

    @property
    def stored_bytes(self) -> int:
        """The total size of the chunks' bytes and entries."""
        return self.size + 8 * len(self.entries)

    def rows(self) -> Iterator[Row]:
        """Yield the chunks. Cutting one holds the interpreter's lock only for a short time."""
        rope = Rope(self.start)
        for part in self.parts:
            rope.append(part)
        pieces, packed, done = index.packed_pieces(self.entries), bytearray(), 0
        for start in range(self.start, self.start + self.size, CHUNK_BYTES):
            end = min(start + CHUNK_BYTES, self.start + self.size)
            count = index.count_up_to(self.entries, end)
            size = 8 * (count - done)
            while len(packed) < size:
                packed += next(pieces)
            key = self.stream_id, start, self.number + done, self.at
            yield _row(key, bytes(packed[:size]), rope.read(start, end))
            del packed[:size]
            done = count


@define(eq=False)
class Placement:
    """The changes to a stream's chunks for an addition.

    :param rows: chunks to add.
    :param replaced_from: chunks that begin at or after this position are removed first; ``None`` to remove none.
    :param run: the open run afterwards.
    :param large: the bytes to cut into chunks instead of ``rows``, if there are many.
    """

    rows: Sequence[Row]
    replaced_from: int | None
    run: OpenRun
    large: Large | None = None


def place(stream_id: int, run: OpenRun, earlier: Earlier, new: Addition) -> Placement:
    """Return how to store new bytes of a stream in chunks.

    :param run: the stream's open run.
    :param earlier: returns the bytes and entries of that run; called only if the run is merged.
    """
    entries = new.entries
    tail = new.start + new.size
    size = tail - run.start
    if run.rows and run.rows < MERGE_ROWS and size < MERGE_BYTES:
        row = _row((stream_id, new.start, new.number, new.at), index.packed(entries), new.data)
        return Placement([row], None, OpenRun(run.start, run.number, run.rows + 1))
    replaced_from, before = None, b""
    if run.rows:
        replaced_from = run.start
        before, earlier_entries = earlier()
        entries = index.joined(earlier_entries, entries)
    if size <= CHUNK_BYTES and isinstance(entries, array):
        row = _row((stream_id, run.start, run.number, new.at), index.packed(entries), before + new.data)
        after = OpenRun(run.start, run.number, 1) if size < MERGE_BYTES else _closed(run, tail, entries)
        return Placement([row], replaced_from, after)
    large = Large(stream_id, run.start, run.number, new.at, size, [before, *new.parts], entries)
    last = run.start + (large.count - 1) * CHUNK_BYTES
    if tail - last < MERGE_BYTES:
        after = OpenRun(last, run.number + index.count_up_to(entries, last), 1)
    else:
        after = _closed(run, tail, entries)
    return Placement([], replaced_from, after, large)


def _closed(run: OpenRun, tail: int, entries: Index) -> OpenRun:
    return OpenRun(tail, run.number + len(entries), 0)


_Key = tuple[int, int, int, float]


def _row(key: _Key, packed: bytes, data: bytes) -> Row:
    return key[0], key[1], _checksum(key, packed, data), packed, data, key[2], key[3]


def _checksum(key: _Key, entries: bytes, data: bytes) -> int:
    return crc32(data, crc32(entries, crc32(_KEY.pack(*key))))


# --- reading -----------------------------------------------------------------------------------------------------

_SCRUB = "SELECT id, stream_id, start, checksum, entries, data, number, at FROM chunks WHERE id > ? ORDER BY id LIMIT ?"
_COLUMNS = "SELECT stream_id, start, checksum, entries, data, number, at FROM chunks"
_FROM = (
    _COLUMNS + " WHERE stream_id = ? AND start >="  # noqa: S608 (all of it stands here)
    " coalesce((SELECT start FROM chunks WHERE stream_id = ? AND start <= ? ORDER BY start DESC LIMIT 1), 0)"
)
"""Selects the chunk that contains a position, and those after it."""


def read(database: Connection, stream_id: int, start: int, end: int) -> bytes:
    """Return a stream's bytes from ``start`` up to ``end``.

    :raise StorageDamaged: if any of them are missing or damaged.
    """
    parts = []
    reached = start
    for row in _rows(database, _FROM + " AND start < ? ORDER BY start", stream_id, stream_id, start, end):
        begin, data = row[1], row[4]
        if begin > reached or begin + len(data) <= reached:
            break
        parts.append(data[reached - begin : end - begin])
        reached = min(end, begin + len(data))
    if reached != end:
        text = f"the chunks of stream {stream_id} end at {reached}, but there are bytes up to {end}"
        raise StorageDamaged(text, stream_id, f"chunk {reached}")
    return b"".join(parts)


def floor(database: Connection, stream_id: int, position: int) -> int:
    """Return the last message end at or before ``position``, or else the start of the stream's first chunk."""
    sql = _COLUMNS + " WHERE stream_id = ? AND start < ? AND length(entries) > 0 ORDER BY start DESC"
    for row in _rows(database, sql, stream_id, position):
        found = _entries(row)
        if found[0] >> 1 <= position:
            return index.floor(found, position, 0)
    first = database.execute("SELECT min(start) FROM chunks WHERE stream_id = ?", (stream_id,)).fetchone()
    return int(first[0])


def extent(database: Connection, stream_id: int, start: int, limit: int) -> int:
    """Return the end of the last message within ``limit`` bytes from ``start``; if none is within, that of the first.

    :raise StorageDamaged: if no message follows.
    """
    bound = start + limit
    within = _FROM + " AND start < ? AND length(entries) > 0 ORDER BY start DESC"
    for row in _rows(database, within, stream_id, stream_id, start, bound):
        entries = _entries(row)
        count = index.count_up_to(entries, bound)
        if count and entries[count - 1] >> 1 > start:
            return entries[count - 1] >> 1
    return next(_ends(database, stream_id, start))[0]


def append_ends(database: Connection, stream_id: int, position: int) -> list[int]:
    """Return the message ends after ``position``, up to the first that also ends an append.

    :raise StorageDamaged: if no such message follows.
    """
    found = []
    for end, ends_append in _ends(database, stream_id, position):
        found.append(end)
        if ends_append:
            break
    return found


def entries(database: Connection, stream_id: int, position: int, most: int) -> list[int]:
    """Return the index entries of the messages that end after ``position``, at most ``most``.

    :raise StorageDamaged: if no message follows.
    """
    found = list(islice(_following(database, stream_id, position), most))
    if not found:
        raise _nothing_after(stream_id, position)
    return found


def _ends(database: Connection, stream_id: int, position: int) -> Iterator[tuple[int, bool]]:
    """Yield the message ends after ``position``, and whether each also ends an append.

    :raise StorageDamaged: if the caller asks for more than there are.
    """
    for entry in _following(database, stream_id, position):
        yield entry >> 1, bool(entry & index.APPEND_END)
    raise _nothing_after(stream_id, position)


def _following(database: Connection, stream_id: int, position: int) -> Iterator[int]:
    """Yield the index entries of the messages that end after ``position``."""
    sql = _FROM + " AND length(entries) > 0 ORDER BY start"
    for row in _rows(database, sql, stream_id, stream_id, position):
        entries = _entries(row)
        yield from entries[index.count_up_to(entries, position) :]


def _nothing_after(stream_id: int, position: int) -> StorageDamaged:
    text = f"the chunks of stream {stream_id} have no message that ends after {position}"
    return StorageDamaged(text, stream_id, f"after {position}")


def _entries(row: Row) -> array[int]:
    return index.unpacked(row[3])


def _rows(database: Connection, sql: str, *parameters: int) -> Iterator[Row]:
    """Yield the selected chunks, each of them verified.

    :raise StorageDamaged: if one is damaged.
    """
    with closing(database.execute(sql, parameters)) as found:
        for row in found:
            fault = damage(row)
            if fault is not None:
                raise fault
            yield row


def damage(row: tuple[Any, ...]) -> StorageDamaged | None:
    """Return the damage of one chunk by itself, or ``None`` if it is intact."""
    stream_id, start, checksum, entries, data, number, at = row
    is_sound = isinstance(entries, bytes) and isinstance(data, bytes) and isinstance(number, int)
    if not is_sound or checksum != _checksum((stream_id, start, number, at), entries, data):
        text = f"the chunk of stream {stream_id} at {start} is damaged: its checksum is wrong"
        return StorageDamaged(text, stream_id, f"chunk {start}")
    return None


@frozen
class Look:
    """The result of one step of a scrub.

    :param last: the id of the last chunk read, or ``None`` if none was left.
    :param size: the number of bytes in the chunks read.
    :param damaged: the damage found.
    """

    last: int | None
    size: int
    damaged: Sequence[StorageDamaged]


def verify(database: Connection, after: int, most: int) -> Look:
    """Verify chunks in the order of their ids: at most ``most`` with ids above ``after``."""
    last, size, damaged = None, 0, []
    with closing(database.execute(_SCRUB, (after, most))) as found:
        for number, *row in found:
            last, fault = number, damage(tuple(row))
            size += len(row[4]) if isinstance(row[4], bytes) else 0
            if fault is not None:
                damaged.append(fault)
    return Look(last, size, damaged)


def every(database: Connection) -> Any:
    """Return all chunks of a shard, stream by stream and in order, without verifying them."""
    return database.execute(_COLUMNS + " ORDER BY stream_id, start")
