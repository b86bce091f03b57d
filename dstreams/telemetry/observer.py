"""The log observer: filters, formats and writes events."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from dstreams.telemetry.fields import REQUESTS
from dstreams.telemetry.levels import LevelFilter
from dstreams.telemetry.lines import LineWriter
from dstreams.telemetry.repeats import Repeats


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
