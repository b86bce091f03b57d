"""Converts a stream's configuration and fork point to JSON members, for the journal and for stored rows."""

from __future__ import annotations

from typing import TypeVar, cast

from dstreams.model.changes import ForkPoint, StreamConfig
from dstreams.protocol.content_types import parse_content_type
from dstreams.protocol.problems import ProtocolError

_T = TypeVar("_T")


class MalformedRecord(ValueError):
    """The bytes were not written by any version of this module."""


def config_members(config: StreamConfig, fork: ForkPoint | None) -> dict[str, object]:
    """Return the parameters of a stream's creation as JSON members; absent ones are omitted."""
    members: dict[str, object] = {"type": config.content_type.value}
    if config.ttl is not None:
        members["ttl"] = config.ttl
    if config.expires_at is not None:
        members["expires_at"] = config.expires_at
    if fork is not None:
        members["fork"] = {
            "source_id": fork.source_id,
            "source_name": fork.source_name,
            "position": fork.position,
            "anchor": fork.anchor,
            "sub_offset": fork.sub_offset,
            "inherits_expiry": fork.inherits_expiry,
        }
    return members


def members_config(members: object) -> tuple[StreamConfig, ForkPoint | None]:
    """Return the values from which :func:`config_members` made the members; other members are ignored.

    :raise MalformedRecord: if a member is missing or invalid.
    """
    try:
        content_type = parse_content_type(member(members, "type", str).encode("latin-1"))
    except (ProtocolError, UnicodeEncodeError) as error:
        raise MalformedRecord(f"a stream has no valid content type: {error}") from None
    config = StreamConfig(content_type, optional(members, "ttl", int), optional(members, "expires_at", float, int))
    fork = optional(members, "fork", dict)
    if fork is None:
        return config, None
    return config, ForkPoint(
        source_id=member(fork, "source_id", int),
        source_name=member(fork, "source_name", str),
        position=member(fork, "position", int),
        anchor=optional(fork, "anchor", int),
        sub_offset=member(fork, "sub_offset", int),
        inherits_expiry=member(fork, "inherits_expiry", bool),
    )


def member(members: object, name: str, kind: type[_T]) -> _T:
    """Return a required member of a JSON object."""
    value = optional(members, name, kind)
    if value is None:
        raise MalformedRecord(f"a stream has no {name!r}")
    return value


def optional(members: object, name: str, *kinds: type[_T]) -> _T | None:
    """Return a member of a JSON object, or ``None`` if it is null or missing."""
    if not isinstance(members, dict):
        raise MalformedRecord("a stream's JSON is no object")
    value = members.get(name)
    # isinstance would accept a bool as an int.
    if value is not None and type(value) not in kinds:
        raise MalformedRecord(f"a stream's {name!r} is {value!r}")
    return cast("_T | None", value)
