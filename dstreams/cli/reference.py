"""Generates the reference page of the commands from their parsers: ``python -m dstreams.cli.reference``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from dstreams.cli.main import build_parser

_INTRODUCTION = """\
# The command line

<!-- Written by `python -m dstreams.cli.reference` from dstreams/cli; change it there. -->

`durable-streams COMMAND` is the command line for operators: `serve` runs the server, the other commands are tools. The
options that select a configuration may stand before the command or after it. Without a command, the help is printed and
nothing is started.

| Exit status | Meaning |
|---|---|
| 0 | success |
| 1 | failure, or a problem was found; a line on stderr says what, and what to do |
| 2 | the command line is invalid |

Commands that work on a data directory take its lock. While a server uses the directory, they fail with that server's
process id; use `--url` to do the same through the server. Long-running work shows its progress on stderr if that is a
terminal.
"""

_CONFIGURATION = """\

## Options that select a configuration

`serve`, `list`, `export`, `import`, `config check` and `config show` have them; see [configuration](configuration.md).

| Option | Meaning |
|---|---|
"""

_SERVER = """\

## Options that select a running server

`list`, `export` and `import` have them; without `--url` they use the configured data directory. `import` does not use
the admin listing. For what cannot be exported from a server, see
[Export, import, back up and restore](../how-to/export-and-import.md).

| Option | Meaning |
|---|---|
"""

_NOTES = {
    "serve": "For signals, sockets and messages to the service manager, see [the process](process.md).",
    "list": """\
The table shortens long names and types. With `--json` every stream is an object with `name`, `status` (`open` or
`closed`), `message_count`, `total_bytes`, `content_type`, `created_at`, `updated_at`, `ttl_seconds` and
`expires_at`; unknown values are `null`. Times are UTC, RFC 3339. Messages and bytes are the stream's own: what a
fork inherits is not counted. `updated_at` is `null` until the first append or close. Expired streams are not listed,
nor are deleted ones whose bytes are kept for their forks. In the table, control characters, direction marks and
characters that the terminal cannot show are escaped in names, as in `\\u202e`.""",
    "export": """\
The file gets the permissions 0600. It replaces an existing file once the document is complete and on disk. `--stream`
for a stream that does not exist is an error. With a file, the command prints `Exported N stream(s) with M message(s)`
on stderr.""",
    "import": """\
The messages are kept in a temporary file until the whole document has been checked. The file takes as much space as
the messages, in the directory that `TMPDIR` names, else in `/var/tmp`. The command prints on stderr a line `Skipping
existing stream: NAME` or `Skipping expired stream: NAME` for each stream that is left out, and `Imported N stream(s),
skipped K, M message(s) total`.""",
}


def reference() -> str:
    """Return the text of the page."""
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
    """Return the parsers of a parser's commands; argparse has no public way to get them."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def _rows(parser: argparse.ArgumentParser, group: str | None = None) -> Iterator[str]:
    """Yield the table rows of a parser's own options, or of one group of them."""
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
