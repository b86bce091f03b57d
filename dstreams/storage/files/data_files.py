"""The bytes of streams in the file modes: recent ones in memory, all others in one data file per stream.

Files
    ``data/<d>/<i>.data`` holds exactly the stored bytes of incarnation ``<i>`` (16 hexadecimal digits) from its own
    start on, so a read is a range of it. ``data/<d>/<i>.index`` holds its message ends, see ``index``, and
    ``data/<d>/<i>.sums`` the checksums of both, see ``runs``. ``<d>`` is the last three digits of ``<i>``, so a
    million streams are spread over 4096 directories with a few hundred streams each. A stream without bytes of its own
    has no files. Bytes of a file beyond the length recorded in the catalog are written again.

Checksums
    Bytes that pass through the process are verified each time they are read, in whole runs. Bytes that the kernel
    sends (:meth:`StreamBytes.in_file`) are read and verified once after each start. Recent messages in memory come from
    clients, or from the journal, whose batches have checksums.

Committed messages stay in memory until a checkpoint has written and synced them (``take_unwritten``, ``written``). The
journal has them meanwhile, so these files are never synced one by one. The files of a deleted stream are kept as long
as a reader may need them (``release``).
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NoReturn, TypeVar, overload
from weakref import WeakValueDictionary

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dstreams.model.changes import Append, Create
from dstreams.model.state import StreamState
from dstreams.runtime.pending import then
from dstreams.runtime.sharded import SHARD_MASK, SHARD_SHIFT, ShardedDict
from dstreams.runtime.threads import Run
from dstreams.storage import index
from dstreams.storage.damage import DamageLog
from dstreams.storage.disk import Disk, File, open_files_allowed, storage_error, write_all, write_pieces
from dstreams.storage.files.runs import (
    ENTRY_BYTES,
    SUM_BYTES,
    Block,
    Blocks,
    RunTable,
    WouldWait,
    cut,
    first_damaged,
    packed,
    read_data,
    read_entries,
    valid_runs,
)
from dstreams.storage.files.runs import (
    Run as DataRun,
)
from dstreams.storage.files.verifying import Extent, verify_stream
from dstreams.storage.index import Index
from dstreams.storage.interface import FileRange, StorageDamaged, StorageError, Verified
from dstreams.storage.pieces import Chunk
from dstreams.storage.recent import RecentBytes
from dstreams.storage.rope import Rope

_T = TypeVar("_T")

FOLDER_DIGITS = 3
"""The number of final digits of a stream's id that are the name of its directory."""

DATA, INDEX, SUMS = range(3)
"""The indexes of a stream's files in :meth:`DataFiles.paths`."""

MAX_BLOCKS: Final = 512
"""Maximum number of cached blocks of checksums. Each takes 4 KiB for 1 MiB of data, and its unpacked entries."""

SCRUB_STREAMS: Final = 16
SCRUB_BYTES: Final = 256 * 1024
"""A step of the scrub covers at most ``SCRUB_STREAMS`` streams, and ends when it has read ``SCRUB_BYTES`` bytes."""

SCRUB_EMPTY: Final = 500
"""Maximum number of streams without bytes in files that a step of the scrub passes over."""

LEAST_SENT: Final = 64 * 1024
"""Minimum number of bytes that the kernel sends if more are wanted. The others have to be read and verified anyway, so
a shorter range is read with them."""

MAX_RANGES: Final = 20_000
"""Maximum number of ranges that are remembered as verified since the start."""


@frozen
class Unwritten:
    """Messages of one stream that are about to be written into its files.

    :param position: the absolute position of the first byte; ``offset`` is its position in the file.
    :param number: the number of the stream's messages before these.
    :param data: the bytes of the messages, in pieces; ``size`` is their total length.
    """

    stream_id: int
    position: int
    offset: int
    number: int
    data: Sequence[Chunk]
    size: int
    entries: Index


