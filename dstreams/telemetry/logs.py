"""Writes log events: which ones (levels), how (text), and where (the observer)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, formatTime
from zope.interface import implementer

from dstreams.config.log_filter import LEVELS, LogFilter
from dstreams.config.problems import printable, printable_lines
from dstreams.telemetry.fields import REQUESTS, structured
from dstreams.telemetry.lines import LineWriter
from dstreams.telemetry.repeats import Repeats

_RANK: Final = {word: rank for rank, word in enumerate(LEVELS)}


@define(eq=False)
class LevelFilter:
    """Applies a configured filter, and caches its level for each namespace.

    :param chosen: the value of ``observability.log_filter``.
    """

    _chosen: LogFilter
    _least: dict[str, int] = field(factory=dict, init=False)

    def passes(self, event: LogEvent) -> bool:
        """Whether an event is logged. One without a level counts as ``info``, as in Twisted."""
        level = event.get("log_level")
        return self.logs(event.get("log_namespace") or "", "info" if level is None else level.name)

    def logs(self, namespace: str, level: str) -> bool:
        """Whether events of this namespace and level are logged."""
        least = self._least.get(namespace)
        if least is None:
            least = self._least[namespace] = _RANK[self._chosen.level(namespace)]
        return _RANK[level] >= least


assert {level.name for level in LogLevel.iterconstants()} == {*LEVELS} - {"off"}


_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""Text that needs no quotes: printable ASCII without space, quote, ``=`` and backslash."""


def text_line(event: LogEvent, *, timestamp: bool = True) -> bytes:
    """Format one event; only a traceback takes more than one line.

    :param timestamp: whether the line begins with the time; false if the log's destination, such as syslog, adds it.
    """
    if event.get("log_namespace") == REQUESTS:
        text = event["log_format"]
    else:
        text = printable_lines(eventAsText(event, includeTimestamp=False, includeSystem=False))
    level = event.get("log_level")
    source = f"[{event.get('log_namespace') or '-'}#{'info' if level is None else level.name}] "
    begin = f"{formatTime(event.get('log_time'))} {source}" if timestamp else source
    text = text.rstrip("\n")  # a traceback ends with one
    pairs = "".join(f" {name}={_shown(value)}" for name, value in structured(event).items())
    return f"{begin}{text}{pairs}\n".encode("utf-8", "replace")


def _shown(value: object) -> str:
    """Format a value on one line, without characters that a terminal might interpret."""
    text = str(value)
    return text if _BARE.fullmatch(text) else printable(json.dumps(text))


@implementer(ILogObserver)
@frozen(eq=False)
class LogObserver:
    """Writes the events that pass the filter; access log events are written later, several at a time.

    The server may answer tens of thousands of requests in a second, and a system call for each would cost more than
    everything else about its log line. All other events are written immediately, after those before them.

    :param levels: selects the events that are logged.
    :param format: formats an event as a line.
    :param writer: writes the lines.
    :param call_later: like the reactor's method, but callable from any thread.
    """

    _levels: LevelFilter
    _format: Callable[[LogEvent], bytes]
    writer: LineWriter
    _call_later: Callable[[float, Callable[[], object]], object]
    _repeats: Repeats = field(init=False)

    @_repeats.default
    def _begin(self) -> Repeats:
        return Repeats(lambda event: self.writer.write(self._format(event)), self._call_later)

    def __call__(self, event: LogEvent) -> None:
        """Log an event."""
        if event.get("log_namespace") == REQUESTS:
            # The access log has applied the level filter before it built the event.
            if event["log_level"] is not LogLevel.error or self._repeats.is_new(event):
                self.writer.write_soon(self._format(event))
        elif self._levels.passes(event) and self._repeats.is_new(event):
            self.writer.write(self._format(event))

    def flush(self) -> None:
        """Write everything that is pending, at shutdown."""
        self._repeats.flush()
        self.writer.flush()
