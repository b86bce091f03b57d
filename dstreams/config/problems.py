"""What can be wrong with a configuration, told to the person who has to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from attrs import frozen

from dstreams.startup import StartupPhase

LONGEST_SHOWN = 100
"""How many characters of a value a problem shows."""

_LEVELS = re.compile(r"\.|__")

_NEAR = 0.6
_NEAR_LAST = 0.75
"""How much alike names must be to be taken for each other: as a whole, and in their last part."""


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
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The name that was most likely meant, ``None`` when none is near.

    A name that is right but for its section is near, too.
    """

    def likeness(name: str) -> tuple[float, float]:
        whole = _ratio(wrong, name)
        last = _ratio(_LEVELS.split(wrong)[-1], _LEVELS.split(name)[-1])
        return max(whole, last if last >= _NEAR_LAST else 0), whole

    best = max(known, key=likeness)
    return best if likeness(best)[0] >= _NEAR else None


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """The remedy for a name that doesn't exist: the nearest one that does, when one is near."""
    name = nearest(wrong, known)
    return f"did you mean {name}?" if name else "remove it"


def _ratio(one: str, other: str) -> float:
    """How much alike two names are, from 0 to 1."""
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()
