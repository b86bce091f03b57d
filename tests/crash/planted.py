"""Bugs to plant: each breaks one promise of the file modes, and the simulation has to find every one of them.

A planted bug is a context manager that gives the sabotage for a simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from unittest.mock import patch

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed

from dstreams.storage import stream_rows
from dstreams.storage.disk import File, storage_error
from dstreams.storage.files import checkpoint, data_files, journal, segments
from dstreams.storage.files.catalog import Coverage
from dstreams.storage.files.checkpoint import Checkpoints, DirtyStreams
from dstreams.storage.files.journal import Journal, Replay
from dstreams.storage.files.segments import HEADER_SIZE, Batch, Segment
from tests.crash.disk import Mount, Step
from tests.crash.machine import Process, Threads

Sabotage = Callable[[Process], object]


def _lying(lies: Callable[[Step], bool]) -> Callable[[], AbstractContextManager[Sabotage]]:
    """Some syncs do nothing."""

    @contextmanager
    def plant() -> Iterator[Sabotage]:
        yield lambda process: setattr(process.mount, "lies", lies)

    return plant


@define(eq=False)
class HastySyncer:
    """Reports before it has synced (a ``Syncer``)."""

    _threads: Threads
    name: str = field(default="hasty", init=False)

    def sync(self, file: File) -> Deferred[None]:
        self._threads.run(file.sync).addErrback(lambda _: None)
        return succeed(None)

    def close(self) -> None:
        pass


@contextmanager
def _acknowledge_before_sync() -> Iterator[Sabotage]:
    yield lambda process: setattr(process, "make_syncer", HastySyncer)


@contextmanager
def _no_checksums() -> Iterator[Sabotage]:
    with patch.object(segments, "crc32", lambda *_: 0):
        yield lambda _: None


@contextmanager
def _failed_write_stays() -> Iterator[Sabotage]:
    """A failed write isn't cut away, and the next batch is written behind it."""

    def append_behind(self: Journal, error: OSError) -> None:
        self._end = self.file.size()
        raise storage_error(error, "writing")

    with patch.object(Journal, "_cut_back", append_behind):
        yield lambda _: None


@contextmanager
def _catalog_before_sync() -> Iterator[Sabotage]:
    """The catalog learns of bytes that aren't durable yet."""

    async def write(self: Checkpoints, dirty: DirtyStreams, position: int) -> None:
        rows, written = [], []
        order = self._files.in_order(dirty.streams)
        for pieces, taken in self._slices(dirty, order, set()):
            await self._run(self._files.write, pieces)
            written += pieces
            rows += taken
        removed = {*dirty.removed, *self._leftover}
        await self._run(self._catalog_file.save, rows, sorted(removed), Coverage(position, position, self._last_id()))
        self._leftover = removed
        for piece in written:
            self._files.written(piece.stream_id, piece.size, len(piece.entries))
        await self._sync(self._disk.sync_all, f"{self._directory}/data")

    with patch.object(Checkpoints, "_write", write):
        yield lambda _: None


@contextmanager
def _segments_deleted_early() -> Iterator[Sabotage]:
    """A checkpoint deletes what it is about to cover."""
    honest = Checkpoints._write

    async def write(self: Checkpoints, dirty: DirtyStreams, position: int) -> None:
        await self._run(self._remove, position, [])
        await honest(self, dirty, position)

    with patch.object(Checkpoints, "_write", write):
        yield lambda _: None


@contextmanager
def _wrong_position() -> Iterator[Sabotage]:
    """The catalog claims to have a batch more than it has."""
    honest = Checkpoints._write

    async def write(self: Checkpoints, dirty: DirtyStreams, position: int) -> None:
        await honest(self, dirty, self._journal.next_sequence)

    with patch.object(Checkpoints, "_write", write):
        yield lambda _: None


