"""Errors that end an export or an import."""

from __future__ import annotations

from collections.abc import Sequence

MOST_PROBLEMS = 20
"""Maximum number of problems shown for one document; an unrelated document has a problem in every stream."""


class TransferError(Exception):
    """An export or import cannot continue; the text tells the operator what to do."""


class NoSuchStream(TransferError):
    """A stream does not exist.

    :param name: the stream's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no stream {name!r}")


class InvalidDocument(TransferError):
    """A document cannot be imported; nothing was changed.

    :param problems: what is wrong, one sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        shown = list(problems[:MOST_PROBLEMS])
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        super().__init__("nothing was imported:\n" + "\n".join(f"  {each}" for each in shown))
        self.problems = tuple(problems)
