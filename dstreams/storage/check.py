"""Checks a data directory offline, and repairs a damaged journal.

A check of the file modes reads everything and writes nothing. It verifies:

- the integrity of the catalog database;
- the data and index file of every stream, against their checksums and the catalog;
- every batch of the journal;
- the rows of the catalog, against these batches (see ``comparing``);
- that each fork has its source.

A check of ``acid`` reads everything too. It copies a database that has a WAL first, because SQLite might write to it.

A repair handles one kind of damage: a damaged batch in the middle of the journal. It sets aside (never deletes) the
segments from the damage on, so that the store can be opened with everything before it. For other damage, the operator
has to restore a backup or delete the stream.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from attrs import define, field

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create
from dstreams.model.state import StreamState
from dstreams.runtime.progress import Progress
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid.check import problems as shard_problems
from dstreams.storage.acid.layout import Layout, close_all
from dstreams.storage.acid.recovery import Recovery
from dstreams.storage.acid.shard import Shard
from dstreams.storage.acid.storage import MAX_SHARDS
from dstreams.storage.comparing import RowComparison, contradictions
from dstreams.storage.directory import MANIFEST
from dstreams.storage.disk import Disk, OsDisk, copy_file
from dstreams.storage.files import journal
from dstreams.storage.files.catalog import CatalogFile, Coverage, check_catalog_wal
from dstreams.storage.files.data_files import DataFiles
from dstreams.storage.files.journal import ASIDE, Batch, Corruption, segment_name
from dstreams.storage.files.recovery import load_streams, replay_batches, replay_behind
from dstreams.storage.files.verifying import Extent, verify_stream
from dstreams.storage.interface import StorageError
from dstreams.storage.rebuild import Rebuild
from dstreams.storage.stream_rows import Connection, connect


@define(eq=False)
class Copies:
    """Private copies of databases, which exist during the ``with`` statement.

    They are made in the directory for temporary files (``TMPDIR``) and need as much space there as their originals.
    """

    _directory: TemporaryDirectory[str] = field(factory=lambda: TemporaryDirectory(prefix="durable-streams-"))
    _count: int = field(default=0, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    def connect(self, path: str) -> Connection:
        """Open a copy of a database and of its WAL, if they exist (a ``Connect``)."""
        self._count += 1
        copy = os.path.join(self._directory.name, f"{self._count}.db")
        if os.path.exists(path):
            shutil.copyfile(path, copy)
        if os.path.exists(path + "-wal"):
            shutil.copyfile(path + "-wal", copy + "-wal")
        return connect(copy)

    def connect_unchanged(self, path: str) -> Connection:
        """Open a database itself if it has no WAL, else a copy (a ``Connect``). No process may change it meanwhile."""
        wal = path + "-wal"
        if os.path.exists(wal) and os.path.getsize(wal):
            return self.connect(path)
        address = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


@define(eq=False)
class Report:
    """The result of a check.

    :param problems: one line for each problem.
    :param streams: the number of streams.
    :param data_bytes: the number of their own stored bytes, without those that forks inherit.
    :param batches: the number of journal batches that the catalog does not cover yet.
    :param broken: the damage in the journal, or ``None``.
    :param dropped: descriptions of what a repair would discard.
    """

    problems: list[str] = field(factory=list)
    streams: int = 0
    data_bytes: int = 0
    batches: int = 0
    broken: Corruption | None = None
    dropped: list[str] = field(factory=list)


def check_files(directory: str, progress: Progress, disk: Disk | None = None) -> Report:
    """Check a store of the file modes, without writing to it. The caller holds its lock, so that it is not in use.

    :param directory: the data directory.
    """
    with Copies() as copies:
        return _check_files(directory, progress, disk or OsDisk(), copies)


def _check_files(directory: str, progress: Progress, disk: Disk, copies: Copies) -> Report:
    report = Report()
    found: dict[int, list[str]] = {}
    rebuild = Rebuild(Catalog())
    try:
        check_catalog_wal(disk, directory)
        catalog_file = CatalogFile(f"{directory}/catalog.db", copies.connect)
    except StorageError as error:
        report.problems.append(str(error))
        return report
    try:
        report.problems += [f"{directory}/catalog.db: {each}" for each in catalog_file.problems()]
        found = _check_streams(disk, directory, catalog_file, rebuild, report, progress)
        catalog_file.removed()
        _check_journal(disk, directory, catalog_file.coverage(), rebuild, report, progress)
        rebuild.finish()
        report.problems += contradictions(rebuild.catalog)
    except StorageError as error:
        report.problems.append(str(error))
    except Exception as error:
        # Damaged files can cause any exception, and a check has to report them.
        report.problems.append(f"{directory} can't be checked any further: {type(error).__name__}: {error}")
    finally:
        with suppress(Exception):
            catalog_file.close()
    # The files of a stream that the journal deletes may be gone already.
    for stream_id, problems in found.items():
        if stream_id in rebuild.catalog.streams:
            report.problems += problems
    return report


def check_acid(directory: str, manifest: Mapping[str, Any], progress: Progress) -> Report:
    """Check a store of the mode ``acid``, without writing to it. The caller holds its lock, so that it is not in use.

    :param manifest: the members of its ``store.json``.
    """
    report = Report()
    shard_count = manifest.get("shard_count")
    if not (isinstance(shard_count, int) and 1 <= shard_count <= MAX_SHARDS and not shard_count & (shard_count - 1)):
        report.problems.append(f"{directory}/{MANIFEST} names {shard_count!r} shards; restore it from a backup")
        return report
    with Copies() as copies:
        layout = Layout(OsDisk(), directory, shard_count, copies.connect_unchanged, exclusive=False)
        catalog, shards = Catalog(), list[Shard]()
        try:
            shards = layout.open_to_check()
            report.problems += shard_problems(shards)
            Recovery(catalog, shards, writes=False).run(progress)
            report.problems += contradictions(catalog)
        except StorageError as error:
            if not any(str(error) in problem for problem in report.problems):
                report.problems.append(str(error))
        except Exception as error:
            report.problems.append(f"{directory} can't be checked any further: {type(error).__name__}: {error}")
        finally:
            close_all(shards)
    report.streams = len(catalog.streams)
    report.data_bytes = sum(state.size for state in catalog.streams.values())
    return report


def repair_files(directory: str, report: Report, disk: Disk | None = None) -> list[str]:
    """Set aside the journal from its damage on.

    :param report: the report of a check that was made just before.
    :return: descriptions of the changes, one line each.
    """
    disk = disk or OsDisk()
    broken = report.broken
    if broken is None:
        return []
    folder = f"{directory}/journal"
    done = []
    for first in journal.segments(disk, folder):
        path = f"{folder}/{segment_name(first)}"
        if first >= broken.sequence:
            disk.rename(path, path + ASIDE)
            done.append(f"{path} was renamed to {path}{ASIDE}")
        elif path == broken.path:
            copy_file(disk, path, path + ASIDE)
            file = disk.open(path)
            file.truncate(broken.offset)
            file.sync()
            done.append(f"{path} was cut at byte {broken.offset}; the whole of it is in {path}{ASIDE}")
    # A checkpoint may cover batches after the damage; these are not lost. The journal continues after both.
    journal.begin_anew(disk, folder, broken.resume, broken.seen)
    return done


def _check_streams(
    disk: Disk, directory: str, catalog_file: CatalogFile, rebuild: Rebuild, report: Report, progress: Progress
) -> dict[int, list[str]]:
    """Check every stream of the catalog against its files.

    :return: the problems, by stream id.
    """
    found: dict[int, list[str]] = {}
    files = DataFiles(disk, f"{directory}/data", run_inline)

    def check(state: StreamState) -> None:
        report.streams += 1
        report.data_bytes += state.size
        if state.size:
            problems = _check_stream(disk, files, state)
            if problems:
                found[state.id] = problems

    load_streams(catalog_file, rebuild, progress, "checking streams", check)
    return found


def _check_stream(disk: Disk, files: DataFiles, state: StreamState) -> list[str]:
    """Return the problems of one stream's files."""
    extent = Extent(state.id, state.start, state.tail, state.messages)
    steps = verify_stream(disk, files.paths(state.id), extent)
    return [f"stream {state.name!r}: {error}" for step in steps for error in step.damaged]


def _check_journal(
    disk: Disk, directory: str, covered: Coverage, rebuild: Rebuild, report: Report, progress: Progress
) -> None:
    """Check every batch that the catalog does not cover, and compare the rows with all batches that still exist."""
    comparison = RowComparison(covered, rebuild.catalog.streams)
    counted = -1

    def apply(batch: Batch, change: Change) -> None:
        nonlocal counted
        comparison.note(batch.sequence, change)
        if batch.sequence < covered.position:
            return
        if batch.sequence != counted:
            counted = batch.sequence
            report.batches += 1
        fresh = rebuild.apply(change)
        if isinstance(fresh, Append | Create):
            report.data_bytes += len(fresh.data)

    try:
        found = replay_behind(disk, directory, covered, from_first=True)
        replay_batches(found, apply, progress, "checking the journal")
        report.problems += comparison.problems()
    except Corruption as error:
        report.problems.append(str(error))
        report.broken = error
        report.dropped = [f"everything that was stored from batch {error.sequence} on: the rest of {error.path}"]
        report.dropped += [
            f"the segment {segment_name(first)}"
            for first in journal.segments(disk, f"{directory}/journal")
            if first >= error.sequence
        ]
    report.streams = len(rebuild.catalog.streams)
