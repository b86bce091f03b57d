"""The command line as a whole: reads it, and runs one command."""

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
"""What adds each command, in the order of the help."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
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

    :param arguments: the words after the program's name; those of the process when left out.
    :return: the exit status: 0 when all is well, 1 when something is wrong, 2 for a wrong command line.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        # Not the server: who only wants to see what the program can do must not open a port by it.
        parser.print_help(sys.stderr)
        parser.exit(2)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
