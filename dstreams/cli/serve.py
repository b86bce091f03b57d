"""``durable-streams serve``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dstreams.cli.configuration import add_options


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="run the server in the foreground",
        description="Run the server in the foreground until it receives a signal to stop; the same as"
        " 'twistd --pidfile= -n durable-streams'. Use twistd itself to run a daemon or to choose a reactor.",
    )
    add_options(parser, again=True)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    chosen = [("--config", options.config), ("--config-dir", options.config_dir), ("--profile", options.profile)]
    arguments = [f"{name}={value}" for name, value in chosen if value is not None]
    # Imported here, because it imports twistd.
    from dstreams.__main__ import main

    sys.argv[1:] = arguments
    main()
    return 0
