"""The query parameters of a read: ``offset``, ``live`` and ``cursor`` (PROTOCOL sections 5.6 to 5.8)."""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import define

from dstreams.protocol.cursors import parse_cursor
from dstreams.protocol.names import percent_decode
from dstreams.protocol.offsets import parse_offset
from dstreams.protocol.problems import BadRequest, printable


class Live(Enum):
    """How a reader waits for data that does not exist yet."""

    LONG_POLL = "long-poll"
    SSE = "sse"


@define
class ReadQuery:
    """The parsed query of a read.

    :param offset: the position to read from, or :data:`~dstreams.protocol.offsets.NOW`; ``None`` if the parameter is
        absent, which means the start.
    :param live: how to wait at the tail; ``None`` for a catch-up read.
    :param cursor: the cursor that the client sent back, if any.
    """

    offset: int | None = None
    live: Live | None = None
    cursor: int | None = None


_LIVE: Final = {b"long-poll": Live.LONG_POLL, b"sse": Live.SSE}
_KNOWN: Final = frozenset((b"offset", b"live", b"cursor"))
_AMPERSAND: Final = ord("&")
_PERCENT: Final = ord("%")


def parse_read_query(query: bytes) -> ReadQuery:
    """Parse the query of a GET.

    :param query: the part of the request's target after ``?``, percent-encoded; may be empty.
    :return: the parsed query. Parameters with other names are ignored.
    :raises InvalidOffset: if the offset is malformed.
    :raises BadRequest: if a parameter is repeated or malformed, or if ``live`` has an unknown value or comes without
        an offset.
    """
    if not query:
        return ReadQuery()
    if query[:7] == b"offset=" and _AMPERSAND not in query and _PERCENT not in query:
        return ReadQuery(parse_offset(query[7:]))
    values = _known_values(query)
    offset, live = values.get(b"offset"), values.get(b"live")
    parsed = ReadQuery(
        None if offset is None else parse_offset(offset),
        None if live is None else _parse_live(live),
        parse_cursor(values.get(b"cursor")),
    )
    if live is not None and offset is None:
        raise BadRequest("A live read needs the parameter 'offset'.")
    return parsed


def _known_values(query: bytes) -> dict[bytes, bytes]:
    """Return the decoded values of the parameters that are used here, by name.

    :raises BadRequest: if one of them is repeated or malformed.
    """
    values: dict[bytes, bytes] = {}
    for parameter in query.split(b"&"):
        name, _, value = parameter.partition(b"=")
        if _PERCENT in parameter:
            name = _decode_name(name)
        if name not in _KNOWN:
            continue
        if name in values:
            raise BadRequest(f"The parameter '{name.decode('ascii')}' is repeated.")
        values[name] = _decode_value(name, value) if _PERCENT in value else value
    return values


def _decode_name(name: bytes) -> bytes:
    try:
        return percent_decode(name)
    except ValueError:
        return name  # it cannot be one of the parameters used here


def _decode_value(name: bytes, value: bytes) -> bytes:
    try:
        return percent_decode(value)
    except ValueError as error:
        raise BadRequest(
            f"Malformed percent-encoding in the parameter '{name.decode('ascii')}': {printable(str(error))}."
        ) from None


def _parse_live(value: bytes) -> Live:
    live = _LIVE.get(value)
    if live is None:
        raise BadRequest(f"Unknown value of the parameter 'live': {printable(value)}; use long-poll or sse.")
    return live