@define(eq=False)
class DataFiles:
    """The bytes of all streams.

    :param directory: the directory ``data`` of the data directory.
    :param run: runs reads that have to wait for the disk.
    """

    _disk: Disk
    _directory: str
    _run: Run
    damage: DamageLog = field(factory=DamageLog)
    blocks: Blocks = field(factory=lambda: Blocks(MAX_BLOCKS), init=False)
    verified: VerifiedRanges = field(factory=lambda: VerifiedRanges(MAX_RANGES), init=False)
    _recent: ShardedDict[int, RecentBytes] = field(factory=ShardedDict, init=False)
    _open: OrderedDict[str, File] = field(factory=OrderedDict, init=False)
    _most_open: int = field(factory=lambda: open_files_allowed(), init=False)  # noqa: PLW0108 (patched by tests)
    _made: set[str] = field(factory=set, init=False)
    # By stream id, the object that all readers of its files share. A stream without readers has none.
    _held: WeakValueDictionary[int, PinnedBytes] = field(factory=WeakValueDictionary, init=False)

    @property
    def open_files(self) -> int:
        """The number of files that are kept open."""
        return len(self._open)

    def append(self, change: Append | Create, start: int, number: int) -> None:
        """Keep the messages of a committed change in memory.

        :param start: the stream's own start.
        :param number: the number of messages before; used only if no messages of the stream are in memory yet.
        """
        shard = self._recent.shards[hash(change.stream_id) >> SHARD_SHIFT & SHARD_MASK]
        recent = shard.get(change.stream_id)
        if recent is None:
            recent = shard[change.stream_id] = RecentBytes(start, change.start, number)
        recent.append(change.data, change.ends)

    def source(self, state: StreamState) -> StreamBytes:
        """Return the bytes of a stream, up to its tail."""
        recent = self._recent.shards[hash(state.id) >> SHARD_SHIFT & SHARD_MASK].get(state.id)
        if recent is None:
            recent = RecentBytes(state.start, state.tail, state.messages)
        hold = self._hold(state.id) if recent.number else None
        return StreamBytes(self, state.id, recent, recent.start, recent.written, recent.number, hold)

    def _hold(self, stream_id: int) -> PinnedBytes:
        hold = self._held.get(stream_id)
        if hold is None:
            hold = self._held[stream_id] = PinnedBytes()
        return hold

    def release(self, stream_id: int) -> bool:
        """Close the files of a deleted stream, unless a reader may still need them.

        :return: whether they are not needed any more.
        """
        if stream_id in self._held:
            return False
        for path in self.paths(stream_id):
            self._open.pop(path, None)
        return True

    def forget(self, stream_id: int) -> None:
        """Discard everything about a deleted stream, so that nothing of it is written any more."""
        self._recent.shard(stream_id).pop(stream_id, None)
        self.blocks.forget(stream_id)
        self.verified.forget(stream_id)
        self.damage.forget(stream_id)

    def take_unwritten(self, stream_id: int) -> Unwritten | None:
        """Return the messages of a stream that have to be written, or ``None``. They stay readable from memory."""
        recent = self._recent.get(stream_id)
        if recent is None:
            return None
        data, size, offset = recent.data.pieces(), len(recent.data), recent.written - recent.start
        return Unwritten(stream_id, recent.written, offset, recent.number, data, size, recent.entries[:])

    @staticmethod
    def in_order(stream_ids: Collection[int]) -> list[int]:
        """Return streams in the best order for writing their files: one directory after the other.

        In the order of ids, each stream would be in another directory than the one before. Creating the files of
        100,000 streams on ext4 takes 2.3 s by directory and 3.3 s by id; the sync afterwards takes 2.8 s in both cases.
        May run in a thread.
        """
        folders: list[list[int]] = [[] for _ in range(1 << 4 * FOLDER_DIGITS)]
        last = len(folders) - 1
        for stream_id in stream_ids:
            folders[stream_id & last].append(stream_id)
        return list(chain.from_iterable(folders))

    def write(self, pieces: Sequence[Unwritten]) -> None:
        """Write messages into their files, without syncing. May run in a thread.

        :raise OSError: if a file cannot be written.
        """
        for piece in pieces:
            data_path, index_path, sums_path = self.paths(piece.stream_id)
            folder = data_path.rpartition("/")[0]
            if folder not in self._made:
                self._disk.make_directories(folder)
                self._made.add(folder)
            write_pieces(self._disk.open(data_path, create=True), piece.data, piece.offset)
            write_all(self._disk.open(index_path, create=True), index.packed(piece.entries), ENTRY_BYTES * piece.number)
            self._write_sums(self._disk.open(sums_path, create=True), piece)

    @staticmethod
    def _write_sums(file: File, piece: Unwritten) -> None:
        size = file.size()
        place = valid_runs(file, size, piece.stream_id, piece.position) if size and piece.offset else 0
        sums = packed(piece.stream_id, place, list(cut(piece.position, piece.number, piece.data, piece.entries)))
        write_all(file, sums, SUM_BYTES * place)
        end = SUM_BYTES * place + len(sums)
        if size > end:
            # Entries that a crash left there end after the old tail, but perhaps not after the new one. They would then
            # seem valid.
            file.truncate(end)

    def written(self, stream_id: int, size: int, count: int) -> None:
        """Read the first ``count`` unwritten messages, which have ``size`` bytes, from the files from now on."""
        recent = self._recent.get(stream_id)
        if recent is not None and recent.drop(size, count):
            del self._recent[stream_id]

    def scrub(self, states: Iterable[StreamState]) -> Iterator[Deferred[Verified]]:
        """Verify the files of streams; see ``Storage.scrub``.

        :param states: iterated lazily.
        """
        steps: list[Iterator[Verified]] = []
        sources: list[StreamBytes] = []  # the files are kept as long as these exist
        passed = 0
        for state in states:
            source = self.source(state)
            extent = source.extent_in_files()
            if extent.end > extent.start:
                steps.append(verify_stream(self._disk, self.paths(state.id), extent))
                sources.append(source)
            else:
                passed += 1
            if len(steps) == SCRUB_STREAMS:
                yield from self._scrub_together(steps)
                sources.clear()
            elif passed == SCRUB_EMPTY:
                passed = 0
                yield self._run(_verify_some, steps)
        yield from self._scrub_together(steps)

    def _scrub_together(self, steps: list[Iterator[Verified]]) -> Iterator[Deferred[Verified]]:
        """Verify several streams together, so that small ones do not need a thread's round trip each."""
        while steps:
            yield self._run(_verify_some, steps)

    def remove(self, stream_ids: Sequence[int]) -> None:
        """Remove the files of deleted streams. May run in a thread."""
        for stream_id in stream_ids:
            for path in self.paths(stream_id):
                self._disk.unlink(path)

    def free_uncovered(self, deleted: Iterable[int]) -> None:
        """Free the space of bytes that the journal also holds, and of deleted streams.

        A checkpoint that failed on a full disk leaves such bytes; the next one writes them again. Call it only at a
        start, when the whole journal is durable and nothing reads the files.

        :param deleted: streams whose deletion is in the journal.
        """
        unneeded = list(deleted)
        for stream_id, recent in self._recent.items():
            data_path, index_path, _ = self.paths(stream_id)
            if recent.written == recent.start:
                unneeded.append(stream_id)
                continue
            for path, size in (data_path, recent.written - recent.start), (index_path, ENTRY_BYTES * recent.number):
                file = self._disk.open(path, create=True)
                if file.size() > size:
                    file.truncate(size)
        self.remove(unneeded)

    def paths(self, stream_id: int) -> tuple[str, str, str]:
        """Return the paths of the data file, the index file and the file of checksums of a stream."""
        name = f"{stream_id:016x}"
        stem = f"{self._directory}/{name[-FOLDER_DIGITS:]}/{name}"
        return stem + ".data", stem + ".index", stem + ".sums"

    def file(self, path: str) -> File:
        """Return a file that is open for reading. The least recently used ones are closed.

        :raise OSError: if it cannot be opened.
        """
        file = self._open.get(path)
        if file is None:
            file = self._open[path] = self._disk.open(path, write=False)
            while len(self._open) > self._most_open:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(path)
        return file

    def fetch(self, stream_id: int, now: Callable[[bool], _T]) -> _T | Deferred[_T]:
        """Read immediately if the bytes are in the page cache, else in a thread.

        :param now: reads the bytes; its argument is whether to wait for the disk. If not, it raises
            :class:`WouldWait` instead of waiting.
        """
        try:
            return now(False)
        except WouldWait:
            done: Deferred[_T] = self._run(now, True)
            return done.addErrback(self._failed, stream_id)
        except StorageDamaged as error:
            self.damage.note(error)
            raise
        except OSError as error:
            raise self._read_error(error, stream_id) from error

    def _failed(self, failure: Failure, stream_id: int) -> NoReturn:
        error = failure.value
        if isinstance(error, StorageDamaged):
            self.damage.note(error)
        if isinstance(error, OSError):
            raise self._read_error(error, stream_id) from error
        failure.raiseException()

    def _read_error(self, error: OSError, stream_id: int) -> StorageError:
        doing = "reading a stream's files"
        if error.errno != errno.EIO:
            return storage_error(error, doing)
        damaged = StorageDamaged(f"{doing}: {error}", stream_id, str(error))
        self.damage.note(damaged)
        return damaged


