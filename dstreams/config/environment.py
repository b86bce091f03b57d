"""The configuration layer of ``DS_*`` environment variables.

A variable's name is the key's path in upper case, with two underscores between the levels:
``DS_HTTP__CORS_ORIGINS``. A ``DS_`` variable without two underscores probably belongs to another program and only
gets a warning. One with two underscores that is not a key is probably misspelt, so it is an error.
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
"""Names the profile when the command line does not."""

_VARIABLES = {key.variable: key for key in KEYS.values()}
_OLD_VARIABLES = {old.key.variable: old for old in LEGACY.values()}

_NUMBER = re.compile(r"\+?[0-9]{1,40}", re.ASCII)


def read_environment(environ: Mapping[str, str]) -> Layer:
    """Read the values of all variables that are keys."""
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
    """Read the variable ``RUST_LOG``. As in the Rust server, an invalid value is ignored with a warning."""
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
    """Record an unknown variable as a problem. The key that was probably meant counts as failed."""
    meant = nearest(name, _VARIABLES)
    variable = f"{printable(name)} = {shown(text)}"
    layer.problems.append(load_problem(f"unknown environment variable {variable}: {remedy(meant)}"))
    layer.failed.update([_VARIABLES[meant].path] if meant else [])


def _parse(key: Key, text: str) -> Value:
    """Convert a variable's text to the key's type. Nothing is trimmed or guessed.

    :raise ValueError: if that is not possible; the message says what to write.
    """
    if not _is_unicode(text):
        raise ValueError("is not UTF-8; write it in UTF-8")
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
    """Split a list at commas. Spaces around items are removed, and empty items are ignored."""
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
    """Whether the variable's bytes were UTF-8; Python keeps other bytes as lone surrogates."""
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
        raise ValueError("must be a whole number in decimal digits, without spaces")
    number = int(text)
    if number > LARGEST:
        raise ValueError(f"must be at most {LARGEST}")
    return number
