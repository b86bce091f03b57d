"""Streams' bytes between memory and files."""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from dstreams.model.changes import Append, Create, StreamConfig
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import DEFAULT
from dstreams.storage import recent, rope
from dstreams.storage.disk import OsDisk, OsFile
from dstreams.storage.files import data_files, runs
from dstreams.storage.files.data_files import DataFiles, StreamBytes
from dstreams.storage.files.verifying import verify_stream
from dstreams.storage.interface import StorageDamaged, StorageError
from tests.crash.disk import Fault, Mount, Platter
from tests.crash.machine import Threads

START = 100
"""Where the streams of these tests begin, as a fork does."""


@define(eq=False)
class Shelf:
    """Data files with one stream or more, and what they must hold.

    :param cold: whether reads that must not wait find nothing in the page cache.
    """

    cold: bool = False
    mount: Mount = field(init=False)
    threads: Threads = field(factory=Threads, init=False)
    files: DataFiles = field(init=False)
    states: dict[int, StreamState] = field(factory=dict, init=False)
    data: dict[int, bytes] = field(factory=dict, init=False)
    appends: dict[int, list[tuple[int, ...]]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.mount = Mount(Platter(), cold=lambda: self.cold)
        self.files = DataFiles(self.mount, "/data", self.threads.run)

    def create(self, stream_id: int = 1) -> None:
        create = Create(stream_id, str(stream_id), StreamConfig(DEFAULT), None, b"", (), False, 0.0)
        state = self.states[stream_id] = StreamState.created(create)
        state.start = state.tail = START
        self.data[stream_id], self.appends[stream_id] = b"", []

    def append(self, *messages: bytes, stream_id: int = 1) -> None:
        """Commit one append and apply it."""
        state = self.states[stream_id]
        ends = tuple(accumulate(map(len, messages), initial=state.tail))[1:]
        change = Append(stream_id, state.tail, b"".join(messages), ends, None, None, False, 0.0)
        self.files.append(change, state.start, state.messages)
        state.append(change)
        self.data[stream_id] += change.data
        self.appends[stream_id].append(ends)

    def write(self, stream_id: int = 1, *, tell: bool = True) -> None:
        """Put everything into the files, as a checkpoint does."""
        piece = self.files.take_unwritten(stream_id)
        if piece is not None:
            self.files.write([piece])
            if tell:
                self.files.written(stream_id, piece.size, len(piece.entries))

    def source(self, stream_id: int = 1) -> StreamBytes:
        return self.files.source(self.states[stream_id])

    def wait(self, value: Any) -> Any:
        """A result, now or after the threads have run."""
        if not isinstance(value, Deferred):
            return value
        results: list[Any] = []
        value.addBoth(results.append)
        while not results:
            self.threads.step()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]


def filled(*, cold: bool = False) -> Shelf:
    """A stream of which one half is in files and the other in memory."""
    shelf = Shelf(cold)
    shelf.create()
    shelf.append(b"one", b"two")
    shelf.append(b"three")
    shelf.write()
    shelf.append(b"four")
    shelf.append(b"five", b"six")
    return shelf


@pytest.mark.parametrize("cold", [False, True], ids=["cached", "cold"])
class ReadTests:
    def test_every_range(self, cold: bool) -> None:
        """Any range reads right, whether it lies in the file, in memory, or in both."""
        shelf = filled(cold=cold)
        data = shelf.data[1]
        for begin in range(len(data)):
            for end in range(begin, len(data) + 1):
                found = shelf.wait(shelf.source().read(START + begin, START + end))
                assert found == data[begin:end]

    @pytest.mark.parametrize("tell", [False, True])
    def test_source_made_before_a_checkpoint(self, cold: bool, tell: bool) -> None:
        """A source reads on as before while its bytes go into the files, and more come."""
        shelf = filled(cold=cold)
        source, data = shelf.source(), shelf.data[1]
        shelf.write(tell=tell)
        shelf.append(b"later")
        shelf.write(tell=tell)
        assert shelf.wait(source.read(START, START + len(data))) == data
        assert shelf.wait(source.append_ends(START + 3)) == [START + 6]
        assert shelf.wait(shelf.source().read(START, START + len(data) + 5)) == data + b"later"

    def test_cold_reads_go_through_a_thread(self, cold: bool) -> None:
        """Only what isn't in the page cache takes a thread; what is in memory never does."""
        shelf = filled(cold=cold)
        source = shelf.source()
        assert isinstance(source.read(START, START + 3), Deferred) == cold
        assert isinstance(source.floor(START + 3), Deferred) == cold
        assert not isinstance(source.read(START + 11, START + 15), Deferred)
        assert not isinstance(source.floor(START + 15), Deferred)

    def test_written_twice(self, cold: bool) -> None:
        """A recovery writes again what the files had beyond the catalog; that changes nothing."""
        shelf = filled(cold=cold)
        shelf.write(tell=False)
        shelf.write(tell=False)
        shelf.write()
        assert shelf.wait(shelf.source().read(START, START + 22)) == shelf.data[1]
        assert shelf.files.take_unwritten(1) is None


