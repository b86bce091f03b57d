"""The journal by its invariants (J1 to J5) and by where a log ends."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from zlib import crc32

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from dstreams.storage.files import journal, segments
from dstreams.storage.files.journal import Corruption, Journal, Replay, begin_anew, replay, segment_name
from dstreams.storage.files.segments import HEADER_SIZE, MAX_BATCH_BYTES, pack_batch, pack_header
from dstreams.storage.interface import StorageError, StorageFull
from dstreams.storage.pieces import LARGE_BYTES, gather
from tests.crash.disk import Fault, MachineOff, Mount, Platter, Step

FOLDER = "/journal"

PAYLOADS = [b"one", b"two" * 10, b"", b"four" * 200, b"five"]


@define(eq=False)
class Log:
    """A journal on a simulated disk, through several processes.

    :param start: the first batch that no checkpoint covers.
    """

    durable: bool = True
    platter: Platter = field(factory=Platter)
    start: int = 0
    mount: Mount = field(init=False)
    journal: Journal = field(init=False)
    found: Replay = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.mount = Mount(self.platter)
        self.mount.make_directories(FOLDER)
        self.mount.sync_directory("/")

    def read(self) -> list[bytes]:
        """The payloads that a recovery finds; nothing is written."""
        self.found = replay(self.mount, FOLDER, self.start)
        return [batch.payload for batch in self.found]

    def open(self) -> list[bytes]:
        """Recover and begin to write; the payloads found."""
        self.mount = Mount(self.platter)
        payloads = self.read()
        following = self.start if self.found.last is None else self.found.last.sequence + 1
        self.journal = Journal(self.mount, FOLDER, following, self.durable)
        self.journal.begin(self.found)
        return payloads

    def append(self, *payloads: bytes, sync: bool = True) -> None:
        for payload in payloads:
            self.journal.append([payload], len(payload))
            if sync:
                self.journal.file.sync()

    def lose_power(self, seed: int = 0) -> None:
        self.platter.lose_power(Random(seed))

    def path(self, first: int) -> str:
        return f"{FOLDER}/{segment_name(first)}"

    def size(self, first: int) -> int:
        return self.mount.open(self.path(first), write=False).size()

    def cut(self, first: int, size: int) -> None:
        self.mount.open(self.path(first)).truncate(size)

    def recycle(self, first: int) -> None:
        """Let the journal go on in a segment of its own that nobody needs any more."""
        path = f"{FOLDER}/spare"
        self.mount.rename(self.path(first), path)
        self.mount.sync_directory(FOLDER)
        self.journal.begin_segment(spare=self.mount.open(path))

    def write(self, first: int, offset: int, data: bytes) -> None:
        self.mount.open(self.path(first)).pwrite(data, offset)

    def content(self, first: int) -> bytes:
        return self.mount.open(self.path(first)).pread(1 << 20, 0)

    def salt(self, first: int) -> int:
        return int.from_bytes(self.content(first)[16:20], "little")


def filled(*, durable: bool = True) -> tuple[Log, list[int]]:
    """A log of ``PAYLOADS`` in one segment, and where each batch begins and the last ends."""
    log = Log(durable)
    log.open()
    places = [HEADER_SIZE]
    for payload in PAYLOADS:
        log.append(payload)
        places.append(log.journal.segment_bytes)
    return log, places


def failing(kind: str, *numbers: int, fault: Fault) -> Callable[[Step], Fault | None]:
    """A fault at some calls of one kind, counted from 1."""
    count = 0

    def at(step: Step) -> Fault | None:
        nonlocal count
        count += step.kind == kind
        return fault if step.kind == kind and count in numbers else None

    return at


class AppendTests:
    def test_batches_come_back_in_order(self) -> None:
        """What was appended is read back, numbered without gaps, over restarts and segments."""
        log = Log()
        assert log.open() == []
        log.append(*PAYLOADS[:2])
        assert log.journal.begin_segment() == 2
        log.append(*PAYLOADS[2:])
        assert log.open() == PAYLOADS
        log.append(b"six")
        assert log.read() == [*PAYLOADS, b"six"]
        assert log.found.last is not None
        assert log.found.last.sequence == 5

    @pytest.mark.parametrize("short", [None, 0, 20, 40, 9000])
    def test_payload_in_pieces(self, short: int | None) -> None:
        """A payload in pieces, large and small ones, is one batch, also when the system writes it bit by bit."""
        log = Log()
        log.open()
        pieces = [b"a" * 10, b"b" * 20_000, b"c", b"d", b"e" * LARGE_BYTES]
        if short is not None:
            log.mount.fault = failing("write", 1, fault=Fault(0, short))
        log.journal.append(gather(pieces), sum(map(len, pieces)))
        log.append(b"later")
        assert log.open() == [b"".join(pieces), b"later"]

    def test_reading_begins_inside_a_segment(self) -> None:
        """Replay gives the batches from the position on, wherever in a segment that is."""
        log, _ = filled()
        for start in range(len(PAYLOADS) + 1):
            log.start = start
            assert log.read() == PAYLOADS[start:]

    def test_empty_segment_is_not_begun_twice(self) -> None:
        """A segment in which nothing stands yet goes on."""
        log = Log()
        log.open()
        file = log.journal.file
        assert log.journal.begin_segment() == 0
        assert log.journal.file is file

    def test_growth_counts_from_an_empty_segment(self) -> None:
        """Where a segment would be begun and nothing stands in the newest yet, the growth before it is over."""
        log = Log()
        log.open()
        log.append(b"x" * 1000)
        spare = log.mount.open(f"{FOLDER}/spare", create=True)
        spare.truncate(2000)
        assert log.journal.roll(spare)
        assert log.journal.grown_bytes > 1000
        log.journal.begin_segment()
        assert log.journal.grown_bytes < 100

    def test_too_long_a_batch_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What couldn't be read back is not written; the journal goes on."""
        monkeypatch.setattr(journal, "MAX_BATCH_BYTES", 10)
        log = Log()
        log.open()
        with pytest.raises(StorageError, match="too long; the limit is 10"):
            log.append(b"x" * 11)
        log.append(b"x" * 10)
        assert log.read() == [b"x" * 10]


