"""A configuration as text."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dstreams.config.building import settings_of
from dstreams.config.keys import Value
from dstreams.config.problems import printable
from dstreams.config.schema import Config
from dstreams.config.settings import Setting

MASK = "********"
"""What is shown of a secret."""


def render_effective_json(config: Config) -> str:
    """The values in force as indented JSON: nested as in a TOML file, ``null`` where nothing is set, secrets masked."""
    return json.dumps(nested(settings_of(config)), indent=2, ensure_ascii=False)


def render_toml(settings: Mapping[str, Setting]) -> str:
    """The values in force as a TOML file, a line for each key with where it was set; secrets masked."""
    lines = [(_line(path, shown_value(setting)), setting.origin) for path, setting in settings.items()]
    width = max(len(line) for line, _ in lines if len(line) <= _WIDEST)
    return "".join(f"{line:<{width}}  # {printable(origin)}\n" for line, origin in lines)


def nested(settings: Mapping[str, Setting]) -> dict[str, object]:
    """The values as tables in tables, as a TOML file has them; secrets masked."""
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
    """A value as it may be shown to anybody."""
    return MASK if setting.key.declaration.secret and setting.value else setting.value


_WIDEST = 60
"""Longer lines don't push the origins of the others to the right."""


def _line(path: str, value: Value) -> str:
    if value is None:
        return f"#{path} is unset"
    # JSON's strings, numbers, booleans and lists are TOML's, but for one character that JSON leaves as it is.
    return f"{path} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
