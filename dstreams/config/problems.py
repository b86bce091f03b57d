"""Problems of a configuration, as messages for the operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from attrs import frozen

from dstreams.runtime.startup import StartupPhase

LONGEST_SHOWN = 100
"""Maximum number of characters of a value in a message."""

_NEAR_LAST = 0.6
_NEAR_WHOLE = 0.72
"""Minimum similarity, from 0 to 1, for a suggestion: of the names' last parts, or of the whole names."""


def printable(text: str) -> str:
    """Escape the unprintable characters of a path or a name, so that it fits in a line of text."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def printable_lines(text: str) -> str:
    """Escape the unprintable characters of a text, except its line ends."""
    return "\n".join(line if line.isprintable() else printable(line) for line in text.split("\n"))


@frozen
class Problem:
    """One thing that is wrong with the configuration.

    :param phase: whether it was found while loading or while validating.
    :param text: one line with the key, its value, its origin, and the remedy.
    """

    phase: StartupPhase
    text: str

    def __str__(self) -> str:
        """Return the line that the operator sees: ``[phase] text``."""
        return f"[{self.phase.value}] {self.text}"


@frozen
class BadItem:
    """A list item that cannot be used.

    :param index: its index, from 0.
    :param why: what is wrong and how to fix it, without the key and the item.
    """

    index: int
    item: object
    why: str


Why = str | Sequence[BadItem]
"""What is wrong with a value and how to fix it: one text for the whole value, or one entry for each bad item."""


class BadItems(ValueError):
    """A list has items that cannot be used.

    :param items: all of those items.
    """

    def __init__(self, items: Sequence[BadItem]) -> None:
        self.items = items
        super().__init__("has " + ", and ".join(f"the item {shown(bad.item)}, which {bad.why}" for bad in items))


def why_of(error: ValueError) -> Why:
    """Return the message of a parser's error, item by item if it has items."""
    return error.items if isinstance(error, BadItems) else str(error)


class ConfigError(Exception):
    """The configuration cannot be used.

    :param problems: everything that is wrong with it, in the order in which it was found.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def load_problem(text: str) -> Problem:
    """Return a problem for a file that cannot be read, or for something that is not a key or a value."""
    return Problem(StartupPhase.LOAD_CONFIG, text)


def shown(value: object) -> str:
    """Format a value for a one-line message: strings quoted and escaped, and shortened if too long."""
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        value = list(value)
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known name that was most likely meant, or ``None`` if none is similar enough.

    The last part counts more than the section, so that a key in the wrong section is also found.
    """
    wanted = _split(wrong)

    def likeness(name: str) -> float:
        section, last = (_ratio(one, other) for one, other in zip(wanted, _split(name), strict=True))
        whole = _ratio(wrong, name)
        return max(whole, 0.7 * last + 0.3 * section) if last >= _NEAR_LAST or whole >= _NEAR_WHOLE else 0

    best = max(known, key=likeness)
    return best if likeness(best) else None


def remedy(meant: str | None) -> str:
    """Return the remedy for an unknown name, given the result of :func:`nearest`."""
    return f"did you mean {meant}?" if meant else "remove it"


def _split(name: str) -> tuple[str, str]:
    """Split the name of a key or of a variable into section and last part."""
    separator = "__" if "__" in name else "."
    section, _, last = name.rpartition(separator)
    return section, last


def _ratio(one: str, other: str) -> float:
    """Return how similar two names are, from 0 to 1."""
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()
