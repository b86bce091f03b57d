"""Offsets: opaque tokens for clients, byte positions for the server (PROTOCOL section 8).

The token has two groups of 16 decimal digits. The first is always zero (reserved for later use). The second is the
position in the stored bytes. Because of the fixed width, tokens sort in the order of their positions.
"""

from __future__ import annotations

from typing import Final

from dstreams.protocol.problems import InvalidOffset, printable

NOW: Final = -1
"""The value that ``parse_offset(b"now")`` returns; it means the tail at the time of the request."""

OFFSET_FORMAT: Final = b"0000000000000000_%016d"
"""The form of an offset, for a position from 0 to 10**16 - 1."""

_PREFIX: Final = b"0000000000000000_"
_LENGTH: Final = 33


def format_offset(position: int) -> bytes:
    """Return a position as a token for clients.

    :param position: bytes from the start of the stream, from 0 to 10**16 - 1.
    :return: the 33-byte token.
    """
    return OFFSET_FORMAT % position


def parse_offset(raw: bytes) -> int:
    """Parse an offset that a client sent.

    :param raw: a token of :func:`format_offset`, ``-1`` for the start, or ``now`` for the tail.
    :return: the position, or :data:`NOW`. It is not checked whether the stream has such a position.
    :raises InvalidOffset: for anything else.
    """
    digits = raw[17:]
    # isdigit() of bytes accepts only ASCII digits.
    if len(raw) == _LENGTH and raw.startswith(_PREFIX) and digits.isdigit():
        return int(digits)
    if raw == b"-1":
        return 0
    if raw == b"now":
        return NOW
    raise InvalidOffset(f"Malformed offset: {printable(raw)}.")