OPERATIONS = st.lists(
    st.one_of(
        st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=4),
        st.just("write"),
    ),
    max_size=12,
)


class QueryTests:
    @given(
        operations=OPERATIONS,
        cold=st.booleans(),
        block=st.sampled_from([1, 2, 128]),
        large=st.sampled_from([1, 4, 99]),
        size=st.sampled_from([1, 4, 99]),
        ends=st.sampled_from([1, 3, 99]),
    )
    def test_against_a_plain_model(
        self, operations: list[Any], cold: bool, block: int, large: int, size: int, ends: int
    ) -> None:
        """Every query gives what a list of message ends says, wherever the boundary to memory lies."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "BLOCK_RUNS", block)
            patch.setattr(runs, "RUN_BYTES", size)
            patch.setattr(runs, "RUN_ENTRIES", ends)
            for module in (recent, rope):
                patch.setattr(module, "LARGE_BYTES", large)
            shelf = Shelf(cold)
            shelf.create()
            for operation in operations:
                if operation == "write":
                    shelf.write()
                else:
                    shelf.append(*operation)
            check_queries(shelf)
            tail = shelf.states[1].tail
            assert shelf.wait(shelf.source().read(START, tail)) == shelf.data[1]

    def test_many_blocks(self) -> None:
        """An index of several pages is searched page by page."""
        shelf = Shelf()
        shelf.create()
        for _ in range(50):
            shelf.append(*[b"x"] * 50)
        shelf.write()
        shelf.append(b"x")
        source = shelf.source()
        assert shelf.wait(source.extent(START, 1000)) == START + 1000
        assert shelf.wait(source.append_ends(START + 1049)) == [START + 1050]
        assert shelf.wait(source.floor(START + 2499)) == START + 2499


def check_queries(shelf: Shelf) -> None:
    """All queries at all positions."""
    source, appends = shelf.source(), shelf.appends[1]
    ends = [end for group in appends for end in group]
    tail = shelf.states[1].tail
    for position in range(START, tail + 1):
        assert shelf.wait(source.floor(position)) == max([START, *(end for end in ends if end <= position)])
        following = next((group for group in appends if group[-1] > position), ())
        assert list(shelf.wait(source.append_ends(position))) == [end for end in following if end > position]
        for limit in (1, 3, 100) if position < tail else ():
            within = bisect_right(ends, position + limit)
            first = bisect_right(ends, position)
            assert shelf.wait(source.extent(position, limit)) == ends[max(within - 1, first)]


class OrderTests:
    """In which order files are written."""

    def test_by_directory(self) -> None:
        """Every stream comes once, and those of one directory come together."""
        files = Shelf().files
        ids = [(1 << 50) + 7 * number for number in range(20_000)]
        ordered = files.in_order(set(ids))
        assert sorted(ordered) == ids
        folders = [files.paths(stream_id)[0].rpartition("/")[0] for stream_id in ordered]
        assert len([None for one, next_ in pairwise(folders) if one != next_]) == len(set(folders)) - 1


class OpenFileTests:
    def test_number_of_open_files_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The least recently used files are closed; nobody keeps one beyond that, and all go on to read."""
        monkeypatch.setattr(data_files, "open_files_allowed", lambda: 3)
        shelf = Shelf()
        for stream_id in range(1, 6):
            shelf.create(stream_id)
            shelf.append(b"%d" % stream_id, stream_id=stream_id)
            shelf.write(stream_id)
        first = shelf.source(1)
        assert shelf.wait(first.read(START, START + 1)) == b"1"
        for stream_id in (2, 3, 2, 4):
            assert shelf.wait(shelf.source(stream_id).read(START, START + 1)) == b"%d" % stream_id
        assert shelf.files.open_files == 3
        opened = len(shelf.mount.trace)
        assert shelf.wait(shelf.source(2).read(START, START + 1)) == b"2"
        assert len(shelf.mount.trace) == opened
        assert shelf.wait(first.read(START, START + 1)) == b"1"
        assert len(shelf.mount.trace) == opened + 1
        assert shelf.files.open_files == 3

    def test_no_files_without_bytes(self) -> None:
        """A stream without bytes of its own costs no file, no descriptor, no hold."""
        shelf = Shelf()
        shelf.create()
        source = shelf.source()
        shelf.write()
        assert source.floor(START) == START
        assert shelf.mount.trace == []
        assert shelf.files.release(1)