class DurableBeforeUseTests:
    """J1: a segment's header and directory entry are durable before a batch is written into it."""

    @pytest.mark.parametrize("seed", range(40))
    def test_acknowledged_batches_survive(self, seed: int) -> None:
        """Batches that were synced survive every power loss, in the first segment and in later ones."""
        log = Log()
        log.open()
        log.append(b"first")
        log.journal.begin_segment()
        log.append(b"second")
        log.append(b"in flight", sync=False)
        log.lose_power(seed)
        assert log.open() in ([b"first", b"second"], [b"first", b"second", b"in flight"])

    @pytest.mark.parametrize("how", ["before", "during", "after"])
    @pytest.mark.parametrize("step", range(1, 8))
    @pytest.mark.parametrize("seed", range(6))
    def test_interrupted_begin_harms_nothing(self, how: str, step: int, seed: int) -> None:
        """A crash at any step of beginning a segment leaves the log as it was; the next start goes on."""
        log, _ = filled()
        log.mount.crash_at, log.mount.crash_how = log.mount.steps + step, how
        try:
            log.journal.begin_segment()
        except (StorageError, MachineOff):
            log.lose_power(seed)
        assert log.open() == PAYLOADS
        log.append(b"more")
        log.lose_power(seed)
        assert log.open() == [*PAYLOADS, b"more"]
        assert not [name for name in log.mount.list(FOLDER) if name.endswith(".new")]

    @pytest.mark.parametrize("step", range(1, 12))
    @pytest.mark.parametrize("seed", range(8))
    def test_interrupted_start_harms_nothing(self, step: int, seed: int) -> None:
        """A crash at any step of a recovery leaves a log from which the next recovery finds the same."""
        log, places = filled()
        log.cut(0, places[-1] - 1)
        log.mount.sync_all("/")
        log.mount = Mount(log.platter, crash_at=step)
        try:
            log.read()
            log.journal = Journal(log.mount, FOLDER, 4, True)
            log.journal.begin(log.found)
        except (OSError, StorageError):
            log.lose_power(seed)
        assert log.open() == PAYLOADS[:-1]


