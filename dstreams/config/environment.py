"""The layer that ``DS_*`` environment variables give.

A variable's name is the key's place in upper case, with two underscores between the levels:
``DS_HTTP__CORS_ORIGINS``. Variables of other programs that happen to begin with ``DS_`` have no such pair
and get a warning; one that has it and isn't ours is taken for a slip of the pen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dstreams.config.keys import LARGEST, LEVEL_SEPARATOR, VARIABLE_PREFIX, Key, Value
from dstreams.config.legacy import LEGACY, LegacyKey, replace_legacy
from dstreams.config.log_filter import parse_log_filter
from dstreams.config.problems import BadItem, BadItems, load_problem, nearest, printable, remedy, shown, why_of
from dstreams.config.schema import KEYS
from dstreams.config.settings import Layer, Setting

PROFILE_VARIABLE = "DS_PROFILE"
"""Names the profile where the command line doesn't."""

_VARIABLES = {key.variable: key for key in KEYS.values()}
_OLD_VARIABLES = {old.key.variable: old for old in LEGACY.values()}

_NUMBER = re.compile(r"\+?[0-9]{1,40}", re.ASCII)


def read_environment(environ: Mapping[str, str]) -> Layer:
    """The values of all variables that are keys."""
    layer = Layer()
    strangers = []
    for name, text in sorted(environ.items()):
        if name in _VARIABLES:
            _read_variable(layer, _VARIABLES[name], text)
        elif name in _OLD_VARIABLES:
            _read_legacy(layer, _OLD_VARIABLES[name], text)
        elif name.startswith(VARIABLE_PREFIX) and LEVEL_SEPARATOR in name:
            _refuse_unknown(layer, name, text)
        elif name.startswith(VARIABLE_PREFIX) and name != PROFILE_VARIABLE:
            strangers.append(printable(name))
    replace_legacy(layer)
    if strangers:
        layer.warnings.append(
            f"environment variables that aren't configuration keys are ignored: {', '.join(strangers)}"
        )
    return layer


def read_rust_log(environ: Mapping[str, str]) -> Layer:
    """What the variable ``RUST_LOG`` says; as in the Rust server, one that can't be read counts for nothing."""
    layer = Layer()
    text = environ.get("RUST_LOG", "")
    if text.strip():
        try:
            parse_log_filter(text)
        except ValueError as error:
            layer.warnings.append(f"RUST_LOG = {shown(text)} {error}; it is ignored")
        else:
            layer.set(KEYS["observability.rust_log"], text, "RUST_LOG")
    return layer


def _read_variable(layer: Layer, key: Key, text: str) -> None:
    try:
        layer.set(key, _parse(key, text), key.variable)
    except ValueError as error:
        layer.fail(key, key.path, text, key.variable, why_of(error))


def _read_legacy(layer: Layer, old: LegacyKey, text: str) -> None:
    key = old.key
    try:
        layer.legacy[key.path] = Setting(old.successor, old.convert(_parse(key, text)), key.variable)
    except ValueError as error:
        layer.fail(old.successor, key.path, text, key.variable, why_of(error))


def _refuse_unknown(layer: Layer, name: str, text: str) -> None:
    """Note a variable that doesn't exist; the key that was meant is taken for failed."""
    meant = nearest(name, _VARIABLES)
    variable = f"{printable(name)} = {shown(text)}"
    layer.problems.append(load_problem(f"unknown environment variable {variable}: {remedy(meant)}"))
    layer.failed.update([_VARIABLES[meant].path] if meant else [])


def _parse(key: Key, text: str) -> Value:
    """A variable's text as a value of the key's type; nothing is trimmed, nothing guessed.

    :raise ValueError: with the remedy.
    """
    if not _is_unicode(text):
        raise ValueError("isn't UTF-8; write it in UTF-8")
    if key.type is bool:
        return _parse_boolean(text)
    if key.type is int:
        return _parse_number(text)
    if key.type is tuple:
        return _parse_list(key, text)
    if not key.declaration.words:
        return text
    word = key.declaration.word(text.lower())
    if word is None:
        raise ValueError(key.choice())
    return word


def _parse_list(key: Key, text: str) -> tuple[str, ...]:
    """The items between commas, without the blanks around them; empty ones don't count."""
    items = tuple(item for item in (each.strip() for each in text.split(",")) if item)
    if not key.declaration.words:
        return items
    words, bad = [], []
    for index, item in enumerate(items):
        word = key.declaration.word(item.lower())
        if word is None:
            bad.append(BadItem(index, item, key.choice()))
        else:
            words.append(word)
    if bad:
        raise BadItems(bad)
    return tuple(words)


def _is_unicode(text: str) -> bool:
    """Whether a variable's bytes were UTF-8; Python keeps those that weren't as half surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
