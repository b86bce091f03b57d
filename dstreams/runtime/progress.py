"""Progress reports for long-running work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is in total (0 if unknown)."""


INTERVAL = 0.1
"""Minimum seconds between two updates of the line. Callers may report more often."""


def silently(doing: str, done: int, total: int) -> None:
    """Show no progress."""


def on_terminal() -> Progress:
    """Return a function that shows progress on one line of stderr, or nothing if stderr is not a terminal."""
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
    """Clear the progress line of work that was aborted, so that later output is readable."""
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        sys.__stderr__.write("\r\x1b[K")
