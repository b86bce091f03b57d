"""The reference page of the commands, written from their parsers: ``python -m dstreams.cli.reference``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from dstreams.cli.main import build_parser

_INTRODUCTION = """\
# The command line

<!-- Written by `python -m dstreams.cli.reference` from dstreams/cli; change it there. -->

`durable-streams COMMAND` is what an operator types: `serve` runs the server, the other commands are tools. The
options that name a configuration may stand before the command or after it. Without a command the help is printed,
and nothing is started.

| Exit status | Meaning |
|---|---|
| 0 | done |
| 1 | not done, or something is wrong; a line on stderr says what, and what to do |
| 2 | the command line isn't right |

Commands that work on a data directory take its lock. While a server uses it, they are refused with its process id,
and `--url` is the way to do the same through that server. Long work shows its progress on stderr when that is a
terminal.
"""

_CONFIGURATION = """\

## Options that name a configuration

`serve`, `list`, `export`, `import`, `config check` and `config show` take them; see [configuration](configuration.md).

| Option | Meaning |
|---|---|
"""

_SERVER = """\

## Options that name a running server

`list`, `export` and `import` take them; without `--url` the configured data directory is meant. `import` has no use
for the admin listing. What a server can't be asked for is said in
[Export, import, back up and restore](../how-to/export-and-import.md).

| Option | Meaning |
|---|---|
"""

_NOTES = {
    "serve": "Signals, sockets, and what the service manager is told are described in [the process](process.md).",
    "list": """\
The table cuts long names and types. With `--json` every stream is an object with `name`, `status` (`open` or
`closed`), `message_count`, `total_bytes`, `content_type`, `created_at`, `updated_at`, `ttl_seconds` and
`expires_at`; what isn't known is `null`. Times are UTC, RFC 3339. Messages and bytes are a stream's own: what a
fork inherits isn't counted. `updated_at` is `null` until the first append or close. Expired streams, and deleted
ones whose forks keep their bytes, aren't listed. What a terminal might obey in a name (control characters, marks of
direction) or can't show is escaped in the table, as in `\\u202e`.""",
    "export": """\
A file gets the permissions 0600 and replaces what was there when the document is complete and on the disk.
`--stream` for a stream that doesn't exist is an error. On stderr: `Exported N stream(s) with M message(s)`, if
there is a file.""",
    "import": """\
The messages wait in a temporary file until the whole document is known to be right: it takes as much room as they
do, in the directory that `TMPDIR` names, else in `/var/tmp`. On stderr: a line `Skipping existing stream: NAME` or
`Skipping expired stream: NAME` for each that is left out, and `Imported N stream(s), skipped K, M message(s)
total`.""",
}


def reference() -> str:
    """The page."""
    parser = build_parser()
    parts = [_INTRODUCTION, *_commands(parser, "")]
    commands = _subcommands(parser)
    parts += [_CONFIGURATION, *_rows(commands["serve"], "configuration")]
    parts += [_SERVER, *_rows(commands["list"], "a running server")]
    return "".join(parts)


def _commands(parser: argparse.ArgumentParser, before: str) -> Iterator[str]:
    for name, command in _subcommands(parser).items():
        yield f"\n## {before}{name}\n\n{command.description}\n"
        rows = list(_rows(command))
        if rows:
            yield "\n| Option | Meaning |\n|---|---|\n"
            yield from rows
        if name in _NOTES:
            yield f"\n{_NOTES[name]}\n"
        yield from _commands(command, f"{before}{name} ")


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's commands; argparse has no other way to them."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def _rows(parser: argparse.ArgumentParser, group: str | None = None) -> Iterator[str]:
    """The rows of a parser's own options, or of a group of them."""
    shared = {"configuration", "a running server"}
    for each in parser._action_groups:  # noqa: SLF001
        if each.title == group or (group is None and each.title not in shared):
            for action in each._group_actions:  # noqa: SLF001
                if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):  # noqa: SLF001
                    yield f"| {_names(action)} | {action.help} |\n"


def _names(action: argparse.Action) -> str:
    argument = "|".join(str(each) for each in action.choices) if action.choices else action.metavar
    if not action.option_strings:
        return f"`{argument}`"
    following = "" if action.nargs == 0 else f" {argument}"
    return ", ".join(f"`{name}{following}`".replace("|", "\\|") for name in action.option_strings)


if __name__ == "__main__":
    sys.stdout.write(reference())