def _verify_some(steps: list[Iterator[Verified]]) -> Verified:
    """Continue to verify streams until ``SCRUB_BYTES`` bytes are read; remove the streams that are done."""
    size = 0
    damaged: list[StorageDamaged] = []
    while steps and size < SCRUB_BYTES:
        found = next(steps[-1], None)
        if found is None:
            steps.pop()
        else:
            size += found.size
            damaged += found.damaged
    return Verified(size, damaged)


@define(eq=False)
class VerifiedRanges:
    """Remembers which bytes were verified. Evicts all ranges of the least recently verified stream if it has too many.

    :param most: maximum number of ranges of all streams together.
    """

    _most: int
    _ranges: OrderedDict[int, list[int]] = field(factory=OrderedDict, init=False)
    # The number of positions in the lists: two for each range.
    _count: int = field(default=0, init=False)

    def end(self, stream_id: int, position: int) -> int:
        """Return the end of the range that contains ``position``, or 0 if there is none."""
        edges = self._ranges.get(stream_id)
        if edges is None:
            return 0
        place = bisect_right(edges, position)
        return edges[place] if place & 1 else 0

    def add(self, stream_id: int, begin: int, end: int) -> None:
        """Add a range. It may overlap others, and is merged with those that it touches."""
        edges = self._ranges.get(stream_id)
        if edges is None:
            edges = self._ranges[stream_id] = []
        elif edges[0] <= begin and end <= edges[1]:
            return
        first, last = bisect_left(edges, begin), bisect_right(edges, end)
        before = len(edges)
        # An odd place is inside a range, which the new one continues.
        edges[first:last] = ([] if first & 1 else [begin]) + ([] if last & 1 else [end])
        self._count += len(edges) - before
        self._ranges.move_to_end(stream_id)
        while self._count > 2 * self._most:
            _, dropped = self._ranges.popitem(last=False)
            self._count -= len(dropped)

    def forget(self, stream_id: int) -> None:
        """Discard the ranges of a stream."""
        self._count -= len(self._ranges.pop(stream_id, ()))


