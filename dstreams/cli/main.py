"""The ``durable-streams`` command line: parses it and runs one command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dstreams import __version__
from dstreams.cli import check, config, exporting, importing, listing, serve, version
from dstreams.cli.configuration import add_options

COMMANDS: Sequence[Callable[[Any], None]] = (
    serve.add, listing.add, exporting.add, importing.add, check.add, config.add, version.add,
)  # fmt: skip
"""The functions that add the commands, in the order of the help text."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="durable-streams",
        description="A Durable Streams server, and tools for its operators.",
    )
    parser.add_argument("--version", action="version", version=f"durable-streams {__version__}")
    add_options(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: the arguments after the program's name; by default those of the process.
    :return: the exit status: 0 for success, 1 if something is wrong, 2 for an invalid command line.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        # Do not run the server by default: someone who only wants to see the help must not open a port.
        parser.print_help(sys.stderr)
        parser.exit(2)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has closed the pipe. Without this, Python would complain again when it flushes
        # stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
