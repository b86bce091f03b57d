"""``durable-streams version``."""

from __future__ import annotations

import argparse
from typing import Any

from dstreams import __version__


def add(commands: Any) -> None:
    """Add the command."""
    text = "print the version"
    commands.add_parser("version", help=text, description=text.capitalize() + ".").set_defaults(run=_version)


def _version(_: argparse.Namespace) -> int:
    print(f"durable-streams {__version__}")
    return 0