class FailedWriteTests:
    """J2: nothing is written behind bytes that may be torn."""

    @pytest.mark.parametrize("written", [None, 1, 30, 300])
    def test_full_disk_leaves_nothing(self, written: int | None) -> None:
        """A batch for which there is no room leaves nothing behind, and later ones succeed."""
        log, _ = filled()
        log.mount.fault = failing("write", 1, fault=Fault(errno.ENOSPC, written))
        with pytest.raises(StorageFull, match="No space left"):
            log.append(b"x" * 1000)
        assert log.journal.dead is None
        log.append(b"later")
        log.lose_power()
        assert log.open() == [*PAYLOADS, b"later"]

    def test_failed_cut_is_the_end(self) -> None:
        """When a failed write can't be cut away, the journal is dead; what was acknowledged is still there."""
        log, _ = filled()
        log.mount.fault = lambda step: Fault(errno.ENOSPC, 9) if step.kind in ("write", "truncate") else None
        with pytest.raises(StorageError, match="cutting it back failed"):
            log.append(b"x" * 1000)
        log.mount.fault = lambda _: None
        with pytest.raises(StorageError, match=r"takes no more writes since writing to .* cutting it back failed"):
            log.append(b"later")
        assert log.open() == PAYLOADS

    def test_io_error_is_the_end(self) -> None:
        """After an I/O error nothing is taken any more, though it was cut away."""
        log, places = filled()
        log.mount.fault = failing("write", 1, fault=Fault(errno.EIO, 9))
        with pytest.raises(StorageError, match="Input/output error"):
            log.append(b"x" * 1000)
        assert log.journal.dead is not None
        assert "Input/output error" in log.journal.dead
        assert log.size(0) == places[-1]

    def test_short_write_is_continued(self) -> None:
        """A write that writes less than asked goes on."""
        log, _ = filled()
        log.mount.fault = failing("write", 1, 2, 3, fault=Fault(0, 7))
        log.append(b"x" * 1000)
        assert log.open() == [*PAYLOADS, b"x" * 1000]

    def test_write_that_writes_nothing_is_an_error(self) -> None:
        """A system that writes nothing and doesn't say why makes no endless loop."""
        log, _ = filled()
        log.mount.fault = lambda step: Fault(0, 0) if step.kind == "write" else None
        with pytest.raises(StorageError, match="writes nothing"):
            log.append(b"x")

    @pytest.mark.parametrize("kind", ["open", "truncate", "write", "rename"])
    def test_full_disk_at_a_new_segment(self, kind: str) -> None:
        """Where a new segment has no room the old one goes on, and a crash later finds nothing amiss."""
        log, _ = filled()
        log.mount.fault = failing(kind, 1, fault=Fault(errno.ENOSPC))
        with pytest.raises(StorageFull, match="beginning the journal segment"):
            log.journal.begin_segment()
        log.append(b"in the old one")
        assert log.journal.dead is None
        log.lose_power()
        assert log.open() == [*PAYLOADS, b"in the old one"]


class FailedSyncTests:
    """J3: after a failed sync nothing is acknowledged any more."""

    def test_dead_journal_refuses(self) -> None:
        """The reason is kept: the first one."""
        log, _ = filled()
        log.journal.fail("a sync failed: the disk is gone")
        log.journal.fail("something that followed from it")
        with pytest.raises(StorageError, match="no more writes since a sync failed: the disk is gone"):
            log.append(b"x")

    @pytest.mark.parametrize("kind", ["sync", "sync_directory"])
    def test_failed_sync_of_a_new_segment(self, kind: str) -> None:
        """A segment whose sync fails is the end of all writing."""
        log, _ = filled()
        log.mount.fault = failing(kind, 1, fault=Fault(errno.EIO))
        with pytest.raises(StorageError):
            log.journal.begin_segment()
        assert log.journal.dead is not None
        assert log.open() == PAYLOADS


