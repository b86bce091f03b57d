"""Verifies the files of a stream, for the check of a data directory and for the scrub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from attrs import frozen

from dstreams.storage.disk import Disk, File
from dstreams.storage.files import runs
from dstreams.storage.files.runs import BLOCK_RUNS, SUM_BYTES, Run
from dstreams.storage.index import APPEND_END
from dstreams.storage.interface import StorageDamaged, Verified

STEP_RUNS: Final = 64
"""Number of runs that are verified in one step: half a megabyte."""

PAGE_BYTES: Final = 4096


@frozen
class Extent:
    """The part of a stream that should be in its files.

    :param start: the stream's own start.
    :param end: the position at which the files end.
    :param messages: the number of messages in the files.
    """

    stream_id: int
    start: int
    end: int
    messages: int


def verify_stream(disk: Disk, paths: Sequence[str], extent: Extent) -> Iterator[Verified]:
    """Verify the files of a stream, in one bounded step for each item of the iterator.

    :param paths: the paths of the data file, the index file and the file of checksums.
    """
    opened: list[File] = []
    for path in paths:
        try:
            opened.append(disk.open(path, write=False))
        except OSError as error:
            yield Verified(PAGE_BYTES, [StorageDamaged(f"{path} can't be read: {error}", extent.stream_id, path)])
            return
    yield from _Verification(extent, *opened).steps()


class _Verification:
    """Verifies the files of one stream in steps."""

    def __init__(self, extent: Extent, data: File, index: File, sums: File) -> None:
        self._extent, self._data, self._index, self._sums = extent, data, index, sums
        # The position up to which everything is verified or known to be damaged, and the number of messages up to it.
        self._position, self._messages = extent.start, 0
        # Whether the previous entry was damaged, so that the number of messages is unknown.
        self._gap = False
        self._damaged: list[StorageDamaged] = []

    def steps(self) -> Iterator[Verified]:
        """Verify all runs in order."""
        extent, place, size = self._extent, 0, 3 * PAGE_BYTES
        while self._position < extent.end:
            try:
                block = self._sums.pread(BLOCK_RUNS * SUM_BYTES, place * SUM_BYTES)
            except OSError as error:
                self._note(f"{self._sums.path} can't be read: {error}", f"{self._sums.path} {place}")
                break
            if len(block) < SUM_BYTES:
                break
            for offset in range(0, len(block) - SUM_BYTES + 1, SUM_BYTES):
                size += self._verify(runs.unpacked(block, offset, extent.stream_id, place), place) + SUM_BYTES
                place += 1
                if self._position >= extent.end:
                    break
                if not place % STEP_RUNS:
                    yield self._step(size)
                    size = 0
        if self._position < extent.end:
            self._missing(extent.end)
        elif not self._gap and (self._position, self._messages) != (extent.end, extent.messages):
            self._note(
                f"{self._sums.path} has {self._messages} messages up to {self._position}, and the catalog"
                f" {extent.messages} up to {extent.end}",
                f"{self._sums.path} end",
            )
        yield self._step(size)

    def _step(self, size: int) -> Verified:
        damaged, self._damaged = self._damaged, []
        return Verified(size, damaged)

    def _verify(self, run: Run | None, place: int) -> int:
        """Verify a run, and return the number of bytes read."""
        if run is None:
            self._gap = True
            what = f"the entry number {place} is damaged"
            self._note(f"{self._sums.path}: {what}", f"{self._extent.stream_id:016x}.sums: {what}")
            return 0
        if run.end > self._extent.end:
            # Left by a crash after the last valid entry, which is missing.
            self._missing(self._extent.end)
            self._gap, self._position = True, self._extent.end
            return 0
        if run.begin != self._position:
            self._missing(run.begin)
        elif not self._gap and run.first != self._messages:
            self._note(f"{self._sums.path}: {self._messages} messages before number {run.first}", f"{place}")
        self._gap, self._position, self._messages = False, run.end, run.messages
        try:
            runs.read_data(self._data, self._extent.start, [run], self._extent.stream_id, wait=True)
        except StorageDamaged as error:
            self._damaged.append(error)
        except OSError as error:
            self._note(f"{self._data.path} can't be read: {error}", f"{self._data.path} {run.begin}")
        try:
            entries = runs.read_entries(self._index, run, self._extent.stream_id, wait=True)
        except StorageDamaged as error:
            self._damaged.append(error)
        except OSError as error:
            self._note(f"{self._index.path} can't be read: {error}", f"{self._index.path} {run.first}")
        else:
            self._check_entries(run, entries)
        return run.size + runs.ENTRY_BYTES * run.ends

    def _check_entries(self, run: Run, entries: Sequence[int]) -> None:
        ends = [run.begin, *(entry >> 1 for entry in entries)]
        if any(after <= before for before, after in pairwise(ends)) or ends[-1] > run.end:
            self._note(f"{self._index.path} doesn't ascend at message {run.first}", f"{self._index.path} {run.first}")
        if run.end == self._extent.end and (not entries or entries[-1] != run.end << 1 | APPEND_END):
            self._note(f"{self._index.path} doesn't end an append at the tail {run.end}", f"{self._index.path} end")

    def _missing(self, until: int) -> None:
        """Report that the positions up to ``until`` have no valid entry."""
        if not self._gap:  # else it has been reported already
            where = f"{self._sums.path}: there are no checksums for the bytes from {self._position} to {until}"
            self._note(where, where)

    def _note(self, text: str, place: str) -> None:
        self._damaged.append(StorageDamaged(text, self._extent.stream_id, place))
