"""``durable-streams config``: check and show the configuration."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from dstreams.cli.configuration import add_options, read_configuration
from dstreams.config import Config, LoadedConfig
from dstreams.config.problems import printable
from dstreams.config.reference import default_file
from dstreams.config.rendering import nested, render_toml
from dstreams.runtime.startup import StartupError


def add(commands: Any) -> None:
    """Add the commands."""
    about = "check or show the configuration"
    config = commands.add_parser("config", help=about, description=f"{about.capitalize()}.")
    below = config.add_subparsers(dest="config_command", required=True, metavar="COMMAND")
    check = below.add_parser(
        "check",
        help="report everything that is wrong with it",
        description="Report everything that is wrong with the configuration; the exit status is 1 if anything is."
        " Certificate files are read only on request, because they may be on another machine.",
    )
    check.add_argument("--tls-files", action="store_true", help="also read certificates and keys")
    show = below.add_parser(
        "show",
        help="print the effective values and the origin of each",
        description="Print the effective values as a TOML file, each with its origin. Problems are printed to stderr,"
        " and the exit status is then 1.",
    )
    show.add_argument(
        "--json", action="store_true", help="print JSON: the values, their origins, profile, files, warnings"
    )
    below.add_parser(
        "default",
        help="print a file with every key, commented out",
        description="Print the file default.toml as it is distributed: every key with its default, commented out.",
    ).set_defaults(run=_default)
    for parser, run in ((check, _check), (show, _show)):
        add_options(parser, again=True)
        parser.set_defaults(run=run)


def _check(options: argparse.Namespace) -> int:
    loaded = read_configuration(options)
    if _report(loaded):
        return 1
    if options.tls_files:
        try:
            _go_through_startup(loaded.config)
        except StartupError as error:
            print(error, file=sys.stderr)
            return 1
    print(f"the configuration is valid: {_about(loaded)}")
    return 0


def _go_through_startup(config: Config) -> None:
    """Do the checks that the server does at startup before it opens anything.

    :raise StartupError: if the server would not start.
    """
    # Imported here, because loading OpenSSL takes longer than everything else.
    from dstreams.services.listeners import check_listeners
    from dstreams.telemetry.traces import check_installed

    if config.observability.traces:
        check_installed()
    for warning in check_listeners(config):
        print(f"warning: {warning}", file=sys.stderr)


def _show(options: argparse.Namespace) -> int:
    loaded = read_configuration(options)
    if options.json:
        origins = {path: setting.origin for path, setting in loaded.settings.items()}
        document = {
            "profile": str(loaded.profile),
            "files": [printable(path) for path in loaded.files],
            "config": nested(loaded.settings),
            "origins": origins,
            "warnings": loaded.warnings,
            "problems": [str(problem) for problem in loaded.problems],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(f"# {_about(loaded)}")
        print(render_toml(loaded.settings), end="")
    return _report(loaded)


def _default(_: argparse.Namespace) -> int:
    print(default_file(), end="")
    return 0


def _report(loaded: LoadedConfig) -> int:
    """Print warnings and problems.

    :return: the exit status.
    """
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in loaded.problems:
        print(problem, file=sys.stderr)
    return 1 if loaded.problems else 0


def _about(loaded: LoadedConfig) -> str:
    files = ", ".join(map(printable, loaded.files)) or "none"
    return f"profile {loaded.profile}, files: {files}"
