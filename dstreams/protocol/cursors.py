"""Cursors: numbers that keep shared caches from serving one live answer for ever (PROTOCOL section 10.1).

Time is cut into intervals and a cursor is an interval's number. A client sends the last cursor back, and gets
one that is never lower.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

EPOCH: Final = 1728432000
"""Where interval 0 begins: 2024-10-09T00:00:00Z, in Unix seconds."""

INTERVAL_SECONDS: Final = 20
"""The length of an interval in seconds."""

MAX_JITTER_SECONDS: Final = 3600
"""How far a cursor may be put ahead of the one a client sent, in seconds."""

_MAX_DIGITS: Final = 100


def interval(now: float) -> int:
    """The number of the current interval.

    :param now: wall time in Unix seconds.
    :return: a number from 0; 0 also before :data:`EPOCH`, when the clock is plainly wrong.
    """
    return max(0, int((now - EPOCH) // INTERVAL_SECONDS))


def parse_cursor(raw: bytes | None) -> int | None:
    """Read a cursor that a client sent back.

    :param raw: the value of the ``cursor`` parameter, or ``None`` when there is none.
    :return: the number, or ``None`` for anything that isn't one of up to 100 digits: such a cursor was never
        ours, so there is nothing it could go backwards from.
    """
    if raw is None or len(raw) > _MAX_DIGITS or not raw.isdigit():
        return None
    return int(raw)


def next_cursor(client: int | None, current: int, jitter: Callable[[int, int], int] = random.randint) -> int:
    """Choose the cursor of a live answer.

    :param client: the cursor the client sent, if any.
    :param current: the number of the current interval.
    :param jitter: gives a random integer between two bounds, both included.
    :return: the current interval when the client is behind it; otherwise a number above the client's, ahead
        by 1 to 3600 seconds in whole intervals, rounded up.
    """
    if client is None or client < current:
        return current
    return client + -(-jitter(1, MAX_JITTER_SECONDS) // INTERVAL_SECONDS)
