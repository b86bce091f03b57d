"""What a configuration key is, and how a section class declares one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar, get_type_hints

import attrs
from attrs import field, frozen

Value = str | int | bool
"""What a key can hold."""

LARGEST = 2**63 - 1
"""The largest number of any key: what a signed 64-bit integer holds."""

VARIABLE_PREFIX = "DS_"
LEVEL_SEPARATOR = "__"

_KEY = "dstreams.config.key"

_V = TypeVar("_V", str, int, bool)
_S = TypeVar("_S")


@frozen(kw_only=True)
class Declaration:
    """What a section class says about one of its keys.

    :param about: one sentence for the reference.
    :param words: the allowed words of a key that holds one of a few; empty for every other.
    :param aliases: other spellings, and the words they stand for.
    :param least: the smallest number allowed.
    :param most: the largest number allowed.
    """

    about: str
    words: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(factory=dict)
    least: int = 0
    most: int = LARGEST

    def word(self, text: str) -> str | None:
        """The allowed word that ``text`` is or stands for, ``None`` when it is neither."""
        word = self.aliases.get(text, text)
        return word if word in self.words else None


@frozen
class Key:
    """One key of the whole configuration.

    :param path: the dotted place in a TOML file: ``server.bind_address``.
    :param type: ``str``, ``int`` or ``bool``.
    :param default: the value when no layer sets it.
    """

    path: str
    type: type
    default: Value
    declaration: Declaration

    @property
    def variable(self) -> str:
        """The environment variable: ``DS_SERVER__BIND_ADDRESS``."""
        return VARIABLE_PREFIX + self.path.upper().replace(".", LEVEL_SEPARATOR)


def key(
    default: _V,
    about: str,
    *,
    words: tuple[str, ...] = (),
    aliases: Mapping[str, str] | None = None,
    least: int = 0,
    most: int = LARGEST,
) -> _V:
    """A field of a section class that is a configuration key; see :class:`Declaration`."""
    declaration = Declaration(about=about, words=words, aliases=aliases or {}, least=least, most=most)
    return attrs.field(default=default, metadata={_KEY: declaration})


def section(cls: type[_S]) -> _S:
    """A field of a section class that is a section below it."""
    return attrs.field(factory=cls)


def sections_below(cls: type[attrs.AttrsInstance], path: str = "") -> Iterator[tuple[str, type[attrs.AttrsInstance]]]:
    """A section class with its path, then all the sections in it, in the order of their declaration.

    :param path: where the section is; empty for the whole configuration.
    """
    yield path, cls
    types = get_type_hints(cls)
    for attribute in attrs.fields(cls):
        if attrs.has(types[attribute.name]):
            yield from sections_below(types[attribute.name], f"{path}.{attribute.name}".lstrip("."))


def keys_below(cls: type[attrs.AttrsInstance]) -> Iterator[Key]:
    """All keys of a section class and of the sections in it, section by section."""
    for path, holder in sections_below(cls):
        types = get_type_hints(holder)
        for attribute in attrs.fields(holder):
            declaration = attribute.metadata.get(_KEY)
            if declaration is not None:
                place = f"{path}.{attribute.name}".lstrip(".")
                yield Key(place, types[attribute.name], attribute.default, declaration)
