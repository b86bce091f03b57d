"""What can be wrong with a configuration, told to the person who has to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from attrs import frozen

from dstreams.startup import StartupPhase

LONGEST_SHOWN = 100
"""How many characters of a value a problem shows."""

_NEAR_LAST = 0.6
_NEAR_WHOLE = 0.72
"""How much alike names must be to be taken for each other: in their last part, or as a whole."""


def printable(text: str) -> str:
    """A path or a name as it may stand in a line of text: what can't be printed is escaped."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def printable_lines(text: str) -> str:
    """The same, but for the ends of its lines."""
    return "\n".join(line if line.isprintable() else printable(line) for line in text.split("\n"))


@frozen
class Problem:
    """One thing that is wrong.

    :param phase: when it shows: while loading or while validating.
    :param text: one line that names the key, its value, where that came from, and the remedy.
    """

    phase: StartupPhase
    text: str

    def __str__(self) -> str:
        """The line an operator sees: ``[phase] text``."""
        return f"[{self.phase.value}] {self.text}"


@frozen
class BadItem:
    """An item of a list that can't be used.

    :param index: its place, from 0 on.
    :param why: what is wrong and the remedy, without the key and the item.
    """

    index: int
    item: object
    why: str


Why = str | Sequence[BadItem]
"""What is wrong with a value, and the remedy: of the whole, or of some of its items."""


class BadItems(ValueError):
    """A list with items that can't be used.

    :param items: all of these.
    """

    def __init__(self, items: Sequence[BadItem]) -> None:
        self.items = items
        super().__init__("has " + ", and ".join(f"the item {shown(bad.item)}, which {bad.why}" for bad in items))


def why_of(error: ValueError) -> Why:
    """What a parser says, item by item where it can."""
    return error.items if isinstance(error, BadItems) else str(error)


class ConfigError(Exception):
    """The configuration can't be used.

    :param problems: all that is wrong with it, in the order in which it was found.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def load_problem(text: str) -> Problem:
    """Something that can't be read, or isn't a configuration key or value at all."""
    return Problem(StartupPhase.LOAD_CONFIG, text)


def shown(value: object) -> str:
    """A value as it may stand in a one-line message: strings quoted and escaped, and not too long."""
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        value = list(value)
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The name that was most likely meant, ``None`` when none is near.

    What counts is the last part first, and then the section: a key in the wrong section is near, too.
    """
    wanted = _split(wrong)

    def likeness(name: str) -> float:
        section, last = (_ratio(one, other) for one, other in zip(wanted, _split(name), strict=True))
        whole = _ratio(wrong, name)
        return max(whole, 0.7 * last + 0.3 * section) if last >= _NEAR_LAST or whole >= _NEAR_WHOLE else 0

    best = max(known, key=likeness)
    return best if likeness(best) else None


def remedy(meant: str | None) -> str:
    """The remedy for a name that doesn't exist, and what :func:`nearest` says of it."""
    return f"did you mean {meant}?" if meant else "remove it"


def _split(name: str) -> tuple[str, str]:
    """A dotted key's, or a variable's, section and last part."""
    separator = "__" if "__" in name else "."
    section, _, last = name.rpartition(separator)
    return section, last


def _ratio(one: str, other: str) -> float:
    """How much alike two names are, from 0 to 1."""
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()