class RecoveryTests:
    """J5: what recovery has read is durable before anything is written after it."""

    @pytest.mark.parametrize("seed", range(20))
    def test_unsynced_batch_of_a_killed_process(self, seed: int) -> None:
        """A batch that a recovery found in the page cache stays, whatever the power does then."""
        log, _ = filled()
        log.append(b"in flight", sync=False)
        assert log.open() == [*PAYLOADS, b"in flight"]
        log.lose_power(seed)
        assert log.open() == [*PAYLOADS, b"in flight"]

    @pytest.mark.parametrize("seed", range(20))
    def test_batch_whose_sync_failed(self, seed: int) -> None:
        """So does one whose sync had failed: the kernel thinks it clean, so it is written once more."""
        log, _ = filled()
        log.append(b"doubtful", sync=False)
        log.mount.fault = failing("sync", 1, fault=Fault(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            log.journal.file.sync()
        assert log.open() == [*PAYLOADS, b"doubtful"]
        log.append(b"after it")
        log.lose_power(seed)
        assert log.open() == [*PAYLOADS, b"doubtful", b"after it"]

    def test_failure_that_nobody_was_told_of(self) -> None:
        """When the kernel reports at the start that a segment couldn't be written back, the start fails."""
        log, _ = filled()
        node = log.mount.find(log.path(0))
        node.failed = True  # type: ignore[union-attr]
        with pytest.raises(StorageError, match="Input/output error"):
            log.open()

    def test_carried_batch_is_read_once(self) -> None:
        """The batch that is written again stands in two segments, and comes once."""
        log, _ = filled()
        for number in range(3):
            assert log.open() == [*PAYLOADS, *[b"more"] * number]
            log.append(b"more")
        assert segments.segments(log.mount, FOLDER) == [0, 4, 5, 6]

    def test_empty_segment_does_not_get_in_the_way(self) -> None:
        """An empty segment behind the newest batch, from a checkpoint before the crash, is removed."""
        log, _ = filled()
        log.journal.begin_segment()
        log.open()
        log.append(b"six", b"seven")
        assert log.open() == [*PAYLOADS, b"six", b"seven"]

    def test_covered_log(self) -> None:
        """When a checkpoint covers everything, the last segment stays the place where the log goes on."""
        log, _ = filled()
        log.start = 5
        log.journal.begin_segment()
        log.mount.unlink(log.path(0))
        assert log.open() == []
        assert log.open() == []
        log.append(b"six")
        assert log.open() == [b"six"]


class TornTailTests:
    """Where the log ends: at the first batch that is missing or invalid."""

    @given(size=st.integers(min_value=HEADER_SIZE, max_value=2000))
    def test_any_truncation_gives_a_prefix(self, size: int) -> None:
        """However short a crash left the segment, its whole batches are found, and no others."""
        log, places = filled()
        log.cut(0, min(size, places[-1]))
        whole = sum(end <= size for end in places[1:])
        assert log.open() == PAYLOADS[:whole]
        log.append(b"after")
        assert log.open() == [*PAYLOADS[:whole], b"after"]

    @given(data=st.binary(min_size=1, max_size=400))
    def test_anything_behind_the_end_is_ignored(self, data: bytes) -> None:
        """Bytes behind the last batch, zeros or others, are no batches."""
        log, places = filled()
        log.write(0, places[-1], data)
        assert log.open() == PAYLOADS
        log.append(b"after")
        assert log.open() == [*PAYLOADS, b"after"]

    def test_zeros_behind_the_end(self) -> None:
        """A file that grew without its bytes being written ends where the zeros begin."""
        log, places = filled()
        log.write(0, places[-1] + 5000, b"\0")
        assert log.open() == PAYLOADS

    @given(bit=st.integers(min_value=0))
    def test_flipped_bit_in_the_newest_batch(self, bit: int) -> None:
        """A bit that is wrong in the newest batch ends the log before it."""
        log, places = filled()
        begin, end = places[-2:]
        flip(log, begin + bit // 8 % (end - begin), bit % 8)
        assert log.open() == PAYLOADS[:-1]

    @given(bit=st.integers(min_value=0))
    def test_flipped_bit_inside_the_log(self, bit: int) -> None:
        """Anywhere before, a later batch proves that the damaged one was durable: that is corruption."""
        log, places = filled()
        place = HEADER_SIZE + bit // 8 % (places[-2] - HEADER_SIZE)
        flip(log, place, bit % 8)
        number = sum(end <= place for end in places[1:])
        with pytest.raises(Corruption, match="damaged, not torn by a crash") as caught:
            log.read()
        error = caught.value
        assert (error.sequence, error.path, error.offset) == (number, log.path(0), places[number])
        assert f"batch {number} at byte {places[number]}" in str(error)
        assert "durable-streams check --repair" in str(error)

    @given(bit=st.integers(min_value=0, max_value=HEADER_SIZE * 8 - 1))
    def test_flipped_bit_in_a_header(self, bit: int) -> None:
        """A segment never exists without its header: a wrong one is damage."""
        log, _ = filled()
        flip(log, bit // 8, bit % 8)
        with pytest.raises(Corruption, match="no valid header"):
            log.read()

    @pytest.mark.parametrize("size", range(HEADER_SIZE))
    def test_torn_header(self, size: int) -> None:
        """So is a short one."""
        log, _ = filled()
        log.cut(0, size)
        with pytest.raises(Corruption, match="no valid header"):
            log.read()

    def test_newer_format(self) -> None:
        """A segment of a later version is not taken for damage."""
        log = Log()
        header = bytearray(pack_header(0, 7))
        header[4] = 2
        header[20:24] = crc32(header[:20]).to_bytes(4, "little")
        log.mount.open(log.path(0), create=True).pwrite(bytes(header), 0)
        with pytest.raises(StorageError, match="has format 2; this version reads format 1") as caught:
            log.read()
        assert not isinstance(caught.value, Corruption)

    def test_torn_batch_before_an_empty_segment(self) -> None:
        """A checkpoint may have begun a segment while a batch was in flight: that it is torn is no corruption."""
        log, places = filled()
        log.journal.begin_segment()
        log.cut(0, places[-1] - 1)
        assert log.open() == PAYLOADS[:-1]
        log.append(b"again", b"more")
        assert log.open() == [*PAYLOADS[:-1], b"again", b"more"]

    def test_torn_batch_before_a_segment_in_use(self) -> None:
        """A batch behind it proves that it was durable."""
        log, places = filled()
        log.journal.begin_segment()
        log.append(b"later")
        log.cut(0, places[-1] - 1)
        with pytest.raises(Corruption, match=r"batch 4 at byte .* but batch 5 was written when it was durable"):
            log.read()

    def test_missing_segment(self) -> None:
        """A segment that is missing in the middle is noticed."""
        log, _ = filled()
        for payload in (b"second", b"third"):
            log.journal.begin_segment()
            log.append(payload)
        log.mount.unlink(log.path(5))
        with pytest.raises(Corruption, match=r"batch 5 .* is missing"):
            log.read()

    @pytest.mark.parametrize("start", [1, 3])
    def test_missing_oldest_segment(self, start: int) -> None:
        """So is one that the catalog still needs, and an emptied folder."""
        log, _ = filled()
        log.start = start
        log.journal.begin_segment()
        log.append(b"later")
        log.mount.unlink(log.path(0))
        with pytest.raises(Corruption, match=f"batch {start} is missing, the oldest segment is {segment_name(5)}"):
            log.read()
        log.mount.unlink(log.path(5))
        with pytest.raises(Corruption, match=f"batch {start} is missing, it has no segments"):
            log.read()

    def test_short_segment_below_the_position(self) -> None:
        """Batches that a checkpoint covers were durable: when they end too early, later ones are lost with them."""
        log, places = filled()
        log.start = 4
        log.cut(0, places[2])
        with pytest.raises(Corruption, match="a checkpoint covers it and all up to batch 3"):
            log.read()

    def test_given_up_and_begun_anew(self) -> None:
        """After a repair the log goes on behind what the catalog has."""
        log, places = filled()
        log.start = 4
        log.cut(0, places[2])
        with pytest.raises(Corruption) as caught:
            log.read()
        assert caught.value.resume == 4
        begin_anew(log.mount, FOLDER, caught.value.resume, caught.value.seen)
        assert log.open() == []
        log.append(b"new")
        assert log.open() == [b"new"]


class ForeignBytesTests:
    """What only looks like a batch."""

    def test_recycled_blocks(self) -> None:
        """Batches of an older segment behind the end, with the very numbers that come next, are not taken."""
        log, places = filled()
        old = Log()
        old.open()
        old.append(*PAYLOADS, b"six", b"seven")
        log.write(0, places[-1], old.content(0)[places[-1] :])
        assert log.open() == PAYLOADS

    def test_recycled_blocks_prove_nothing(self) -> None:
        """Nor do they make a torn batch look like damage."""
        log, places = filled()
        old = Log()
        old.open()
        old.append(*[b"x"] * 20)
        log.cut(0, places[-1] - 1)
        log.write(0, places[-1] + 100, old.content(0)[HEADER_SIZE:])
        assert log.open() == PAYLOADS[:-1]

    def test_journal_inside_a_payload(self) -> None:
        """A client may store a piece of a journal; when that append is torn it is still only torn."""
        log, places = filled()
        piece = log.content(0)[: places[-1]] + pack_batch(12345, 99, 1, b"forged")
        log.append(piece * 3)
        end = log.journal.segment_bytes
        log.cut(0, end - 1)
        assert log.open() == PAYLOADS

    def test_many_forged_headers_are_scanned_quickly(self) -> None:
        """The search for a proof looks at each byte once, whatever lengths the bytes seem to announce."""
        log, _ = filled()
        forged = pack_batch(12345, 99, 1, b"x" * 100_000)[:28]
        log.append(forged * 40_000)
        log.cut(0, log.journal.segment_bytes - 1)
        reads = CountingReads(log.mount)
        found = replay(reads, FOLDER, 0)  # type: ignore[arg-type]
        assert len(list(found)) == len(PAYLOADS)
        assert reads.bytes < 5 * log.size(0)


def recycled(generations: int = 1, size: int = 40) -> Log:
    """A log that goes on in a segment full of batches, of one or more of its earlier lives, and is empty yet."""
    log = Log()
    log.open()
    for generation in range(generations):
        # Shorter every time, so that what the first has left is still there.
        log.append(*[b"%d:%d" % (generation, number) + b"x" * size for number in range(60 - 20 * generation)])
        log.start = log.journal.next_sequence
        first = log.journal._first
        log.journal.begin_segment()
        log.append(b"between")
        log.start += 1
        log.recycle(first)
        log.mount.unlink(log.path(log.start - 1))
    return log


@pytest.mark.parametrize("generations", [1, 2])
class LeftoversTests:
    """J6: a segment that is written into an older one."""

    def test_leftovers_are_no_batches(self, generations: int) -> None:
        """However much has been written over them, what is left behind the log's end is not taken for a part of it."""
        log = recycled(generations)
        length = log.size(log.start)
        payloads = [b"new" * number for number in range(20)]
        for count in range(len(payloads)):
            assert log.read() == payloads[:count]
            log.append(payloads[count])
        assert log.size(log.start) == length

    def test_batches_of_the_same_length(self, generations: int) -> None:
        """Nor where each ends just where an older one begins."""
        log = recycled(generations)
        payloads = [b"new:%d" % number + b"x" * 36 for number in range(10, 20)]
        for count in range(len(payloads)):
            assert log.read() == payloads[:count]
            log.append(payloads[count])
        assert log.open() == payloads

    @pytest.mark.parametrize("seed", range(30))
    def test_power_loss(self, generations: int, seed: int) -> None:
        """A batch that a power loss has torn among leftovers ends the log, and proves nothing."""
        log = recycled(generations)
        log.append(b"kept", b"kept, too")
        log.append(b"in flight" * 200, sync=False)
        log.lose_power(seed)
        assert log.open()[:2] == [b"kept", b"kept, too"]

    def test_damage_is_still_found(self, generations: int) -> None:
        """A batch that is damaged before others of the same life is damaged, whatever follows these."""
        log = recycled(generations)
        first = log.start
        log.append(b"one", b"two", b"three")
        place = log.content(first).index(b"two")
        log.write(first, place, b"T")
        with pytest.raises(Corruption, match=f"batch {first + 1} at byte .* but batch {first + 2} was written"):
            log.read()

    def test_lost_write(self, generations: int) -> None:
        """So is one in whose place the disk has the old bytes again, because it never wrote the new ones."""
        log = recycled(generations)
        first = log.start
        before = log.content(first)
        log.append(b"one", b"two" * 30, b"three")
        after = log.content(first)
        begin, end = after.index(b"DSB1", 50), after.index(b"three") - 28
        log.write(first, begin, before[begin:end])
        with pytest.raises(Corruption, match=f"batch {first + 1} at byte {begin} is missing or invalid, but batch"):
            log.read()

    def test_full_disk(self, generations: int) -> None:
        """A failed write is cut away with everything behind it; the log goes on, and its file grows again."""
        log = recycled(generations)
        log.append(b"one")
        assert log.journal.prepared_bytes > 0
        log.mount.fault = failing("write", 1, fault=Fault(errno.ENOSPC, 30))
        with pytest.raises(StorageFull):
            log.append(b"two" * 30)
        assert log.journal.prepared_bytes == 0
        assert log.size(log.start) == log.journal.segment_bytes
        log.append(b"three")
        log.lose_power()
        assert log.open() == [b"one", b"three"]

    @pytest.mark.parametrize("same_salt", [True, False])
    def test_numbers_guard_as_salts_do(
        self, generations: int, same_salt: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even if a new salt were the old one, what is left has other numbers than what is to come."""
        if same_salt:
            monkeypatch.setattr(journal, "_salt", lambda: 7)
        log = recycled(generations)
        log.append(b"new:10" + b"x" * 36)
        log.cut(log.start, log.size(log.start) - 1)
        assert log.read() == [b"new:10" + b"x" * 36]

    def test_proof_is_searched_quickly(self, generations: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """No leftover is looked at closely: its number is too small to prove anything."""
        log = recycled(generations, size=0)
        log.append(b"one")
        looked: list[int] = []
        honest = segments.Segment._batch
        monkeypatch.setattr(
            segments.Segment, "_batch", lambda self, offset: (looked.append(offset), honest(self, offset))[1]
        )
        assert log.read() == [b"one"]
        assert len(looked) == 2


class NumberTests:
    @given(st.integers(0, 2**64 - 2), st.integers(0, 2**64 - 1))
    def test_greater_numbers_are_found(self, sequence: int, other: int) -> None:
        """The search for a proof stops at the header of any batch with a greater number, and at no other."""
        found = segments._numbered_after(sequence).search(b"DSB" + pack_batch(7, other, 1, b"DSB1"))
        assert (found is not None) == (other > sequence)

    @pytest.mark.parametrize("sequence", [0, 254, 255, 256, 65_535, 65_536, 2**32 - 1, 2**63])
    def test_neighbours(self, sequence: int) -> None:
        """The very next number is greater, the same one isn't."""
        pattern = segments._numbered_after(sequence)
        assert pattern.search(pack_batch(7, sequence + 1, 1, b""))
        assert not pattern.search(pack_batch(7, sequence, 1, b""))

    def test_magic_inside_a_header(self) -> None:
        """A header is found that begins inside what looked like another."""
        batch, pattern = pack_batch(7, 9, 1, b""), segments._numbered_after(8)
        for gap in range(16):
            assert 4 + gap in [found.start() for found in pattern.finditer(b"DSB1" + bytes(gap) + batch)]

    @pytest.mark.parametrize("place", range(-40, 4))
    def test_proof_across_two_reads(self, place: int) -> None:
        """A proof is found wherever it lies among the pieces in which a segment is read."""
        log, places = filled()
        proof = pack_batch(log.salt(0), 99, 1, b"later")
        log.cut(0, places[-2])
        log.write(0, places[-2] + (1 << 20) + place, proof)
        with pytest.raises(Corruption, match=r"batch 4 at byte .* but batch 99 was written"):
            log.read()


class FileFastTests:
    """Without syncs nothing is proven durable, so nothing is corrupt for being torn."""

    def test_damage_inside_ends_the_log(self) -> None:
        """After a power loss the log ends at the first batch that is missing; later ones are dropped."""
        log, places = filled(durable=False)
        flip(log, places[1] + 30, 0)
        assert log.open() == PAYLOADS[:1]
        log.append(b"after")
        assert log.open() == [PAYLOADS[0], b"after"]

    def test_later_segments_are_dropped(self) -> None:
        """Segments behind the log's end go, so that they never come back."""
        log, places = filled(durable=False)
        log.journal.begin_segment()
        log.append(b"six")
        log.journal.begin_segment()
        log.append(b"seven")
        log.cut(0, places[2])
        assert log.open() == PAYLOADS[:2]
        assert segments.segments(log.mount, FOLDER) == [0, 2]
        log.append(*[b"x"] * 10)
        assert log.open() == [*PAYLOADS[:2], *[b"x"] * 10]

    @pytest.mark.parametrize("step", range(1, 14))
    @pytest.mark.parametrize("seed", range(8))
    def test_interrupted_drop(self, step: int, seed: int) -> None:
        """A crash while they are dropped is no problem."""
        log, places = filled(durable=False)
        for payload in (b"six", b"seven"):
            log.journal.begin_segment()
            log.append(payload)
        log.cut(0, places[2])
        log.mount.sync_all("/")
        log.mount = Mount(log.platter, crash_at=step, crash_how="after")
        try:
            log.read()
            log.journal = Journal(log.mount, FOLDER, 2, False)
            log.journal.begin(log.found)
        except (OSError, StorageError):
            log.lose_power(seed)
        assert log.open() == PAYLOADS[:2]
        log.append(b"a", b"b", b"c", b"d", b"e", b"f")
        assert log.open()[2:] == [b"a", b"b", b"c", b"d", b"e", b"f"]

    @pytest.mark.parametrize("seed", range(20))
    def test_switch_to_file_durable(self, seed: int) -> None:
        """A store that becomes durable makes durable what it finds, and proves it from then on."""
        log, places = filled(durable=False)
        log.append(b"unsynced", sync=False)
        log.durable = True
        assert log.open() == [*PAYLOADS, b"unsynced"]
        log.append(b"durable")
        log.lose_power(seed)
        assert log.open() == [*PAYLOADS, b"unsynced", b"durable"]
        flip(log, places[1] + 30, 0)
        with pytest.raises(Corruption):
            log.read()


class CountingReads:
    """Counts the bytes that are read from a disk."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self.bytes = 0

    def list(self, path: str) -> list[str]:
        return self._mount.list(path)

    def open(self, path: str, *, write: bool = True) -> object:
        counting, file = self, self._mount.open(path, write=write)

        class Counted:
            def size(self) -> int:
                return file.size()

            def pread(self, size: int, offset: int) -> bytes:
                data = file.pread(size, offset)
                counting.bytes += len(data)
                return data

        return Counted()


def flip(log: Log, place: int, bit: int) -> None:
    """Turn one bit of the first segment over."""
    log.write(0, place, bytes([log.content(0)[place] ^ 1 << bit]))


def test_limit_is_what_the_format_allows() -> None:
    """A batch of the greatest length has a length that fits its field."""
    assert MAX_BATCH_BYTES < 1 << 32
