"""What can be wrong with a configuration, told to the person who has to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from attrs import frozen

from dstreams.startup import StartupPhase

LONGEST_SHOWN = 100
"""How many characters of a value a problem shows."""


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


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """The remedy for a name that doesn't exist: the nearest one that does, when one is near."""
    nearest = get_close_matches(wrong, list(known), n=1)
    return f"did you mean {nearest[0]}?" if nearest else "remove it"