@contextmanager
def _recovery_trusts_the_cache() -> Iterator[Sabotage]:
    """What recovery has read isn't made durable before more is written."""

    def begin(self: Journal, found: Replay, spare: File | None = None, grown: int = 0, _: object = None) -> None:
        found.read.clear()
        found.last = None
        honest(self, found, spare, grown)

    honest = Journal.begin
    with patch.object(Journal, "begin", begin):
        yield lambda _: None


@contextmanager
def _recovery_keeps_what_lies_behind() -> Iterator[Sabotage]:
    """Segments behind the end of the log stay."""

    def begin(self: Journal, found: Replay, spare: File | None = None, grown: int = 0, _: object = None) -> None:
        with patch.object(Mount, "unlink", lambda *_: None):
            honest(self, found, spare, grown)

    honest = Journal.begin
    with patch.object(Journal, "begin", begin):
        yield lambda _: None


@contextmanager
def _producers_forgotten() -> Iterator[Sabotage]:
    """A checkpoint stores a stream without its producers."""
    honest = stream_rows.row
    with patch.object(checkpoint, "row", lambda state, _: honest(state, ())):
        yield lambda _: None


@contextmanager
def _leftovers_taken_for_batches() -> Iterator[Sabotage]:
    """A recycled segment keeps its salt, and the numbers of the batches in it are not looked at."""

    def batches(self: Segment, until: int | None) -> Iterator[Batch]:
        offset, sequence = HEADER_SIZE, self.first
        while sequence != until and (batch := self._batch(offset)) is not None:
            yield evolve(batch, sequence=sequence)
            offset, sequence = batch.end, sequence + 1

    with patch.object(journal, "_salt", lambda: 7), patch.object(Segment, "batches", batches):
        yield lambda _: None


@contextmanager
def _recycled_early() -> Iterator[Sabotage]:
    """A checkpoint recycles a segment that it is about to cover."""
    honest = Checkpoints._write

    async def write(self: Checkpoints, dirty: DirtyStreams, position: int) -> None:
        await self._spare.recycle(partial(self._covered, position))
        await honest(self, dirty, position)

    with patch.object(Checkpoints, "_write", write):
        yield lambda _: None


@contextmanager
def _sums_from_the_end() -> Iterator[Sabotage]:
    """A checkpoint appends entries at the end of the file, whatever a crash has left there."""
    with patch.object(data_files, "valid_runs", lambda file, size, *_: size // 32):
        yield lambda _: None


PLANTED: dict[str, Callable[[], AbstractContextManager[Sabotage]]] = {
    "journal not synced": _lying(lambda step: step.kind == "sync" and "/journal/" in step.path),
    "journal directory not synced": _lying(lambda step: step.kind == "sync_directory" and "journal" in step.path),
    "data files not synced": _lying(lambda step: step.kind == "sync_all" and "data" in step.path),
    "journal of file-fast not synced by a checkpoint": _lying(
        lambda step: step.kind == "sync_all" and "journal" in step.path
    ),
    "catalog not synced": _lying(lambda step: step.kind == "sync" and "catalog" in step.path),
    "acknowledged before the sync": _acknowledge_before_sync,
    "checksums not checked": _no_checksums,
    "failed write not cut away": _failed_write_stays,
    "catalog committed before the files are synced": _catalog_before_sync,
    "segments deleted before the catalog is committed": _segments_deleted_early,
    "catalog ahead of its rows": _wrong_position,
    "recovery trusts the page cache": _recovery_trusts_the_cache,
    "recovery keeps what lies behind the log's end": _recovery_keeps_what_lies_behind,
    "producers not stored": _producers_forgotten,
    "leftovers of a recycled segment taken for batches": _leftovers_taken_for_batches,
    "segment recycled before the catalog is committed": _recycled_early,
    "checksums appended behind those of a crashed checkpoint": _sums_from_the_end,
    "spare made a segment before its header is synced": _lying(
        lambda step: step.kind == "sync" and step.path.endswith("/spare")
    ),
}
