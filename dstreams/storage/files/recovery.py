"""Rebuilds all streams of a data directory in the file modes: from the catalog's rows, then the journal's batches.

The server's start, the offline check and the export of a data directory all use these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dstreams.model.changes import Append, Change, Delete
from dstreams.model.state import StreamState
from dstreams.runtime.progress import Progress
from dstreams.storage.config_json import MalformedRecord
from dstreams.storage.disk import Disk
from dstreams.storage.files.catalog import CatalogFile, Coverage
from dstreams.storage.files.data_files import DataFiles
from dstreams.storage.files.journal import Batch, Replay, replay, segments
from dstreams.storage.files.records import decode
from dstreams.storage.interface import StorageError
from dstreams.storage.rebuild import Rebuild

PROGRESS_EVERY = 10_000
"""The number of streams or batches between two progress reports."""


def load_streams(
    catalog_file: CatalogFile,
    rebuild: Rebuild,
    progress: Progress,
    doing: str = "loading streams",
    visit: Callable[[StreamState], object] | None = None,
) -> None:
    """Insert the rows of the catalog.

    :param doing: the description of the work, for progress reports.
    :param visit: called with each stream after it was inserted.
    """
    total = catalog_file.count()
    for number, state in enumerate(catalog_file.load(), 1):
        rebuild.insert(state)
        if visit is not None:
            visit(state)
        if not number % PROGRESS_EVERY:
            progress(doing, number, total)


def replay_batches(
    batches: Iterable[Batch],
    apply: Callable[[Batch, Change], object],
    progress: Progress,
    doing: str = "replaying the journal",
) -> None:
    """Apply the changes of the journal's batches in order.

    :param apply: called with each change and its batch.
    :param doing: the description of the work, for progress reports.
    :raise StorageError: if a batch cannot be decoded, or ``apply`` raises it.
    """
    for number, batch in enumerate(batches, 1):
        try:
            for change in decode(batch.payload):
                apply(batch, change)
        except MalformedRecord as error:
            raise StorageError(
                f"the journal's batch {batch.sequence} can't be read by this version: {error}"
            ) from error
        if not number % PROGRESS_EVERY:
            progress(doing, number, 0)


def replay_behind(disk: Disk, directory: str, covered: Coverage, *, from_first: bool = False) -> Replay:
    """Return the batches of the journal that a catalog may lack; see ``journal.replay``.

    :param directory: the data directory.
    :raise StorageError: if the catalog is empty although there was a checkpoint. The journal no longer holds the
        batches that the checkpoint covered.
    """
    folder = f"{directory}/journal"
    if not covered.position:
        numbers = segments(disk, folder)
        if numbers[0] if numbers else disk.list(f"{directory}/data"):
            raise StorageError(
                f"{directory}/catalog.db is empty or new, though a checkpoint was taken: the file was cut off, removed"
                " or replaced. It held the state of all streams, which neither the journal nor the data files repeat:"
                " restore the data directory from a backup"
            )
    return replay(disk, folder, covered.position, covered.seen, from_first=from_first)


def replay_change(rebuild: Rebuild, files: DataFiles, change: Change) -> None:
    """Apply a change from the journal, and keep its bytes if the data files lack them.

    :raise StorageError: as for :meth:`Rebuild.apply`.
    """
    state = rebuild.catalog.get(change.stream_id) if isinstance(change, Append) else None
    messages = 0 if state is None else state.messages
    fresh = rebuild.apply(change)
    if isinstance(change, Delete):
        for stream_id in change.stream_ids:
            files.forget(stream_id)
    elif fresh is not None and fresh.data:
        files.append(fresh, fresh.start if state is None else state.start, messages)
