"""Stream names: the part of a stream's URL after the base path.

A name is the percent-decoded path: segments separated by ``/``. Names are compared without normalisation of letter case
or Unicode forms. ``%2F`` is decoded to a separator like any other.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from attrs import frozen

from dstreams.protocol.problems import InvalidStreamName, NotFound, printable

_PERCENT: Final = ord("%")
_MALFORMED: Final = re.compile(rb"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)


def percent_decode(raw: bytes) -> bytes:
    """Decode every ``%XX`` once; ``+`` is not decoded to a blank.

    :param raw: the encoded bytes.
    :return: the decoded bytes; they need not be UTF-8.
    :raises ValueError: with the offending part, if a ``%`` is not followed by two hexadecimal digits.
    """
    if _PERCENT not in raw:
        return raw
    malformed = _MALFORMED.search(raw)
    if malformed is not None:
        raise ValueError(malformed.group().decode("latin-1"))
    return unquote_to_bytes(raw)


RESERVED_SEGMENT: Final = "__ds"
"""The first segment of names reserved for subscriptions (PROTOCOL section 6); such a name is never a stream."""

_PLAIN: Final = re.compile(
    rb"(?!__ds(?:/|\Z))"
    rb"[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*"
    rb"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)*"
)
"""Matches names without escapes whose segments do not begin with a dot. Only their size remains to be checked."""

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_PATH_SAFE: Final = "/-._~!$&'()*+,;=:@"


@frozen
class NameLimits:
    """The maximum size of a name.

    :param max_bytes: the length of the decoded name in UTF-8 bytes.
    :param max_segments: the number of segments.
    """

    max_bytes: int = 1024
    max_segments: int = 8


def parse_name(raw: bytes, limits: NameLimits) -> str:
    """Return the stream's name in a request path.

    :param raw: the part of the path after ``<base>/``, percent-encoded.
    :param limits: the maximum size of the name.
    :return: the decoded name.
    :raises InvalidStreamName: if it is not a valid name; the detail says why, with actual and allowed values.
    :raises NotFound: if the name is reserved.
    """
    if _PLAIN.fullmatch(raw) and len(raw) <= limits.max_bytes and raw.count(b"/") < limits.max_segments:
        return raw.decode("ascii")
    name = _decode(raw)
    segments = name.split("/")
    if segments[0] == RESERVED_SEGMENT:
        raise NotFound(f"Stream names that begin with the segment '{RESERVED_SEGMENT}' are reserved.")
    _check_segments(name, segments)
    _check_size(name, segments, limits)
    return name


def encode_name(name: str) -> bytes:
    """Encode a name for a URL path, so that :func:`parse_name` returns it again.

    :param name: a valid name.
    :return: the name, percent-encoded except for ``/`` and the characters that RFC 3986 allows in a path segment.
    """
    if name.isascii():
        raw = name.encode("ascii")
        if _PLAIN.fullmatch(raw):
            return raw  # 1 us faster than quote(), which would return the same
    return quote(name, safe=_PATH_SAFE).encode("ascii")


def _decode(raw: bytes) -> str:
    try:
        decoded = percent_decode(raw)
    except ValueError as error:
        raise InvalidStreamName(f"Malformed percent-encoding: {printable(str(error))}.") from None
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidStreamName(f"The stream name is not UTF-8 at byte {error.start}.") from None


def _check_segments(name: str, segments: list[str]) -> None:
    if not name:
        raise InvalidStreamName("The stream name is empty.")
    if name.endswith("/"):
        raise InvalidStreamName("The stream name ends with '/'.")
    if "" in segments:
        raise InvalidStreamName(f"Segment {segments.index('') + 1} of the stream name is empty.")
    for dots in (".", ".."):
        if dots in segments:
            raise InvalidStreamName(
                f"Segment {segments.index(dots) + 1} of the stream name is '{dots}', which is not allowed."
            )
    control = _CONTROL.search(name)
    if control is not None:
        raise InvalidStreamName(
            f"The stream name holds the control character U+{ord(control.group()):04X}; none is allowed."
        )


def _check_size(name: str, segments: list[str], limits: NameLimits) -> None:
    size = len(name.encode("utf-8"))
    if size > limits.max_bytes:
        raise InvalidStreamName(f"The stream name has {size} bytes; at most {limits.max_bytes} are allowed.")
    if len(segments) > limits.max_segments:
        raise InvalidStreamName(
            f"The stream name has {len(segments)} segments; at most {limits.max_segments} are allowed."
        )
