"""The layer that ``DS_*`` environment variables give.

A variable's name is the key's place in upper case, with two underscores between the levels:
``DS_HTTP__CORS_ORIGINS``. Variables of other programs that happen to begin with ``DS_`` have no such pair,
and are left alone; one that has it and isn't ours is taken for a slip of the pen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dstreams.config.keys import LARGEST, LEVEL_SEPARATOR, VARIABLE_PREFIX, Key, Value
from dstreams.config.problems import load_problem, shown, suggestion
from dstreams.config.schema import KEYS
from dstreams.config.settings import Layer, choice, wrong_value
from dstreams.startup import StartupPhase

_VARIABLES = {key.variable: key for key in KEYS.values()}

_NUMBER = re.compile(r"\+?[0-9]{1,40}", re.ASCII)


def read_environment(environ: Mapping[str, str]) -> Layer:
    """The values of all variables that are keys."""
    layer = Layer()
    for name, text in sorted(environ.items()):
        key = _VARIABLES.get(name)
        if key is not None:
            _read_variable(layer, key, text)
        elif name.startswith(VARIABLE_PREFIX) and LEVEL_SEPARATOR in name:
            hint = suggestion(name, _VARIABLES)
            layer.problems.append(load_problem(f"unknown environment variable {name} = {shown(text)}: {hint}"))
    return layer


def _read_variable(layer: Layer, key: Key, text: str) -> None:
    try:
        layer.set(key, _parse(key, text), key.variable)
    except ValueError as error:
        layer.problems.append(wrong_value(StartupPhase.LOAD_CONFIG, key.path, text, key.variable, str(error)))


def _parse(key: Key, text: str) -> Value:
    """A variable's text as a value of the key's type; nothing is trimmed, nothing guessed.

    :raise ValueError: with the remedy.
    """
    if key.type is bool:
        return _parse_boolean(text)
    if key.type is int:
        return _parse_number(text)
    if not key.declaration.words:
        return text
    word = key.declaration.word(text.lower())
    if word is None:
        raise ValueError(choice(key.declaration.words))
    return word


def _parse_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be exactly true or false")
    return text == "true"


def _parse_number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a whole number in decimal digits, without blanks")
    number = int(text)
    if number > LARGEST:
        raise ValueError(f"must be at most {LARGEST}")
    return number