class InFileTests:
    """What the kernel may send without its being read."""

    def shelf(self, directory: Path) -> Shelf:
        """Twenty bytes in a file of the operating system's, and eight in memory."""
        shelf = Shelf()
        shelf.files = DataFiles(OsDisk(), str(directory), shelf.threads.run)
        shelf.create()
        shelf.append(b"0123456789abcdefghij")
        shelf.write()
        shelf.append(b"inmemory")
        return shelf

    def test_where_bytes_lie(self, tmp_path: Path) -> None:
        """Bytes in the file are found there, up to where memory goes on; those in memory aren't."""
        source = self.shelf(tmp_path).source()
        assert source.in_file(START, START + 5) is None
        source.read(START + 8, START + 9)
        for start, end, size in ((0, 5, 5), (3, 20, 17), (10, 28, 10)):
            found = source.in_file(START + start, START + end)
            assert found is not None
            assert (found.offset, found.size) == (start, size)
            assert os.pread(found.file.fileno(), 99, start) == b"0123456789abcdefghij"[start:]
        assert source.in_file(START + 20, START + 28) is None

    def test_cold_pages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What isn't in the page cache has to be read: the kernel would wait for the disk."""
        source = self.shelf(tmp_path).source()
        source.read(START, START + 20)
        read, cold = OsFile.pread_nowait, {0, 19}
        monkeypatch.setattr(OsFile, "pread_nowait", lambda *args: None if args[2] in cold else read(*args))
        for start, end, found in ((0, 19, False), (1, 19, True), (1, 20, False)):
            assert (source.in_file(START + start, START + end) is not None) == found

    def test_short_file(self, tmp_path: Path) -> None:
        """Where bytes are missing they have to be read, which tells of it."""
        shelf = self.shelf(tmp_path)
        shelf.source().read(START, START + 20)
        os.truncate(shelf.files.paths(1)[0], 12)
        assert shelf.source().in_file(START, START + 20) is None
        assert shelf.source().in_file(START, START + 12) is not None

    def test_disk_without_descriptors(self) -> None:
        """A disk that isn't the operating system's has nothing to send from."""
        assert filled().source().in_file(START, START + 3) is None


class DeletedStreamTests:
    def delete(self, shelf: Shelf) -> bool:
        """Delete the stream as a commit and the checkpoint after it do; whether its files went."""
        shelf.files.forget(1)
        released = shelf.files.release(1)
        if released:
            shelf.files.remove([1])
        return released

    def test_reader_keeps_the_files(self) -> None:
        """As long as somebody holds a source, it reads on, even what it has never touched."""
        shelf = filled()
        source, data = shelf.source(), shelf.data[1]
        assert not self.delete(shelf)
        assert shelf.wait(source.read(START, START + len(data))) == data
        assert shelf.wait(source.floor(START + 4)) == START + 3
        del source
        assert self.delete(shelf)
        assert shelf.mount.list(shelf.files.paths(1)[0].rpartition("/")[0]) == []

    def test_reader_of_memory_needs_no_files(self) -> None:
        """A source whose bytes were all in memory reads on without files."""
        shelf = Shelf()
        shelf.create()
        shelf.append(b"recent")
        source = shelf.source()
        shelf.write()
        assert self.delete(shelf)
        assert source.read(START, START + 6) == b"recent"

    def test_open_files_are_let_go(self) -> None:
        """The files of a deleted stream aren't kept open, or their space would not come back."""
        shelf = filled()
        shelf.wait(shelf.source().read(START, START + 3))
        assert shelf.files.open_files == 2
        assert self.delete(shelf)
        assert shelf.files.open_files == 0

    def test_deleted_while_it_was_written(self) -> None:
        """A stream that is deleted while a checkpoint writes it leaves nothing in memory."""
        shelf = filled()
        piece = shelf.files.take_unwritten(1)
        assert piece is not None
        shelf.files.forget(1)
        shelf.files.write([piece])
        shelf.files.written(1, piece.size, len(piece.entries))
        assert shelf.files.take_unwritten(1) is None


