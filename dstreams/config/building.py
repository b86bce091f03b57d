"""From settings to the tree of section classes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast, get_type_hints

from attrs import AttrsInstance, fields, has

from dstreams.config.keys import Value
from dstreams.config.schema import KEYS, Config
from dstreams.config.settings import Setting

_Section = TypeVar("_Section", bound=AttrsInstance)


def build(settings: Mapping[str, Setting]) -> Config:
    """The configuration that settings describe.

    :param settings: every key by its path, each of the right type.
    """
    return _build(Config, settings, "")


def settings_of(config: Config) -> dict[str, Setting]:
    """The settings that a configuration made by a program amounts to; their types aren't checked."""
    settings = {}
    for path, key in KEYS.items():
        value: object = config
        for name in path.split("."):
            value = getattr(value, name)
        settings[path] = Setting(key, cast("Value", value), "Config")
    return settings


def _build(cls: type[_Section], settings: Mapping[str, Setting], place: str) -> _Section:
    """A section, and the sections in it."""
    types = get_type_hints(cls)
    values: dict[str, object] = {}
    for attribute in fields(cls):
        type_ = types[attribute.name]
        path = place + attribute.name
        values[attribute.name] = _build(type_, settings, f"{path}.") if has(type_) else settings[path].value
    return cls(**values)
