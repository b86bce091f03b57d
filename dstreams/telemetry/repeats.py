"""Leaves out repeated log lines, so that a full disk, for example, is not filled up by reports about it.

What fails for one request often fails for the next thousand too, and each would be a line. So of the events that
report trouble, ten of a kind are logged immediately, and then one in five seconds, with the number of those that were
left out in between. Metrics count all of them.
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
"""Number of events of a kind that are logged immediately: enough to show what they have in common."""

SECONDS: Final = 5.0
"""Seconds between two reports about further events of a kind."""

MAX_KINDS: Final = 1000
"""Maximum number of kinds that are remembered; beyond that the oldest is forgotten."""

_BARE = re.compile(r"\{[^{}]+\}")
"""A message that is a single placeholder, so that the format says nothing about the event's kind."""

_LOUD = (LogLevel.warn, LogLevel.error, LogLevel.critical)

Kind = tuple[object, ...]


@define(eq=False)
class _Told:
    """What has been logged of a kind.

    :param left: the number of events that could be logged immediately at the time ``at``.
    :param omitted: the number of events left out since the last line, and ``last`` the last of them.
    """

    left: float
    at: float
    omitted: int = 0
    last: LogEvent | None = None


@define(eq=False)
class Repeats:
    """Decides which events are logged. It may be called from any thread.

    :param tell: logs the event that reports how many were left out.
    :param later: calls a function after some seconds; it must be callable from any thread.
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
                # This thread itself is counting: an object that is destroyed meanwhile may log something, such as a
                # Deferred with an unhandled failure.
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
        """Report what was left out since the last time. Return whether there was anything."""
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
        """Return whether an event is to be logged, and whether a report has to be scheduled."""
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
        """Return the number of events of each kind that were left out since the last time, with the last one."""
        omitted, now = [], self._seconds()
        for told in self._kinds.values():
            if told.last is not None:
                omitted.append((told.omitted, told.last))
                # The report itself uses up the line that was allowed in the meantime.
                told.left, told.at, told.omitted, told.last = 0.0, now, 0, None
        self._armed = bool(omitted)
        return omitted

    def _begin(self, now: float) -> _Told:
        """Return a new kind. If there are too many, forget the oldest that has nothing to be reported."""
        if len(self._kinds) >= MAX_KINDS:
            oldest = next((kind for kind, told in self._kinds.items() if not told.omitted), None)
            if oldest is not None:
                del self._kinds[oldest]
        return _Told(AT_ONCE, now)

    def _due(self) -> None:
        if self.flush():
            self._later(SECONDS, self._due)


def _is_limited(event: LogEvent) -> bool:
    """Whether repeated events of this sort are left out: trouble in any part, and Twisted's own reports."""
    level, namespace = event.get("log_level"), event.get("log_namespace") or ""
    if namespace == REQUESTS:
        # Requests that failed because of the client are part of the access record, like successful ones.
        return level is LogLevel.error
    ours = namespace == OURS or namespace.startswith(OURS + ".")
    return level in _LOUD or (level is LogLevel.info and not ours)


def _kind(event: LogEvent) -> Kind:
    """Return a key that is the same for events that report the same thing."""
    namespace, text = event.get("log_namespace") or "", event.get("log_format") or ""
    if namespace == REQUESTS:
        fields = structured(event)
        return namespace, fields.get("ds.operation"), fields.get("ds.error_code"), fields.get("ds.error_class")
    if _BARE.fullmatch(text):
        text = formatEvent(event)
    failure = event.get("log_failure")
    return namespace, event.get("log_level"), text, failure.type if isinstance(failure, Failure) else None


def _summary(omitted: int, last: LogEvent) -> LogEvent:
    """Return the event that reports how many events like ``last`` were left out."""
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
