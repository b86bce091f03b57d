"""The settings of one layer: values with their origin, and problems found while reading them."""

from __future__ import annotations

from attrs import define, field, frozen

from dstreams.config.keys import Key, Value
from dstreams.config.problems import Problem, Why, shown
from dstreams.runtime.startup import StartupPhase


@frozen
class Setting:
    """One key as one layer sets it.

    :param value: a value of the key's type.
    :param origin: where it was set, for messages: ``DS_HTTP__CACHE``, ``file server.toml``.
    """

    key: Key
    value: Value
    origin: str

    def named(self) -> str:
        """Return the setting for a message: ``http.cache = 'public' (DS_HTTP__CACHE)``."""
        return named(self.key.path, self.value, self.origin)

    def problems(self, phase: StartupPhase, why: Why) -> list[Problem]:
        """Return the problems of this setting: one, or one for each bad item.

        :param why: what is wrong and how to fix it, without the key and the value.
        """
        return wrong_values(phase, self.key.path, self.value, self.origin, why)


@define(eq=False)
class Layer:
    """The settings read from one source.

    :param settings: settings by path.
    :param legacy: settings of old keys, by the old path; their values are already converted for the successors.
    :param warnings: advice about settings that work but should be changed.
    :param failed: keys whose value cannot be read.
    :param found: whether the source exists.
    :param lost: whether the source as a whole cannot be read.
    """

    settings: dict[str, Setting] = field(factory=dict)
    legacy: dict[str, Setting] = field(factory=dict)
    problems: list[Problem] = field(factory=list)
    warnings: list[str] = field(factory=list)
    failed: set[str] = field(factory=set)
    found: bool = True
    lost: bool = False

    def set(self, key: Key, value: Value, origin: str) -> None:
        """Add a setting."""
        self.settings[key.path] = Setting(key, value, origin)

    def fail(self, key: Key, written: str, value: object, origin: str, why: Why) -> None:
        """Record a value, or items of it, that cannot be read.

        :param key: the key that the value was meant for.
        :param written: the key's path as it was written; it may be an old name.
        """
        self.failed.add(key.path)
        self.problems += wrong_values(StartupPhase.LOAD_CONFIG, written, value, origin, why)


def wrong_values(phase: StartupPhase, path: str, value: object, origin: str, why: Why) -> list[Problem]:
    """Return problems for a value or for each bad item: ``server.endpoints[2] = 'x' (file server.toml): why``."""
    if isinstance(why, str):
        return [wrong_value(phase, path, value, origin, why)]
    return [wrong_value(phase, f"{path}[{bad.index}]", bad.item, origin, bad.why) for bad in why]


def wrong_value(phase: StartupPhase, path: str, value: object, origin: str, why: str) -> Problem:
    """Return a problem for a value: ``server.bind_address = 'x' (DS_SERVER__BIND_ADDRESS): why``."""
    return Problem(phase, f"{named(path, value, origin)}: {why}")


def named(path: str, value: object, origin: str) -> str:
    """Format a key with its value and origin for a message."""
    return f"{path} = {shown(value)} ({origin})"
