"""The configuration layer of a TOML file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from dstreams.config.keys import LARGEST, Key, Value
from dstreams.config.legacy import LEGACY, LegacyKey, replace_legacy
from dstreams.config.problems import BadItem, BadItems, load_problem, nearest, printable, remedy, shown, why_of
from dstreams.config.schema import KEYS
from dstreams.config.settings import Layer, Setting, wrong_value
from dstreams.runtime.startup import StartupPhase

_BARE = re.compile(r"[A-Za-z0-9_-]+")

_SECTIONS = {path.rsplit(".", depth)[0] for path in KEYS for depth in range(1, path.count(".") + 1)}
_OLD_SECTIONS = {path.rpartition(".")[0] for path in LEGACY}


def read_file(path: str, *, named_by: str | None = None) -> Layer:
    """Read one TOML file.

    :param path: absolute, or relative to the working directory.
    :param named_by: the option that named the file; such a file must exist.
    """
    layer = Layer()
    what = f"{shown(path)} ({named_by})" if named_by else shown(path)
    why = None
    try:
        # utf-8-sig, because some editors start a file with a byte order mark.
        table = tomllib.loads(_read_bytes(path).decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        layer.found = False
        # A dangling symbolic link is a mistake, not a missing optional file.
        if named_by or Path(path).is_symlink():
            why = f"configuration file not found: {what}: give the path of an existing file"
    except OSError as error:
        reason = error.strerror or error
        why = f"configuration file cannot be read: {what}: {reason}; make it readable for the server's user"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        why = f"configuration file is not valid TOML: {what}: {_reason(error)}"
    else:
        _read_table(layer, table, "", f"file {printable(path)}")
        replace_legacy(layer)
    if why is not None:
        layer.lost = True
        layer.problems.append(load_problem(why))
    return layer


def _read_bytes(path: str) -> bytes:
    # A blank path is most likely an unset variable; Path would treat it as the working directory.
    if not path.strip():
        raise FileNotFoundError
    return Path(path).read_bytes()


def _reason(error: Exception) -> str:
    """Return a parser's error message on one line."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8; save the file as UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"{' '.join(str(error).split())}; fix the file there"


def _read_table(layer: Layer, table: Mapping[str, object], place: str, origin: str) -> None:
    """Read the keys of one table and of the sections in it."""
    for name, value in table.items():
        # A quoted key may contain dots; unquoted, its path would look like another key.
        path = place + (name if _BARE.fullmatch(name) else shown(name))
        if path in KEYS:
            _read_value(layer, KEYS[path], value, origin)
        elif path in LEGACY:
            _read_legacy(layer, LEGACY[path], value, origin)
        elif path not in _SECTIONS | _OLD_SECTIONS:
            _refuse_unknown(layer, path, value, origin)
        elif isinstance(value, dict):
            _read_table(layer, value, f"{path}.", origin)
        else:
            layer.problems.append(
                wrong_value(
                    StartupPhase.LOAD_CONFIG,
                    path,
                    value,
                    origin,
                    f"is a section, not a key; write [{path}] above its keys",
                )
            )


def _refuse_unknown(layer: Layer, path: str, value: object, origin: str) -> None:
    """Record an unknown key or section as a problem. The keys that were probably meant count as failed."""
    if isinstance(value, dict):
        meant = nearest(path, [*_SECTIONS, *KEYS])
        layer.problems.append(load_problem(f"unknown section [{path}] ({origin}): {remedy(meant)}"))
        layer.failed.update(each for each in KEYS if meant and f"{each}.".startswith(f"{meant}."))
    else:
        meant = nearest(path, KEYS)
        why = f"unknown key; {remedy(meant)}"
        layer.problems.append(wrong_value(StartupPhase.LOAD_CONFIG, path, value, origin, why))
        layer.failed.update([meant] if meant else [])


def _read_value(layer: Layer, key: Key, value: object, origin: str) -> None:
    """Add one value if it has exactly the key's type."""
    try:
        layer.set(key, _convert(key, value), origin)
    except ValueError as error:
        layer.fail(key, key.path, value, origin, why_of(error))


def _read_legacy(layer: Layer, old: LegacyKey, value: object, origin: str) -> None:
    """Add the value of an old key."""
    path = old.key.path
    try:
        layer.legacy[path] = Setting(old.successor, old.convert(_convert(old.key, value)), origin)
    except ValueError as error:
        layer.fail(old.successor, path, value, origin, why_of(error))


def _convert(key: Key, value: object) -> Value:
    """Convert a TOML value to the key's type.

    :raise ValueError: if it has another type; the message says what to write.
    """
    if key.type is tuple:
        if not isinstance(value, list):
            raise ValueError(f"must be {key.kind}" + _bracketed(value))
        return _items(key, value)
    # Types are compared exactly, because in Python a bool is also an int.
    if type(value) is not key.type:
        raise ValueError(f"must be {key.kind}" + _unquoted(key, value))
    if isinstance(value, str):
        return _word(key, value)
    assert isinstance(value, int)
    if abs(value) > LARGEST:
        raise ValueError(f"must be at most {LARGEST}")
    return value


def _items(key: Key, values: list[object]) -> tuple[str, ...]:
    """Convert the items of a list of strings.

    :raise BadItems: if any item is not a string or not an allowed word.
    """
    items, bad = [], []
    for index, value in enumerate(values):
        if not isinstance(value, str):
            bad.append(BadItem(index, value, "must be a string"))
            continue
        try:
            items.append(_word(key, value))
        except ValueError as error:
            bad.append(BadItem(index, value, str(error)))
    if bad:
        raise BadItems(bad)
    return tuple(items)


def _word(key: Key, text: str) -> str:
    """Return the string, or the word that it stands for if the key accepts only certain words."""
    if not key.declaration.words:
        return text
    word = key.declaration.word(text)
    if word is None:
        raise ValueError(key.choice())
    return word


def _bracketed(value: object) -> str:
    """Return a hint for a single string given in place of a list."""
    return f", such as [{json.dumps(value)}]" if isinstance(value, str) else ""


def _unquoted(key: Key, value: object) -> str:
    """Return a hint for the most common mistake: a number or a boolean in quotes."""
    return ", without quotes" if isinstance(value, str) and key.type is not str else ""
