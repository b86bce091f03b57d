"""Showing how far long work has come."""

from __future__ import annotations

import sys
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told of long work: what is being done, how much is done, and how much there is (0: unknown)."""


def silently(doing: str, done: int, total: int) -> None:
    """Show nothing."""


def on_terminal() -> Progress:
    """A line on stderr that is written over; nothing where that is no terminal."""
    if sys.__stderr__ is None or not sys.__stderr__.isatty():
        return silently
    terminal = sys.__stderr__

    def show(doing: str, done: int, total: int) -> None:
        share = f"{done:,} of {total:,}" if total else f"{done:,}"
        end = "\n" if done == total else ""
        terminal.write(f"\r{doing}: {share}\x1b[K{end}")
        terminal.flush()

    return show
