"""The two times a server lives by."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import frozen


@frozen
class Clocks:
    """Both clocks, so that tests can give their own.

    :param monotonic: seconds that only ever go forward: for everything that is a duration.
    :param wall: Unix seconds, which an operator or NTP may set: for points in time that clients name.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
