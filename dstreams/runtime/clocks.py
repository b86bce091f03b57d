"""The two clocks of the server."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import frozen


@frozen
class Clocks:
    """Both clocks, passed as arguments so that tests can replace them.

    :param monotonic: seconds that never go backwards, for durations.
    :param wall: Unix seconds, which an operator or NTP may adjust, for times that clients see.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
