"""What keeps an export or an import from being done."""

from __future__ import annotations

from collections.abc import Sequence

MOST_PROBLEMS = 20
"""How many problems of one document are shown: a document of another kind has one for every stream."""


class TransferError(Exception):
    """Nothing more can be done; the text is for the operator and says what to do."""


class NoSuchStream(TransferError):
    """A stream that isn't there.

    :param name: its name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no stream {name!r}")


class InvalidDocument(TransferError):
    """A document that can't be imported. Nothing was changed.

    :param problems: what is wrong, a sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        shown = list(problems[:MOST_PROBLEMS])
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        super().__init__("nothing was imported:\n" + "\n".join(f"  {each}" for each in shown))
        self.problems = tuple(problems)