@define(eq=False)
class PinnedBytes:
    """Keeps the files of a stream from being removed as long as it exists, even if the stream is deleted."""


@define(eq=False)
class StreamBytes:
    """The bytes of one stream at one moment (a ``ByteSource``)."""

    _files: DataFiles
    _stream_id: int
    _recent: RecentBytes
    _start: int
    _written: int
    _number: int
    _hold: PinnedBytes | None
    _memory: Rope = field(init=False)
    _entries: Index = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._memory, self._entries = self._recent.data, self._recent.entries

    def read(self, start: int, end: int) -> bytes | Deferred[bytes]:
        """Return the bytes from ``start`` up to ``end``."""
        if start >= self._written:
            return self._memory.read(start, end)
        if end > self._written:
            rest = self._memory.read(self._written, end)
            return then(self.read(start, self._written), lambda data: data + rest)
        return self._read_files(start, end)

    def _read_files(self, start: int, end: int) -> bytes | Deferred[bytes]:
        files, stream_id, own_start = self._files, self._stream_id, self._start
        # The file is not kept until the next read: a client that reads no more would occupy a descriptor.
        file = self._open(DATA)
        block = files.blocks.newest(stream_id)
        runs = None if block is None else block.runs(start, end)
        if runs is not None:
            # The most common case: the stream was read before, and the bytes are in the page cache.
            begin = runs[0].begin
            try:
                data = file.pread_nowait(runs[-1][0] - begin, begin - own_start)
            except OSError:
                data = None  # reported below
            if data is not None and first_damaged(data, runs) is None:
                files.verified.add(stream_id, begin, runs[-1][0])
                return data if begin == start and runs[-1][0] == end else data[start - begin : end - begin]
        sums, written = self._open(SUMS), self._written

        def now(wait: bool) -> tuple[bytes, int, Block | None]:
            table = RunTable(sums, stream_id, files.blocks, written, wait)
            runs = table.runs(start, end)
            return read_data(file, own_start, runs, stream_id, wait=wait), runs[0].begin, table.block

        def take(found: tuple[bytes, int, Block | None]) -> bytes:
            data, begin, block = found
            if block is not None:
                files.blocks.use(stream_id, block)
            files.verified.add(stream_id, begin, begin + len(data))
            return data[start - begin : end - begin]

        return then(files.fetch(stream_id, now), take)

    def extent_in_files(self) -> Extent:
        """Return the part that is in files."""
        return Extent(self._stream_id, self._start, self._written, self._number)

    def in_file(self, start: int, end: int) -> FileRange | None:
        """Return the location of the bytes from ``start`` on, or ``None`` if they have to be read and verified."""
        if start >= self._written or self._files.damage.is_known(self._stream_id):
            return None
        wanted = min(end, self._written)
        end = min(wanted, self._files.verified.end(self._stream_id, start))
        if end <= start or end - start < min(LEAST_SENT, wanted - start):
            return None
        file, offset, size = self._open(DATA), start - self._start, end - start
        if file.fileno() < 0 or not (file.pread_nowait(1, offset) and file.pread_nowait(1, offset + size - 1)):
            return None
        return FileRange(file, offset, size)

    def floor(self, position: int) -> int | Deferred[int]:
        """Return the last message end at or before ``position``, or the start if there is none."""
        if position >= self._written:
            return index.floor(self._entries, position, self._written)
        return self._query(position, lambda entries: index.floor(entries, position, self._start))

    def extent(self, start: int, limit: int) -> int | Deferred[int]:
        """Return the end of the last message within ``limit`` bytes from ``start``; if there is none, of the first."""
        return self._query(start, lambda entries: index.extent(entries, start, limit))

    def append_ends(self, position: int) -> Sequence[int] | Deferred[Sequence[int]]:
        """Return the message ends after ``position``, up to the first that also ends an append."""
        return self._query(position, lambda entries: index.append_ends(entries, position))

    def entries(self, position: int, most: int) -> Sequence[int] | Deferred[Sequence[int]]:
        """Return the index entries of the messages that end after ``position``, at most ``most``."""
        return self._query(position, lambda entries: index.following(entries, position, most))

    def _query(self, position: int, ask: Callable[[Sequence[int]], _T]) -> _T | Deferred[_T]:
        """Query the index; only its part in memory if that is enough."""
        if position > self._written or not self._number:
            return ask(self._entries)
        sums, file, entries = self._open(SUMS), self._open(INDEX), self._entries
        stream_id, start, written, number = self._stream_id, self._start, self._written, self._number
        blocks = self._files.blocks

        def now(wait: bool) -> _T:
            table = RunTable(sums, stream_id, blocks, written, wait)
            return ask(_FileIndex(table, file, stream_id, start, written, number, entries, wait))

        return self._files.fetch(stream_id, now)

    def _open(self, which: int) -> File:
        path = self._files.paths(self._stream_id)[which]
        try:
            return self._files.file(path)
        except FileNotFoundError as error:
            damaged = StorageDamaged(f"{path} is missing", self._stream_id, path)
            self._files.damage.note(damaged)
            raise damaged from error
        except OSError as error:
            raise StorageError(f"opening {path}: {error}") from error


