"""Which members of a log event are structured fields, and how values that JSON can't hold are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import orjson
from twisted.logger import LogEvent

OURS: Final = "dstreams"
"""The namespace of this server's own events, and what their namespaces begin with."""

REQUESTS: Final = "dstreams.requests"
"""The namespace of the events that tell of one request each."""


def structured(event: LogEvent) -> Mapping[str, object]:
    """The fields of an event, named as in the Elastic Common Schema.

    An event may hold them all in its member ``log_fields``; else they are the members whose names have a dot.
    """
    fields: Mapping[str, object] | None = event.get("log_fields")
    if fields is not None:
        return fields
    return {name: value for name, value in event.items() if "." in name}


def labels(event: LogEvent) -> dict[str, str]:
    """What one of our own events mentions in its text, each as a label of its own; nothing of other events."""
    namespace = event.get("log_namespace") or ""
    if namespace != OURS and not namespace.startswith(OURS + "."):
        return {}
    return {
        f"labels.{name}": str(value)
        for name, value in event.items()
        if not name.startswith("log_") and "." not in name and isinstance(value, str | int | float)
    }


def to_json(members: Mapping[str, object]) -> bytes:
    """One JSON object, whatever its values are."""
    try:
        return orjson.dumps(members)
    except TypeError:
        # A lone surrogate, a huge number, or no scalar at all: an event must not be lost for that.
        return json.dumps({name: _plain(value) for name, value in members.items()}).encode("ascii")


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)
    return str(value).encode("utf-8", "replace").decode("utf-8")
