"""The layer that a TOML file gives."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from dstreams.config.keys import LARGEST, Key
from dstreams.config.problems import Problem, load_problem, shown, suggestion
from dstreams.config.schema import KEYS
from dstreams.config.settings import Layer, choice, wrong_value
from dstreams.startup import StartupPhase

_BARE = re.compile(r"[A-Za-z0-9_-]+")

_SECTIONS = {path.rsplit(".", depth)[0] for path in KEYS for depth in range(1, path.count(".") + 1)}

_TYPE_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


def read_file(path: str) -> Layer:
    """Read a file that the operator named; it must exist.

    :param path: relative to the working directory, as given to ``--config``.
    """
    layer = Layer()
    try:
        with Path(path).open("rb") as file:
            table = tomllib.load(file)
    except FileNotFoundError:
        layer.problems.append(
            load_problem(f"configuration file not found: {shown(path)} (--config): give the path of an existing file")
        )
    except OSError as error:
        layer.problems.append(
            load_problem(
                f"configuration file can't be read: {shown(path)} (--config): {error.strerror or error}; let"
                " the server's user read it"
            )
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        layer.problems.append(
            load_problem(f"configuration file isn't TOML: {shown(path)} (--config): {_reason(error)}")
        )
    else:
        _read_table(layer, table, "", f"file {path}")
    return layer


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
        elif path not in _SECTIONS:
            layer.problems.append(_unknown(path, value, origin))
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


def _unknown(path: str, value: object, origin: str) -> Problem:
    if isinstance(value, dict):
        hint = suggestion(path, [*_SECTIONS, *KEYS])
        return load_problem(f"unknown section [{path}] ({origin}): {hint}")
    return wrong_value(StartupPhase.LOAD_CONFIG, path, value, origin, f"unknown key; {suggestion(path, KEYS)}")


def _read_value(layer: Layer, key: Key, value: object, origin: str) -> None:
    """Take one value, if it is exactly of the key's type."""
    why = _wrong_type(key, value)
    if why is not None:
        layer.problems.append(wrong_value(StartupPhase.LOAD_CONFIG, key.path, value, origin, why))
    else:
        assert isinstance(value, str | int | bool)
        if isinstance(value, str) and key.declaration.words:
            value = key.declaration.word(value) or value
        layer.set(key, value, origin)


def _wrong_type(key: Key, value: object) -> str | None:
    """Why a value isn't of the key's type, or ``None`` when it is."""
    # Compared exactly: to Python a boolean is a number.
    if type(value) is not key.type:
        return f"must be {_TYPE_NAMES[key.type]}" + _unquoted(key, value)
    words = key.declaration.words
    if words and key.declaration.word(str(value)) is None:
        return choice(words)
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"must be at most {LARGEST}"
    return None


def _unquoted(key: Key, value: object) -> str:
    """A remedy for the commonest mistake: a number or a boolean in quotes."""
    return ", without quotes" if isinstance(value, str) and key.type is not str else ""
