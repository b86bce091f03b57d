"""The members of a stream in an export document, besides its messages, and their conversion from and to JSON.

``docs/reference/transfer-format.md`` describes the members. Those outside ``dstreams`` are the plain form, which other
servers also read and write; those inside are an extension that other servers ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from attrs import field, frozen

from dstreams.protocol.content_types import ContentType, parse_content_type
from dstreams.protocol.expiry import format_expires_at, parse_expires_at
from dstreams.protocol.headers import MAX_INTEGER
from dstreams.protocol.names import NameLimits, encode_name, parse_name
from dstreams.protocol.offsets import format_offset, parse_offset
from dstreams.protocol.problems import ProtocolError
from dstreams.protocol.producers import MAX_ID_BYTES, Producer

_T = TypeVar("_T")

FORMAT_VERSION: Final = 1
"""The version of the plain form."""

EXTENSION: Final = "dstreams"
"""The member of the document and of each stream that holds the extension."""

EXTENSION_VERSION: Final = 1


STREAM_MEMBERS: Final = frozenset({"name", "config", "closed", "created_at", "updated_at", "next_offset", EXTENSION})
"""The members of a stream that are read, besides ``messages``."""

MAX_STREAM_SEQ_BYTES: Final = 65_535
"""The largest Stream-Seq that storage can hold; no header can be that long."""


class Malformed(Exception):
    """A member is missing or invalid; the text names it."""


@frozen
class Origin:
    """Where a fork branches off from its source.

    :param source: the source's name.
    :param position: the number of the source's bytes that it inherits.
    :param anchor: the requested ``Stream-Fork-Offset``, or ``None`` if there was none.
    :param sub_offset: the requested ``Stream-Fork-Sub-Offset``.
    :param inherits_expiry: whether neither TTL nor Expires-At was requested.
    """

    source: str
    position: int
    anchor: int | None = None
    sub_offset: int = 0
    inherits_expiry: bool = True


@frozen(kw_only=True)
class Record:
    """A stream without its messages.

    :param created_at: Unix seconds, ``None`` if unknown; the same for ``updated_at``.
    :param extended: whether the document has the extension.
    """

    name: str
    content_type: ContentType
    ttl: int | None = None
    expires_at: float | None = None
    created_closed: bool = False
    closed: bool = False
    created_at: float | None = None
    updated_at: float | None = None
    stream_seq: bytes | None = None
    producers: tuple[Producer, ...] = ()
    closed_by: Producer | None = None
    origin: Origin | None = None
    extended: bool = field(default=False, eq=False)


# --- writing --------------------------------------------------------------------------------------------------


def members(record: Record) -> dict[str, Any]:
    """Return a stream's members, except its messages and the counts derived from them."""
    return {
        "name": record.name,
        "config": {
            # Without parameters, because other servers compare this with the content type of an append.
            "content_type": record.content_type.media_type,
            "ttl_seconds": record.ttl,
            "expires_at": timestamp(record.expires_at),
            "created_closed": record.created_closed,
        },
        "closed": record.closed,
        "created_at": timestamp(record.created_at),
        "updated_at": timestamp(record.updated_at),
        EXTENSION: _extension(record),
    }


def timestamp(seconds: float | None) -> str | None:
    """Format Unix seconds as RFC 3339 in UTC."""
    return None if seconds is None else format_expires_at(seconds).decode()


