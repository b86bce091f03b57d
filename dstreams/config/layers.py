"""The layers of a configuration, laid over each other: the later one wins, key by key.

    built-in defaults < built-in profile < the file of ``--config`` < ``DS_*`` environment variables

Nothing is coerced: a port isn't a string, and ``yes`` isn't a boolean. All problems of all layers are
reported together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, get_type_hints

from attrs import AttrsInstance, fields, has

from dstreams.config.environment import read_environment
from dstreams.config.problems import ConfigError
from dstreams.config.profiles import read_profile
from dstreams.config.schema import KEYS, Config
from dstreams.config.settings import Layer, Setting
from dstreams.config.toml_file import read_file
from dstreams.config.validation import validate

_Section = TypeVar("_Section", bound=AttrsInstance)


def load_config(path: str | None, profile: str | None, environ: Mapping[str, str]) -> Config:
    """Build the configuration from all its layers, and check it.

    :param path: the TOML file that was asked for, if one was.
    :param profile: the profile that was asked for, if one was.
    :param environ: the environment variables.
    :raise ConfigError: with everything that is wrong, in any layer.
    """
    layers = [_defaults(), read_profile(profile)]
    if path is not None:
        layers.append(read_file(path))
    layers.append(read_environment(environ))

    settings: dict[str, Setting] = {}
    for layer in layers:
        settings.update(layer.settings)
    problems = [problem for layer in layers for problem in layer.problems]
    problems += validate(settings)
    if problems:
        raise ConfigError(problems)
    return _build(Config, settings, "")


def _defaults() -> Layer:
    layer = Layer()
    for key in KEYS.values():
        layer.set(key, key.default, "default")
    return layer


def _build(cls: type[_Section], settings: Mapping[str, Setting], place: str) -> _Section:
    """A section, and the sections in it, from settings that name every key."""
    types = get_type_hints(cls)
    values: dict[str, object] = {}
    for attribute in fields(cls):
        type_ = types[attribute.name]
        path = place + attribute.name
        values[attribute.name] = _build(type_, settings, f"{path}.") if has(type_) else settings[path].value
    return cls(**values)
