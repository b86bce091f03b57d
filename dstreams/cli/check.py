"""``durable-streams check``: verify a data directory."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dstreams.config.problems import printable
from dstreams.runtime.progress import on_terminal
from dstreams.storage.check import Report, check_acid, check_files, repair_files
from dstreams.storage.directory import DirectoryLock, read_manifest
from dstreams.storage.disk import OsDisk
from dstreams.storage.interface import StorageError


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "check",
        help="verify a data directory",
        description="Verify a data directory that no server is using: checksums, message boundaries, references.",
    )
    parser.add_argument("directory", metavar="DIR", help="the data directory (storage.data_dir)")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="if the journal is damaged in the middle, set the rest of it aside; without --yes, only report this",
    )
    parser.add_argument("--yes", action="store_true", help="with --repair: make the changes")
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    directory: str = options.directory
    lock = DirectoryLock()
    try:
        manifest = read_manifest(OsDisk(), directory)
        if options.repair and options.yes:
            lock.acquire(directory)
        else:
            lock.acquire_to_read(directory)
        if manifest.get("layout") == "acid":
            report = check_acid(directory, manifest, on_terminal())
        else:
            report = check_files(directory, on_terminal())
        _print(report)
        if options.repair and report.broken is not None:
            _repair(directory, report, options.yes)
    except (StorageError, OSError) as error:
        print(f"durable-streams check: {printable(str(error))}", file=sys.stderr)
        return 1
    finally:
        lock.release()
    return 1 if report.problems else 0


def _print(report: Report) -> None:
    for problem in report.problems:
        print(printable(problem))
    found = f"{len(report.problems)} problem(s)" if report.problems else "no problems"
    print(f"{report.streams} stream(s), {report.data_bytes} bytes, {report.batches} batch(es) in the journal: {found}")


def _repair(directory: str, report: Report, yes: bool) -> None:
    print("a repair would lose:" if not yes else "losing:")
    for each in report.dropped:
        print(f"  {printable(each)}")
    if not yes:
        print("nothing was changed; add --yes to repair")
        return
    for line in repair_files(directory, report):
        print(line)
