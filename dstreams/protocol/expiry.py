"""The headers that make streams expire: ``Stream-TTL`` and ``Stream-Expires-At`` (PROTOCOL section 5.1)."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from dstreams.protocol.headers import STREAM_TTL, parse_integer
from dstreams.protocol.problems import BadRequest, printable

_DATE_TIME: Final = re.compile(
    rb"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    rb"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
"""RFC 3339 section 5.6, with fractions of up to nine digits (nanoseconds)."""

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_SECONDS: Final = 86400
_FIRST: Final = (1 - _UNIX_EPOCH_DAY) * _DAY_SECONDS
_END: Final = (date.max.toordinal() + 1 - _UNIX_EPOCH_DAY) * _DAY_SECONDS
"""With ``_FIRST`` the range that the format can express: from the first second of year 1 to the first after year 9999,
in UTC."""
_LATEST: Final = math.nextafter(_END, 0.0)


def parse_ttl(raw: bytes) -> int:
    """Parse ``Stream-TTL``.

    :param raw: the header's value.
    :return: the seconds without a read or write after which the stream expires; with 0 it expires immediately.
    :raises BadRequest: if the value is not a plain decimal integer.
    """
    return parse_integer(STREAM_TTL, raw)


def parse_expires_at(raw: bytes) -> float:
    """Parse ``Stream-Expires-At``.

    :param raw: the header's value: an RFC 3339 date and time with ``Z`` or a numeric offset, in the years 1 to 9999.
        The leap second 23:59:60 UTC counts as the last moment of the second before.
    :return: Unix seconds.
    :raises BadRequest: if the value is not such a date and time.
    """
    match = _DATE_TIME.fullmatch(raw)
    seconds = None if match is None else _to_unix(match)
    if seconds is None:
        raise BadRequest(
            f"Invalid header value for Stream-Expires-At: {printable(raw)}"
            " is not an RFC 3339 timestamp such as 2030-01-31T12:00:00Z."
        )
    return seconds


def format_expires_at(seconds: float) -> bytes:
    """Return a time in the format of RFC 3339, in UTC.

    :param seconds: Unix seconds, in the years 1 to 9999.
    :return: the time with milliseconds, or else microseconds, if :func:`parse_expires_at` converts that back to the
        same number; otherwise with nanoseconds.
    """
    whole = math.floor(seconds)
    fraction = seconds - whole
    digits = next((few for few in (3, 6) if whole + round(fraction, few) == seconds), 9)
    carry, parts = divmod(round(fraction * 10**digits), 10**digits)
    moment = _UNIX_EPOCH + timedelta(seconds=whole + carry)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}.{parts:0{digits}d}Z".encode("ascii")


def _to_unix(match: re.Match[bytes]) -> float | None:
    """Return the Unix seconds of a matched timestamp, or ``None`` if that date or time does not exist."""
    year, month, day, hour, minute, second = (int(match.group(number)) for number in range(1, 7))
    sign, offset_hour, offset_minute = match.group(8), int(match.group(9) or 0), int(match.group(10) or 0)
    if hour > 23 or minute > 59 or second > 60 or offset_hour > 23 or offset_minute > 59:
        return None
    try:
        days = date(year, month, day).toordinal() - _UNIX_EPOCH_DAY
    except ValueError:
        return None
    offset = (offset_hour * 60 + offset_minute) * 60
    whole = days * _DAY_SECONDS + hour * 3600 + minute * 60 + second - (-offset if sign == b"-" else offset)
    fraction = int((match.group(7) or b"").ljust(9, b"0")) / 1e9
    if second == 60:
        if whole % _DAY_SECONDS != 0:
            return None
        whole, fraction = whole - 1, 0.999999
    if not _FIRST <= whole < _END:
        return None
    # The last fractions of year 9999 would be rounded up to a year that the format cannot express.
    return min(whole + fraction, _LATEST)
