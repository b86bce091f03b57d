"""Formats a configuration as JSON or TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dstreams.config.building import settings_of
from dstreams.config.keys import Value
from dstreams.config.problems import printable
from dstreams.config.schema import Config
from dstreams.config.settings import Setting

MASK = "********"
"""Shown in place of a secret."""


def render_effective_json(config: Config) -> str:
    """Return the effective values as indented JSON, nested as in TOML; unset keys are ``null``, secrets are masked."""
    return json.dumps(nested(settings_of(config)), indent=2, ensure_ascii=False)


def render_toml(settings: Mapping[str, Setting]) -> str:
    """Return the effective values as a TOML file, one line for each key with its origin; secrets are masked."""
    lines = [(_line(path, shown_value(setting)), setting.origin) for path, setting in settings.items()]
    width = max(len(line) for line, _ in lines if len(line) <= _WIDEST)
    return "".join(f"{line:<{width}}  # {printable(origin)}\n" for line, origin in lines)


def nested(settings: Mapping[str, Setting]) -> dict[str, object]:
    """Return the values as nested tables, as in a TOML file; secrets are masked."""
    root: dict[str, object] = {}
    for path, setting in settings.items():
        *sections, name = path.split(".")
        table = root
        for section in sections:
            below = table.setdefault(section, {})
            assert isinstance(below, dict)
            table = below
        table[name] = shown_value(setting)
    return root


def shown_value(setting: Setting) -> Value:
    """Return the value that may be displayed: the mask for a secret that is set."""
    return MASK if setting.key.declaration.secret and setting.value else setting.value


_WIDEST = 60
"""Lines longer than this do not move the column of origins to the right."""


def _line(path: str, value: Value) -> str:
    if value is None:
        return f"#{path} is unset"
    # JSON's strings, numbers, booleans and lists are valid TOML, except for one character that JSON does not escape.
    return f"{path} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
