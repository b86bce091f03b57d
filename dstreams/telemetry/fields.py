"""The structured fields of log events, and their conversion to JSON, also for values that JSON has no form for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

import orjson
from attrs import define, field
from twisted.logger import LogEvent

OURS: Final = "dstreams"
"""The namespace of this server's events, and the first part of its sub-namespaces."""

REQUESTS: Final = "dstreams.requests"
"""The namespace of access log events, one for each request."""


_UNSAFE: Final = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
"""Characters, in UTF-8, that JSON does not escape but that other programs interpret. Terminals interpret U+0080 to
U+009F and direction marks (U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069); many programs that read lines also
treat U+0085, U+2028 and U+2029 as line ends."""


@define(eq=False)
class Common:
    """Fields that several events have in common.

    :param members: the fields; they must not be modified.
    """

    members: Mapping[str, object]
    _json: bytes | None = field(default=None, init=False)

    @property
    def json(self) -> bytes:
        """The members of a JSON object without its braces; computed at first use."""
        text = self._json
        if text is None:
            text = self._json = to_json(self.members)[1:-1]
        return text


@define(eq=False)
class Fields(Mapping[str, object]):
    """The fields of one event: those that it shares with other events, and its own. Neither set is empty.

    It is a mapping for observers; a log line is made from it without building a dictionary.
    """

    _common: Common
    _own: Mapping[str, object]

    @property
    def json(self) -> bytes:
        """The members of a JSON object without its braces."""
        return b"%b,%b" % (self._common.json, to_json(self._own)[1:-1])

    def __getitem__(self, name: str) -> object:
        return self._own[name] if name in self._own else self._common.members[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._common.members
        yield from self._own

    def __len__(self) -> int:
        return len(self._common.members) + len(self._own)


def structured(event: LogEvent) -> Mapping[str, object]:
    """Return the fields of an event, named as in the Elastic Common Schema.

    An event may have them all in its member ``log_fields``; otherwise they are the members whose names contain a dot.
    """
    fields: Mapping[str, object] | None = event.get("log_fields")
    if fields is not None:
        return fields
    return {name: value for name, value in event.items() if "." in name}


def labels(event: LogEvent) -> dict[str, str]:
    """Return the values that the text of one of our own events mentions, as labels; nothing for other events."""
    namespace = event.get("log_namespace") or ""
    if namespace != OURS and not namespace.startswith(OURS + "."):
        return {}
    return {
        f"labels.{name}": str(value)
        for name, value in event.items()
        if not name.startswith("log_") and "." not in name and isinstance(value, str | int | float)
    }


def to_json(members: Mapping[str, object]) -> bytes:
    """Return a JSON object, whatever the types of the values are."""
    try:
        text = orjson.dumps(members)
    except TypeError:
        # The value is a lone surrogate, a huge number, or not a scalar; the event must not be lost because of it.
        return json.dumps({name: _plain(value) for name, value in members.items()}).encode("ascii")
    return text if text.isascii() else _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)
    return str(value).encode("utf-8", "replace").decode("utf-8")
