"""Conversion between flat settings and the tree of section classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast, get_type_hints

from attrs import AttrsInstance, fields, has

from dstreams.config.keys import Value
from dstreams.config.schema import KEYS, Config
from dstreams.config.settings import Setting

_Section = TypeVar("_Section", bound=AttrsInstance)


def build(settings: Mapping[str, Setting]) -> Config:
    """Build the configuration tree from settings.

    :param settings: every key by its path, each value of the key's type.
    """
    return _build(Config, settings, "")


def settings_of(config: Config) -> dict[str, Setting]:
    """Return the settings of a configuration that a program built itself. Types are not checked."""
    settings = {}
    for path, key in KEYS.items():
        value: object = config
        for name in path.split("."):
            value = getattr(value, name)
        settings[path] = Setting(key, cast("Value", value), "Config")
    return settings


def _build(cls: type[_Section], settings: Mapping[str, Setting], place: str) -> _Section:
    """Build one section and the sections nested in it."""
    types = get_type_hints(cls)
    values: dict[str, object] = {}
    for attribute in fields(cls):
        type_ = types[attribute.name]
        path = place + attribute.name
        values[attribute.name] = _build(type_, settings, f"{path}.") if has(type_) else settings[path].value
    return cls(**values)
