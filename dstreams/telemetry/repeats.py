"""Leaves out log lines that repeat what has been said: a disk that is full must not be filled up by telling of it.

What goes wrong with one request goes wrong with the next thousand, too, and each would be a line. So of events that
tell of trouble, those of one kind are logged ten times at once and then once in five seconds, with how many there were
in between. Metrics count all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from threading import RLock
from typing import Final

from attrs import define, field
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import qual

from dstreams.telemetry.fields import OURS, REQUESTS, structured

AT_ONCE: Final = 10
"""How many of a kind are logged one after the other: the first ones show what they have in common."""

SECONDS: Final = 5.0
"""How often more of them are told of."""

MAX_KINDS: Final = 1000
"""How many kinds are told apart; then the oldest are forgotten."""

_BARE = re.compile(r"\{[^{}]+\}")
"""A message of which nothing is known but that it has a text."""

_LOUD = (LogLevel.warn, LogLevel.error, LogLevel.critical)

Kind = tuple[object, ...]


@define(eq=False)
class _Told:
    """What was said of a kind.

    :param left: how many more may be logged now, and ``at`` when that was so.
    :param omitted: how many were left out since the last line, and ``last`` the last of them.
    """

    left: float
    at: float
    omitted: int = 0
    last: LogEvent | None = None


@define(eq=False)
class Repeats:
    """Says which events are logged. May be asked by any thread.

    :param tell: logs an event that tells how many were left out.
    :param later: calls a function so many seconds later; any thread may ask for it.
    :param seconds: the monotonic clock.
    """

    _tell: Callable[[LogEvent], object]
    _later: Callable[[float, Callable[[], object]], object]
    _seconds: Callable[[], float] = time.monotonic
    _kinds: dict[Kind, _Told] = field(factory=dict, init=False)
    _lock: RLock = field(factory=RLock, init=False)
    _is_counting: bool = field(default=False, init=False)
    _armed: bool = field(default=False, init=False)

    def is_new(self, event: LogEvent) -> bool:
        """Whether an event is to be logged."""
        if not _is_limited(event):
            return True
        kind, now = _kind(event), self._seconds()
        with self._lock:
            if self._is_counting:
                # This thread's own doing: an object that goes while an event is counted may log its last words, as a
                # Deferred does whose failure nobody handled.
                return True
            self._is_counting = True
            try:
                is_new, arm = self._count(kind, now, event)
            finally:
                self._is_counting = False
        if arm:
            self._later(SECONDS, self._due)
        return is_new

    def flush(self) -> bool:
        """Tell of what was left out since the last time; whether there was anything."""
        with self._lock:
            self._is_counting = True
            try:
                omitted = self._take_omitted()
            finally:
                self._is_counting = False
        for count, last in omitted:
            self._tell(_summary(count, last))
        return bool(omitted)

    def _count(self, kind: Kind, now: float, event: LogEvent) -> tuple[bool, bool]:
        """Whether an event is to be logged, and whether a summary has to be asked for."""
        told = self._kinds.get(kind)
        if told is None:
            told = self._kinds[kind] = self._begin(now)
        told.left = min(AT_ONCE, told.left + (now - told.at) / SECONDS)
        told.at = now
        if told.left >= 1:
            told.left -= 1
            return True, False
        told.omitted += 1
        told.last = event
        arm, self._armed = not self._armed, True
        return False, arm

    def _take_omitted(self) -> list[tuple[int, LogEvent]]:
        """How many of each kind were left out since the last time, and the last of them."""
        omitted, now = [], self._seconds()
        for told in self._kinds.values():
            if told.last is not None:
                omitted.append((told.omitted, told.last))
                # The line that tells of them is the one that was allowed meanwhile.
                told.left, told.at, told.omitted, told.last = 0.0, now, 0, None
        self._armed = bool(omitted)
        return omitted

    def _begin(self, now: float) -> _Told:
        """A kind that is new; the oldest one goes for it, if need be, but none of which something is to be told."""
        if len(self._kinds) >= MAX_KINDS:
            oldest = next((kind for kind, told in self._kinds.items() if not told.omitted), None)
            if oldest is not None:
                del self._kinds[oldest]
        return _Told(AT_ONCE, now)

    def _due(self) -> None:
        if self.flush():
            self._later(SECONDS, self._due)


def _is_limited(event: LogEvent) -> bool:
    """Whether an event may repeat others: trouble of any part, and what Twisted reports of itself."""
    level, namespace = event.get("log_level"), event.get("log_namespace") or ""
    if namespace == REQUESTS:
        # Those that failed by the client's fault are the record of who has asked what, as the successful ones are.
        return level is LogLevel.error
    ours = namespace == OURS or namespace.startswith(OURS + ".")
    return level in _LOUD or (level is LogLevel.info and not ours)


def _kind(event: LogEvent) -> Kind:
    """What events have in common that say the same."""
    namespace, text = event.get("log_namespace") or "", event.get("log_format") or ""
    if namespace == REQUESTS:
        fields = structured(event)
        return namespace, fields.get("ds.operation"), fields.get("ds.error_code"), fields.get("ds.error_class")
    if _BARE.fullmatch(text):
        text = formatEvent(event)
    failure = event.get("log_failure")
    return namespace, event.get("log_level"), text, failure.type if isinstance(failure, Failure) else None


def _summary(omitted: int, last: LogEvent) -> LogEvent:
    """The event that tells how many like ``last`` weren't logged."""
    namespace, text = last.get("log_namespace") or "-", formatEvent(last)
    if namespace == REQUESTS:
        fields = structured(last)
        known = [str(fields[name]) for name in ("ds.operation", "ds.error_code") if name in fields]
        text = f"{text} ({', '.join(known)})"
    failure = last.get("log_failure")
    if isinstance(failure, Failure) and failure.type is not None:
        text = f"{text}: {qual(failure.type)}: {failure.getErrorMessage()}"
    return {
        "log_level": last.get("log_level"),
        "log_namespace": "dstreams.telemetry",
        "log_time": time.time(),
        "log_format": "{count} more were left out of: {logger}: {text}",
        "count": omitted,
        "logger": namespace,
        "text": text,
    }