def _extension(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if record.content_type.value != record.content_type.media_type:
        found["content_type"] = record.content_type.value
    if record.stream_seq is not None:
        found["stream_seq"] = record.stream_seq.decode("latin-1")
    if record.producers:
        found["producers"] = [_producer(each) for each in record.producers]
    if record.closed_by is not None:
        found["closed_by"] = _producer(record.closed_by)
    origin = record.origin
    if origin is not None:
        found["fork"] = {
            "source": origin.source,
            "position": format_offset(origin.position).decode(),
            "requested_offset": None if origin.anchor is None else format_offset(origin.anchor).decode(),
            "requested_sub_offset": origin.sub_offset,
            "inherits_expiry": origin.inherits_expiry,
        }
    return found


def _producer(producer: Producer) -> dict[str, Any]:
    return {"id": producer.id, "epoch": producer.epoch, "seq": producer.seq}


# --- reading --------------------------------------------------------------------------------------------------


def parse_record(given: Mapping[str, Any], limits: NameLimits) -> Record:
    """Parse a stream's members.

    :param given: the members, without ``messages``.
    :param limits: limits on stream names.
    :raise Malformed: if one is missing or invalid.
    """
    config = _member(given, "config", dict)
    extension = _optional(given, EXTENSION, dict)
    more: Mapping[str, Any] = extension or {}
    ttl = _integer(config, "ttl_seconds", optional=True)
    return Record(
        name=_name(_member(given, "name", str), limits),
        content_type=_content_type(config, more),
        ttl=ttl,
        # With a TTL, expires_at is only the time at which the TTL would have run out when the document was written.
        expires_at=None if ttl is not None else _time(config, "expires_at"),
        created_closed=bool(_optional(config, "created_closed", bool)),
        closed=_member(given, "closed", bool),
        created_at=_time(given, "created_at"),
        updated_at=_time(given, "updated_at"),
        stream_seq=_stream_seq(more),
        producers=_producers(more),
        closed_by=_parsed(more, "closed_by", _parse_producer),
        origin=_parsed(more, "fork", _parse_origin),
        extended=extension is not None,
    )


def parse_next_offset(given: Mapping[str, Any]) -> int:
    """Return the position after a stream's last message, as written by this server.

    :raise Malformed: if it is missing or not an offset of this server.
    """
    return _position(given, "next_offset")


def _name(name: str, limits: NameLimits) -> str:
    try:
        return parse_name(encode_name(name), limits)
    except UnicodeEncodeError:
        raise Malformed("'name' contains half of a surrogate pair, which no URL can represent") from None
    except ProtocolError as error:
        raise Malformed(f"'name' is not a valid stream name: {error.detail}") from None


def parse_content_type_of(config: Mapping[str, Any]) -> ContentType:
    """Parse the content type in a stream's ``config``.

    :raise Malformed: if it is missing or invalid.
    """
    return _parse_type(_member(config, "content_type", str))


def _content_type(config: Mapping[str, Any], more: Mapping[str, Any]) -> ContentType:
    found = parse_content_type_of(config)
    full = _optional(more, "content_type", str)
    if full is None:
        return found
    exact = _parse_type(full)
    if exact.media_type != found.media_type:
        raise Malformed(f"the types {found.value!r} and {full!r} differ")
    return exact


def _parse_type(text: str) -> ContentType:
    try:
        return parse_content_type(text.encode("ascii"))
    except (ProtocolError, UnicodeEncodeError):
        raise Malformed(f"{text!r} is not a content type such as 'text/plain'") from None


def _stream_seq(more: Mapping[str, Any]) -> bytes | None:
    found = _latin(more, "stream_seq")
    if found is not None and len(found) > MAX_STREAM_SEQ_BYTES:
        raise Malformed(f"'stream_seq' has {len(found)} bytes; at most {MAX_STREAM_SEQ_BYTES} are allowed")
    return found


def _producers(more: Mapping[str, Any]) -> tuple[Producer, ...]:
    found = _optional(more, "producers", list) or []
    producers = tuple(_parse_producer(each) for each in found)
    if len({each.id for each in producers}) != len(producers):
        raise Malformed("'producers' has two entries with the same id")
    return producers


def _parse_producer(given: Any) -> Producer:
    if not isinstance(given, dict):
        raise Malformed("a producer must be an object")
    name = _latin(given, "id")
    if not name or len(name) > MAX_ID_BYTES:
        raise Malformed(f"a producer's 'id' must have 1 to {MAX_ID_BYTES} bytes")
    return Producer(name.decode("latin-1"), _integer(given, "epoch") or 0, _integer(given, "seq") or 0)


def _parse_origin(given: Any) -> Origin:
    if not isinstance(given, dict):
        raise Malformed("'fork' must be an object")
    return Origin(
        source=_member(given, "source", str),
        position=_position(given, "position"),
        anchor=None if given.get("requested_offset") is None else _position(given, "requested_offset"),
        sub_offset=_integer(given, "requested_sub_offset", optional=True) or 0,
        inherits_expiry=_member(given, "inherits_expiry", bool),
    )


def _parsed(given: Mapping[str, Any], name: str, parse: Callable[[Any], _T]) -> _T | None:
    value = given.get(name)
    return None if value is None else parse(value)


def _position(given: Mapping[str, Any], name: str) -> int:
    text = _member(given, name, str)
    try:
        position = parse_offset(text.encode("ascii"))
    except (ProtocolError, UnicodeEncodeError):
        position = -1
    if position < 0:
        raise Malformed(f"'{name}' must be an offset of this server, not {text!r}")
    return position


def _latin(given: Mapping[str, Any], name: str) -> bytes | None:
    """Return the bytes of a header, which is written with one character for each byte (Latin-1)."""
    text = _optional(given, name, str)
    if text is None:
        return None
    try:
        return bytes(text.encode("latin-1"))
    except UnicodeEncodeError:
        raise Malformed(f"'{name}' contains characters beyond U+00FF, which do not represent bytes") from None


def _time(given: Mapping[str, Any], name: str) -> float | None:
    text = _optional(given, name, str)
    if text is None:
        return None
    try:
        return parse_expires_at(text.encode("ascii"))
    except (ProtocolError, UnicodeEncodeError):
        raise Malformed(f"'{name}' must be a time like 2030-01-31T12:00:00Z, not {text!r}") from None


def _integer(given: Mapping[str, Any], name: str, *, optional: bool = False) -> int | None:
    value = given.get(name)
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise Malformed(f"'{name}' must be a whole number from 0 to {MAX_INTEGER}")
    return value


def _member(given: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    value = given.get(name)
    if not isinstance(value, kind):
        found = "is missing" if name not in given else "is of the wrong type"
        raise Malformed(f"'{name}' {found}")
    return value


def _optional(given: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    return None if given.get(name) is None else _member(given, name, kind)
