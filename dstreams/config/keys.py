"""The definition of a configuration key, and the functions with which section classes declare keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar, get_args, get_origin, get_type_hints

import attrs
from attrs import field, frozen

Value = str | int | bool | tuple[str, ...] | None
"""The type of a key's value; ``None`` when a key without a default is not set."""

LARGEST = 2**63 - 1
"""The largest number that any key accepts: the maximum of a signed 64-bit integer."""

VARIABLE_PREFIX = "DS_"
LEVEL_SEPARATOR = "__"

_KINDS = {str: "a string", int: "a whole number", bool: "true or false", tuple: "a list of strings"}

_KEY = "dstreams.config.key"

_V = TypeVar("_V")
_S = TypeVar("_S")


@frozen(kw_only=True)
class Declaration:
    """The description and the allowed values of a key.

    :param about: one sentence for the reference page.
    :param words: the allowed words, if the key accepts only certain words; otherwise empty.
    :param aliases: alternative spellings, each with the word that it stands for.
    :param refused: words that are recognized but not allowed, each with the remedy that validation reports.
    :param least: the smallest allowed number.
    :param most: the largest allowed number.
    :param example: a value for the documentation of a key without a default.
    :param secret: whether the value is masked wherever the configuration is shown.
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
        """Return the known word that ``text`` is or stands for, or ``None`` if there is none."""
        word = self.aliases.get(text, text)
        return word if word in self.words or word in self.refused else None


@frozen
class Key:
    """One configuration key.

    :param path: the dotted path in a TOML file, such as ``server.bind_address``.
    :param type: ``str``, ``int``, ``bool``, or ``tuple`` for a list of strings.
    :param default: the value when no layer sets the key; ``None`` for a string without a default.
    """

    path: str
    type: type
    default: Value
    declaration: Declaration

    @property
    def variable(self) -> str:
        """The name of the environment variable, such as ``DS_SERVER__BIND_ADDRESS``."""
        return VARIABLE_PREFIX + self.path.upper().replace(".", LEVEL_SEPARATOR)

    @property
    def kind(self) -> str:
        """The type in words, to follow "must be": ``a whole number``."""
        return _KINDS[self.type]

    def holds(self, value: object) -> bool:
        """Whether a value has the key's type."""
        if value is None:
            return self.default is None
        # Types are compared exactly, because in Python a bool is also an int.
        return type(value) is self.type and (
            not isinstance(value, tuple) or all(isinstance(item, str) for item in value)
        )

    def choice(self) -> str:
        """Return the remedy for a word that is not allowed."""
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
    """Declare a field of a section class as a configuration key; see :class:`Declaration`."""
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
    """Declare a field of a section class as a nested section."""
    return attrs.field(factory=cls)


def sections_below(cls: type[attrs.AttrsInstance], path: str = "") -> Iterator[tuple[str, type[attrs.AttrsInstance]]]:
    """Yield a section class with its path, then all sections nested in it, in order of declaration.

    :param path: the path of the section; empty for the whole configuration.
    """
    yield path, cls
    types = get_type_hints(cls)
    for attribute in attrs.fields(cls):
        if attrs.has(types[attribute.name]):
            yield from sections_below(types[attribute.name], f"{path}.{attribute.name}".lstrip("."))


def keys_below(cls: type[attrs.AttrsInstance]) -> Iterator[Key]:
    """Yield all keys of a section class and of its nested sections, section by section."""
    for path, holder in sections_below(cls):
        types = get_type_hints(holder)
        for attribute in attrs.fields(holder):
            declaration = attribute.metadata.get(_KEY)
            if declaration is not None:
                place = f"{path}.{attribute.name}".lstrip(".")
                yield Key(place, _type(types[attribute.name]), attribute.default, declaration)


def _type(annotation: object) -> type:
    """Return the type behind an annotation such as ``str | None`` or ``tuple[str, ...]``."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation
    if get_origin(annotation) is tuple:
        return tuple
    (type_,) = (each for each in get_args(annotation) if each is not type(None))
    assert isinstance(type_, type)
    return type_
