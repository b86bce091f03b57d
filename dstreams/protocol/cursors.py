"""Cursors: numbers that prevent shared caches from serving the same live response for ever (PROTOCOL section 10.1).

Time is divided into intervals, and a cursor is the number of an interval. A client sends its last cursor back, and
gets one that is never lower.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

EPOCH: Final = 1728432000
"""The start of interval 0, in Unix seconds: 2024-10-09T00:00:00Z."""

INTERVAL_SECONDS: Final = 20
"""The length of an interval in seconds."""

MAX_JITTER_SECONDS: Final = 3600
"""Maximum seconds by which a new cursor is ahead of the one that a client sent."""

_MAX_DIGITS: Final = 100


def interval(now: float) -> int:
    """Return the number of the current interval.

    :param now: wall time in Unix seconds.
    :return: a number from 0. It is also 0 before :data:`EPOCH`, where the clock must be wrong.
    """
    return max(0, int((now - EPOCH) // INTERVAL_SECONDS))


def parse_cursor(raw: bytes | None) -> int | None:
    """Parse a cursor that a client sent back.

    :param raw: the value of the ``cursor`` parameter, or ``None`` if there is none.
    :return: the number, or ``None`` for anything but a number of up to 100 digits. This server never sent such a
        cursor, so the next one need not be higher.
    """
    if raw is None or len(raw) > _MAX_DIGITS or not raw.isdigit():
        return None
    return int(raw)


def next_cursor(client: int | None, current: int, jitter: Callable[[int, int], int] = random.randint) -> int:
    """Return the cursor for a live response.

    :param client: the cursor that the client sent, if any.
    :param current: the number of the current interval.
    :param jitter: returns a random integer between two bounds, both included.
    :return: the current interval, if the client's cursor is lower or missing; otherwise a number higher than the
        client's, by 1 to 3600 seconds in whole intervals, rounded up.
    """
    if client is None or client < current:
        return current
    return client + -(-jitter(1, MAX_JITTER_SECONDS) // INTERVAL_SECONDS)
