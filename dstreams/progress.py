"""Showing how far long work has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told of long work: what is being done, how much is done, and how much there is (0: unknown)."""


INTERVAL = 0.1
"""Seconds from one line to the next; whoever has news more often need not care."""


def silently(doing: str, done: int, total: int) -> None:
    """Show nothing."""


def on_terminal() -> Progress:
    """A line on stderr that is written over; nothing where that is no terminal."""
    if sys.__stderr__ is None or not sys.__stderr__.isatty():
        return silently
    terminal = sys.__stderr__
    last = 0.0

    def show(doing: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done != total and now - last < INTERVAL:
            return
        last = now
        share = f"{done:,} of {total:,}" if total else f"{done:,}"
        end = "\n" if done == total else ""
        terminal.write(f"\r{doing}: {share}\x1b[K{end}")
        terminal.flush()

    return show


def interrupted() -> None:
    """Clear the line of work that won't be finished, so that what comes next can be read."""
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        sys.__stderr__.write("\r\x1b[K")
