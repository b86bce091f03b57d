"""``durable-streams export``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dstreams.cli.streams import add_source_options, open_streams, run
from dstreams.runtime.progress import on_terminal
from dstreams.storage.disk import OsDisk
from dstreams.transfer.exporting import export_streams

BUFFER_BYTES = 1024 * 1024


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="write streams into a JSON document",
        description="Write streams with all their messages into a JSON document that 'import' reads. The format is"
        " described in docs/reference/transfer-format.md.",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the file to write, replaced once the export is complete; else stdout"
    )
    add_source_options(parser)
    parser.set_defaults(run=run("export", _export))


def _export(options: argparse.Namespace) -> None:
    with open_streams(options) as streams, _output(options.output) as write:
        exported = export_streams(streams, options.stream, write, time.time(), on_terminal())
    if options.output is not None:
        print(f"Exported {exported.streams} stream(s) with {exported.messages} message(s)", file=sys.stderr)


@contextmanager
def _output(path: str | None) -> Iterator[Callable[[bytes], object]]:
    """Open the output. A file is replaced only when the document is complete."""
    if path is None:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, a device
        with open(path, "wb", BUFFER_BYTES) as file:
            yield file.write
        return
    path = os.path.realpath(path)
    new = f"{path}.{os.getpid()}.new"
    # Readable only by its owner, like the data directory.
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", BUFFER_BYTES) as file:
        try:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise
    OsDisk().sync_directory(os.path.dirname(path))
