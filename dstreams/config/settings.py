"""What one layer says: values with their origin, and what was wrong with it."""

from __future__ import annotations

from attrs import define, field, frozen

from dstreams.config.keys import Key, Value
from dstreams.config.problems import Problem, Why, shown
from dstreams.startup import StartupPhase


@frozen
class Setting:
    """One key as one layer sets it.

    :param value: of the key's type.
    :param origin: where it was set, for messages: ``DS_HTTP__CACHE``, ``the file server.toml``.
    """

    key: Key
    value: Value
    origin: str

    def named(self) -> str:
        """The setting in a sentence: ``http.cache = 'public' (DS_HTTP__CACHE)``."""
        return named(self.key.path, self.value, self.origin)

    def problems(self, phase: StartupPhase, why: Why) -> list[Problem]:
        """What is wrong with this setting, or with items of it.

        :param why: what is wrong and the remedy, without the key and the value.
        """
        return wrong_values(phase, self.key.path, self.value, self.origin, why)


@define(eq=False)
class Layer:
    """What was read from one place.

    :param settings: by path.
    :param legacy: old keys by their path, already with their successors' values.
    :param warnings: what should be changed though it works.
    :param failed: keys that are set to something that can't be read.
    :param found: whether there was anything to read.
    :param lost: whether there was something that can't be read at all.
    """

    settings: dict[str, Setting] = field(factory=dict)
    legacy: dict[str, Setting] = field(factory=dict)
    problems: list[Problem] = field(factory=list)
    warnings: list[str] = field(factory=list)
    failed: set[str] = field(factory=set)
    found: bool = True
    lost: bool = False

    def set(self, key: Key, value: Value, origin: str) -> None:
        """Add one setting."""
        self.settings[key.path] = Setting(key, value, origin)

    def fail(self, key: Key, written: str, value: object, origin: str, why: Why) -> None:
        """Note a value, or items of it, that can't be read.

        :param key: the key that it was meant for.
        :param written: the key as it was written: an old name, perhaps.
        """
        self.failed.add(key.path)
        self.problems += wrong_values(StartupPhase.LOAD_CONFIG, written, value, origin, why)


def wrong_values(phase: StartupPhase, path: str, value: object, origin: str, why: Why) -> list[Problem]:
    """A value that can't be used, or each item of it that can't: ``server.endpoints[2] = 'x' (server.toml): why``."""
    if isinstance(why, str):
        return [wrong_value(phase, path, value, origin, why)]
    return [wrong_value(phase, f"{path}[{bad.index}]", bad.item, origin, bad.why) for bad in why]


def wrong_value(phase: StartupPhase, path: str, value: object, origin: str, why: str) -> Problem:
    """A value that can't be used: ``server.bind_address = 'x' (DS_SERVER__BIND_ADDRESS): why``."""
    return Problem(phase, f"{named(path, value, origin)}: {why}")


def named(path: str, value: object, origin: str) -> str:
    """A key with its value and where it was set."""
    return f"{path} = {shown(value)} ({origin})"
