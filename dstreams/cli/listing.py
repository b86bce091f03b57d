"""``durable-streams list``."""

from __future__ import annotations

import argparse
import io
import sys
from typing import Any

from dstreams.cli.streams import add_source_options, open_streams, run
from dstreams.transfer.listing import as_json, as_table


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "list",
        help="list streams",
        description="List the streams of a data directory that no server uses, or of a running server.",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of a table")
    add_source_options(parser)
    parser.set_defaults(run=run("list", _list))


def _list(options: argparse.Namespace) -> None:
    with open_streams(options) as streams:
        # Look up streams given by name before the first line, so that a missing one is an error.
        named = [streams.listed(name) for name in sorted(set(options.stream))]
        listed = named or (streams.listed(name) for name in streams.names())
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # some terminals cannot show every name
        for line in (as_json if options.json else as_table)(listed):
            print(line)
