"""The layer that a TOML file gives."""

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
from dstreams.startup import StartupPhase

_BARE = re.compile(r"[A-Za-z0-9_-]+")

_SECTIONS = {path.rsplit(".", depth)[0] for path in KEYS for depth in range(1, path.count(".") + 1)}
_OLD_SECTIONS = {path.rpartition(".")[0] for path in LEGACY}


def read_file(path: str, *, named_by: str | None = None) -> Layer:
    """Read one file.

    :param path: absolute, or relative to the working directory.
    :param named_by: the option by which the operator named it; it must exist then.
    """
    layer = Layer()
    what = f"{shown(path)} ({named_by})" if named_by else shown(path)
    why = None
    try:
        # Some editors begin a file with the mark that UTF-8 has no need of.
        table = tomllib.loads(_read_bytes(path).decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        layer.found = False
        # A link that leads nowhere was meant to lead somewhere.
        if named_by or Path(path).is_symlink():
            why = f"configuration file not found: {what}: give the path of an existing file"
    except OSError as error:
        reason = error.strerror or error
        why = f"configuration file can't be read: {what}: {reason}; let the server's user read it"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        why = f"configuration file isn't TOML: {what}: {_reason(error)}"
    else:
        _read_table(layer, table, "", f"file {printable(path)}")
        replace_legacy(layer)
    if why is not None:
        layer.lost = True
        layer.problems.append(load_problem(why))
    return layer


def _read_bytes(path: str) -> bytes:
    # A blank path is most likely a variable that isn't set; to Path it is the working directory.
    if not path.strip():
        raise FileNotFoundError
    return Path(path).read_bytes()


def _reason(error: Exception) -> str:
    """What a parser says, on one line."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} isn't UTF-8; save the file as UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"{' '.join(str(error).split())}; mend the file there"


def _read_table(layer: Layer, table: Mapping[str, object], place: str, origin: str) -> None:
    """Take the keys of one table, and of the sections in it."""
    for name, value in table.items():
        # A quoted key may hold dots; as a path it would look like another key.
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
    """Note a key or a section that doesn't exist; the one that was meant is taken for failed."""
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
    """Take one value, if it is exactly of the key's type."""
    try:
        layer.set(key, _convert(key, value), origin)
    except ValueError as error:
        layer.fail(key, key.path, value, origin, why_of(error))


def _read_legacy(layer: Layer, old: LegacyKey, value: object, origin: str) -> None:
    """Take the value of a key of former times."""
    path = old.key.path
    try:
        layer.legacy[path] = Setting(old.successor, old.convert(_convert(old.key, value)), origin)
    except ValueError as error:
        layer.fail(old.successor, path, value, origin, why_of(error))


def _convert(key: Key, value: object) -> Value:
    """A TOML value as one of the key's type.

    :raise ValueError: with the remedy.
    """
    if key.type is tuple:
        if not isinstance(value, list):
            raise ValueError(f"must be {key.kind}" + _bracketed(value))
        return _items(key, value)
    # Compared exactly: to Python a boolean is a number.
    if type(value) is not key.type:
        raise ValueError(f"must be {key.kind}" + _unquoted(key, value))
    if isinstance(value, str):
        return _word(key, value)
    assert isinstance(value, int)
    if abs(value) > LARGEST:
        raise ValueError(f"must be at most {LARGEST}")
    return value


def _items(key: Key, values: list[object]) -> tuple[str, ...]:
    """The items of a list of strings.

    :raise BadItems:
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
    """A string, or the word that it stands for where only words are allowed."""
    if not key.declaration.words:
        return text
    word = key.declaration.word(text)
    if word is None:
        raise ValueError(key.choice())
    return word


def _bracketed(value: object) -> str:
    """A remedy for a single string where a list belongs."""
    return f", such as [{json.dumps(value)}]" if isinstance(value, str) else ""


def _unquoted(key: Key, value: object) -> str:
    """A remedy for the commonest mistake: a number or a boolean in quotes."""
    return ", without quotes" if isinstance(value, str) and key.type is not str else ""
