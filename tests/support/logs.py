"""Captures log events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from constantly import NamedConstant
from twisted.logger import LogEvent, globalLogPublisher


@contextmanager
def logged(wanted: Callable[[LogEvent], bool] = lambda _: True) -> Iterator[list[LogEvent]]:
    """The wanted events that are logged meanwhile."""
    found: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if wanted(event):
            found.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield found
    finally:
        globalLogPublisher.removeObserver(observe)


def at_least(level: NamedConstant) -> Callable[[LogEvent], bool]:
    """For :func:`logged`: events of a level and above."""
    return lambda event: bool(event["log_level"] >= level)