@define(eq=False)
class _FileIndex(Sequence[int]):
    """An index file, continued by the entries in memory.

    :param start: the stream's own start.
    :param written: the position at which the file ends; ``number`` is the number of its entries.
    """

    _table: RunTable
    _file: File
    _stream_id: int
    _start: int
    _written: int
    _number: int
    _recent: Index
    _wait: bool
    _entries: array[int] = field(factory=lambda: array("Q"), init=False)
    _first: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self._number + len(self._recent)

    def count_up_to(self, position: int) -> int:
        """Return how many messages end at or before ``position``."""
        if position >= self._written:
            return self._number + index.count_up_to(self._recent, position)
        if position <= self._start:
            return 0
        self._load(self._table.run_at(position))
        return self._first + index.count_up_to(self._entries, position)

    @overload
    def __getitem__(self, number: int) -> int: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[int]: ...
    def __getitem__(self, number: int | slice) -> int | Sequence[int]:
        assert isinstance(number, int)
        if number >= self._number:
            return self._recent[number - self._number]
        if not self._first <= number < self._first + len(self._entries):
            self._load(self._table.run_with(number))
        return self._entries[number - self._first]

    def _load(self, run: DataRun) -> None:
        """Read the entries of a run."""
        self._entries = read_entries(self._file, run, self._stream_id, wait=self._wait)
        self._first = run.first
