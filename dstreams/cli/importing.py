"""``durable-streams import``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import IO, Any

from dstreams.cli.streams import add_source_options, configuration, open_server, run
from dstreams.config.problems import printable
from dstreams.protocol.names import NameLimits
from dstreams.runtime.progress import on_terminal
from dstreams.server import store_limits
from dstreams.storage.directory import check_idle
from dstreams.transfer.errors import TransferError
from dstreams.transfer.importing import Imported, import_streams
from dstreams.transfer.planning import OnConflict
from dstreams.transfer.server import ServerTarget
from dstreams.transfer.store import Store, open_storage

_ANY_NAME = NameLimits(sys.maxsize, sys.maxsize)
"""No limits, because the server enforces its own."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "import",
        help="store the streams of a JSON document",
        description="Store the streams of a document written by 'export'. The whole document is checked before anything"
        " changes, and each stream is stored completely or not at all.",
    )
    parser.add_argument("-i", "--input", metavar="FILE", help="the document to read; else stdin")
    parser.add_argument(
        "--on-conflict",
        choices=[each.value for each in OnConflict],
        default=OnConflict.SKIP.value,
        help="for streams that exist: keep them (skip, the default), import nothing at all (fail), or replace them"
        " (replace), which needs a data directory",
    )
    add_source_options(parser, names=False)
    parser.set_defaults(run=run("import", _import))


def _import(options: argparse.Namespace) -> None:
    on_conflict = OnConflict(options.on_conflict)
    with _input(options.input) as file:
        if options.url is None:
            imported = _into_directory(options, file, on_conflict)
        elif on_conflict is OnConflict.REPLACE:
            raise TransferError(
                "a running server cannot replace a stream in one step: delete the streams first, or stop the server and"
                " import into its data directory"
            )
        else:
            with open_server(options) as server:
                target = nullcontext(ServerTarget(server))
                imported = import_streams(file, target, on_conflict, _ANY_NAME, time.time(), on_terminal())
    for name, why in imported.skipped:
        print(f"Skipping {why} stream: {printable(name)}", file=sys.stderr)
    print(
        f"Imported {imported.streams} stream(s), skipped {len(imported.skipped)}, {imported.messages} message(s) total",
        file=sys.stderr,
    )


def _into_directory(options: argparse.Namespace, file: IO[bytes], on_conflict: OnConflict) -> Imported:
    config = configuration(options)
    limits, now = config.limits, time.time()
    names = NameLimits(limits.max_stream_name_bytes, limits.max_stream_name_segments)
    store = Store(open_storage(config.storage), store_limits(config), now, on_terminal())
    check_idle(config.storage.data_dir)  # otherwise this would fail only after a long document had been read
    return import_streams(file, store, on_conflict, names, now, on_terminal())


@contextmanager
def _input(path: str | None) -> Iterator[IO[bytes]]:
    if path is None:
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file