class ChecksumFileTests:
    """What a checkpoint that was given up has left in a file of checksums."""

    def damage(self, shelf: Shelf) -> list[StorageDamaged]:
        """What the check finds in the stream's files."""
        extent = shelf.source().extent_in_files()
        return [error for step in verify_stream(shelf.mount, shelf.files.paths(1), extent) for error in step.damaged]

    def test_more_entries_than_the_next_one_writes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are cut away: they end beyond the tail of that time, but not beyond the next one."""
        monkeypatch.setattr(runs, "RUN_ENTRIES", 1)
        given_up = Shelf()
        given_up.create()
        given_up.append(b"one", b"two", b"six")
        given_up.write()
        shelf = Shelf()
        shelf.mount = given_up.mount
        shelf.files = DataFiles(shelf.mount, "/data", shelf.threads.run)
        shelf.create()
        for message in (b"a message that is longer than all three", b"more", b"and more"):
            shelf.append(message)
            shelf.write()
            assert self.damage(shelf) == []
        tail = shelf.states[1].tail
        assert shelf.wait(shelf.source().read(START, tail)) == shelf.data[1]
        assert shelf.mount.open(shelf.files.paths(1)[2], write=False).size() == 3 * runs.SUM_BYTES

    def test_entries_read_before_they_change(self) -> None:
        """Entries behind the tail that a reader has read with others aren't believed when the tail has moved on."""
        shelf = filled()
        shelf.write(tell=False)
        assert shelf.wait(shelf.source().read(START, START + 5)) == shelf.data[1][:5]
        shelf.append(b"seven")
        shelf.write()
        tail = shelf.states[1].tail
        assert shelf.wait(shelf.source().read(START + 11, tail)) == shelf.data[1][11:]
        assert self.damage(shelf) == []
        check_queries(shelf)


class DamagedFileTests:
    @pytest.mark.parametrize("cold", [False, True], ids=["cached", "cold"])
    def test_short_data_file(self, cold: bool) -> None:
        """A data file that is shorter than it must be gives an error that names it."""
        shelf = filled(cold=cold)
        path = shelf.files.paths(1)[0]
        shelf.mount.open(path).truncate(5)
        shelf.cold = True
        with pytest.raises(StorageDamaged, match=f"{path}: the bytes from position 100 to 111 are damaged or missing"):
            shelf.wait(shelf.source().read(START + 3, START + 11))

    def test_short_index(self) -> None:
        """So does an index."""
        shelf = filled(cold=True)
        path = shelf.files.paths(1)[1]
        shelf.mount.open(path).truncate(8)
        with pytest.raises(StorageDamaged, match=f"{path}: the entries of the messages from number 0 to 3 are damaged"):
            shelf.wait(shelf.source().floor(START + 3))

    @pytest.mark.parametrize("which", [0, 1, 2], ids=["data", "index", "sums"])
    def test_missing_file(self, which: int) -> None:
        """And one that isn't there."""
        shelf = filled()
        path = shelf.files.paths(1)[which]
        shelf.mount.unlink(path)
        source = shelf.source()
        ask: Callable[[], object] = (
            (lambda: source.floor(START + 3)) if which == 1 else (lambda: source.read(START, START + 3))
        )
        with pytest.raises(StorageDamaged, match=f"{path} is missing"):
            ask()
        assert (shelf.files.damage.places, shelf.files.damage.streams) == (1, 1)

    def test_unreadable_disk_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An I/O error while reading is the storage's error, not the operating system's."""
        shelf = filled()
        source = shelf.source()
        shelf.wait(source.read(START, START + 1))

        def broken(self: object, size: int, offset: int) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("tests.crash.disk.SimFile.pread_nowait", broken)
        with pytest.raises(StorageError, match="Input/output error"):
            source.read(START, START + 3)

    def test_unreadable_disk_in_a_thread(self) -> None:
        """The same in a thread."""
        shelf = filled(cold=True)
        shelf.files = DataFiles(shelf.mount, "/data", lambda *_: fail(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(StorageError, match="Input/output error"):
            shelf.wait(shelf.files.source(shelf.states[1]).read(START, START + 3))

    def test_full_disk(self) -> None:
        """A write that finds no room raises; the messages stay in memory, and are written the next time."""
        shelf = filled()
        shelf.mount.fault = lambda step: Fault(errno.ENOSPC, 2) if step.kind == "write" else None
        with pytest.raises(OSError, match="No space left"):
            shelf.write()
        shelf.mount.fault = lambda _: None
        assert shelf.wait(shelf.source().read(START, START + 22)) == shelf.data[1]
        shelf.write()
        assert shelf.wait(shelf.source().read(START, START + 22)) == shelf.data[1]
