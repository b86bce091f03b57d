"""Writes a group to its shards, in a thread.

All statements of all shards are executed first, then the commits. Nearly all errors, including a full disk, occur in
the first part, where they are undone in all shards. Only a commit that fails after another shard's commit has succeeded
leaves a group committed in part. So that this does not happen on a full disk, groups that add bytes are rejected while
some space is still left.

A commit that fails on a full disk is not void by itself, because the WAL may contain all of it (see ``Shard.void``).
Therefore a small commit replaces it before the group is finally rejected. If the disk is too full for that as well, the
outcome is undecided, and nothing else is written before that commit has succeeded.

Several shards are committed in parallel, because a commit waits for its sync, and the disk handles several syncs at
once. Measured with 16 shards in a group, on a busy disk: 62 ms one after another, 22 ms in 4 threads, 4.4 ms in 8 or 16
threads, which is the time for one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from attrs import define, field

from dstreams.storage.acid.faults import StoreFailed, Undecided, commit_fault, fault
from dstreams.storage.acid.group import PAGE_BYTES, Batch, Group
from dstreams.storage.acid.shard import Shard
from dstreams.storage.interface import StorageFull

RESERVE_BYTES: Final = 32 * 1024 * 1024
"""Bytes of free space that are reserved for checkpoints and deletions: groups that grow are rejected below it."""

FreeSpace = Callable[[], int | None]
"""Returns the free bytes of the store's file system, or ``None`` if there is no limit."""


def free_space(directory: str) -> FreeSpace:
    """Return a function that returns the free bytes of a directory's file system for unprivileged processes."""

    def free() -> int:
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize

    return free


@define(eq=False)
class Writer:
    """Writes groups, one at a time.

    :param parallel: the number of threads in which shards are committed, including the calling thread. With 1, they are
        committed in order, up to the first error.
    """

    _shards: Sequence[Shard]
    _free_space: FreeSpace
    _parallel: int
    _threads: ThreadPoolExecutor | None = field(default=None, init=False)
    # The shards whose last commit failed on a full disk and is not void yet.
    _undecided: list[Shard] = field(factory=list, init=False)

    def write(self, group: Group) -> None:
        """Write and commit a group.

        :raise StorageFull: if there is not enough space. Nothing of the group was kept.
        :raise Undecided: if there is not enough space, not even for voiding the group. Nothing of the group is kept,
            unless the process ends before the next group is written.
        :raise StoreFailed: if the store must take no more changes.
        :raise StorageError: for other errors. Nothing of the group was kept, and the next one may succeed.
        """
        if self._undecided:
            self._void_before(group)
        batches = list(group.batches.values())
        if group.grows:
            self._check_room(batches)
        begun: list[Shard] = []
        shard = None
        try:
            for batch in batches:
                shard = self._shards[batch.shard]
                shard.begin()
                begun.append(shard)
                shard.write(batch)
        except Exception as error:
            self._roll_back(begun)
            raise fault(error, f"writing to {shard.path if shard else 'the store'}") from error
        self._commit(begun)

    def close(self) -> None:
        """Stop the threads."""
        if self._threads is not None:
            self._threads.shutdown()

    def _check_room(self, batches: Sequence[Batch]) -> None:
        free = self._free_space()
        if free is None:
            return
        # A page is written to the WAL now and to the database later.
        needed = 2 * PAGE_BYTES * sum(batch.pages for batch in batches)
        if free < RESERVE_BYTES + needed:
            raise StorageFull(f"{free} bytes are free, of which {RESERVE_BYTES} are kept for checkpoints and deletions")

    def _commit(self, shards: Sequence[Shard]) -> None:
        failed = self._commit_parallel(shards) if self._parallel > 1 < len(shards) else _commit_in_order(shards)
        if not failed:
            return
        self._roll_back([shard for shard, _ in failed])
        errors = [commit_fault(error, f"committing to {shard.path}") for shard, error in failed if error is not None]
        worst = next((error for error in errors if isinstance(error, StoreFailed)), errors[0])
        if len(failed) < len(shards):
            raise StoreFailed(f"a group was committed in some shards only: {worst}") from worst
        if isinstance(worst, StorageFull):
            self._undecided = [shard for shard, error in failed if error is not None]
            self._void(worst)
        raise worst

    def _void(self, cause: StorageFull) -> None:
        """Void the commits that failed on a full disk.

        :raise Undecided: if there is not enough space for that.
        :raise StoreFailed: if that fails for another reason.
        """
        while self._undecided:
            shard = self._undecided[-1]
            try:
                shard.void()
            except Exception as error:
                found = commit_fault(error, f"voiding a commit in {shard.path}")
                raise Undecided(f"{cause}; {found}") if isinstance(found, StorageFull) else found from error
            self._undecided.pop()

    def _void_before(self, group: Group) -> None:
        """Void the undecided commits of an earlier group.

        :raise StorageFull: if there is not enough space for that. Nothing of ``group`` was kept.
        """
        cause = StorageFull(f"a group of {len(group.changes)} changes waits for an earlier one to be voided")
        try:
            self._void(cause)
        except Undecided as error:
            raise StorageFull(str(error)) from error

    def _commit_parallel(self, shards: Sequence[Shard]) -> list[tuple[Shard, Exception | None]]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._parallel - 1, "acid-commit")
        step = min(self._parallel, len(shards))
        others: list[Future[list[tuple[Shard, Exception | None]]]] = [
            self._threads.submit(_commit_each, shards[first::step]) for first in range(1, step)
        ]
        failed = _commit_each(shards[::step])
        for other in others:
            failed += other.result()
        return failed

    def _roll_back(self, shards: Sequence[Shard]) -> None:
        try:
            for shard in shards:
                shard.roll_back()
        except Exception as error:
            raise StoreFailed(f"undoing a group failed: {error}") from error


def _commit_each(shards: Sequence[Shard]) -> list[tuple[Shard, Exception | None]]:
    """Commit all shards; return those that failed, with the errors."""
    failed: list[tuple[Shard, Exception | None]] = []
    for shard in shards:
        try:
            shard.commit()
        except Exception as error:
            failed.append((shard, error))
    return failed


def _commit_in_order(shards: Sequence[Shard]) -> list[tuple[Shard, Exception | None]]:
    """Commit shards up to the first that fails; return that one with its error, and those after it with ``None``."""
    for number, shard in enumerate(shards):
        try:
            shard.commit()
        except Exception as error:
            return [(shard, error), *((rest, None) for rest in shards[number + 1 :])]
    return []
