"""What a configuration key is, and how a section class declares one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar, get_args, get_origin, get_type_hints

import attrs
from attrs import field, frozen

Value = str | int | bool | tuple[str, ...] | None
"""What a key can hold; ``None`` where nothing is set and there is no default."""

LARGEST = 2**63 - 1
"""The largest number of any key: what a signed 64-bit integer holds."""

VARIABLE_PREFIX = "DS_"
LEVEL_SEPARATOR = "__"

_KINDS = {str: "a string", int: "a whole number", bool: "true or false", tuple: "a list of strings"}

_KEY = "dstreams.config.key"

_V = TypeVar("_V")
_S = TypeVar("_S")


@frozen(kw_only=True)
class Declaration:
    """What a section class says about one of its keys.

    :param about: one sentence for the reference.
    :param words: the allowed words of a key that holds one, or some, of a few; empty for every other.
    :param aliases: other spellings, and the words they stand for.
    :param refused: words that are known and not allowed, with the remedy that validation gives.
    :param least: the smallest number allowed.
    :param most: the largest number allowed.
    :param example: a value to show where there is no default.
    :param secret: whether the value is shown to nobody.
    """

    about: str
    words: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(factory=dict)
    refused: Mapping[str, str] = field(factory=dict)
    least: int = 0
    most: int = LARGEST
    example: str | tuple[str, ...] = ""
    secret: bool = False

    def word(self, text: str) -> str | None:
        """The known word that ``text`` is or stands for, ``None`` when it is neither."""
        word = self.aliases.get(text, text)
        return word if word in self.words or word in self.refused else None


@frozen
class Key:
    """One key of the whole configuration.

    :param path: the dotted place in a TOML file: ``server.bind_address``.
    :param type: ``str``, ``int``, ``bool``, or ``tuple`` for a list of strings.
    :param default: the value when no layer sets it; ``None`` for a string without a default.
    """

    path: str
    type: type
    default: Value
    declaration: Declaration

    @property
    def variable(self) -> str:
        """The environment variable: ``DS_SERVER__BIND_ADDRESS``."""
        return VARIABLE_PREFIX + self.path.upper().replace(".", LEVEL_SEPARATOR)

    @property
    def kind(self) -> str:
        """The type in words, after "must be": ``a whole number``."""
        return _KINDS[self.type]

    def holds(self, value: object) -> bool:
        """Whether a value is of the key's type."""
        if value is None:
            return self.default is None
        # Compared exactly: to Python a boolean is a number.
        return type(value) is self.type and (
            not isinstance(value, tuple) or all(isinstance(item, str) for item in value)
        )

    def choice(self) -> str:
        """The remedy for a word that isn't one of the key's."""
        words = self.declaration.words
        return f"must be {words[0]}" if len(words) == 1 else f"must be one of {', '.join(words)}"


def key(
    default: _V,
    about: str,
    *,
    words: tuple[str, ...] = (),
    aliases: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
    least: int = 0,
    most: int = LARGEST,
    example: str | tuple[str, ...] = "",
    secret: bool = False,
) -> _V:
    """A field of a section class that is a configuration key; see :class:`Declaration`."""
    declaration = Declaration(
        about=about,
        words=words,
        aliases=aliases or {},
        refused=refused or {},
        least=least,
        most=most,
        example=example,
        secret=secret,
    )
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
                yield Key(place, _type(types[attribute.name]), attribute.default, declaration)


def _type(annotation: object) -> type:
    """The type that an annotation such as ``str | None`` or ``tuple[str, ...]`` is about."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation
    if get_origin(annotation) is tuple:
        return tuple
    (type_,) = (each for each in get_args(annotation) if each is not type(None))
    assert isinstance(type_, type)
    return type_
