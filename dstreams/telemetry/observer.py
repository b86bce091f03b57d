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
    """Writes the events that pass the filter, those of requests a little later and together.

    Tens of thousands of requests may be answered in a second; a system call for each would cost more than all else
    about them. Every other event is written at once, after the ones before it.

    :param levels: which events are logged.
    :param format: makes a line of an event.
    :param writer: where lines go.
    :param call_later: as the reactor's, but for any thread.
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
        """An event."""
        if event.get("log_namespace") == REQUESTS:
            # Whoever tells of requests has asked the same filter before putting the event together.
            if event["log_level"] is not LogLevel.error or self._repeats.is_new(event):
                self.writer.write_soon(self._format(event))
        elif self._levels.passes(event) and self._repeats.is_new(event):
            self.writer.write(self._format(event))

    def flush(self) -> None:
        """Write what waits, at the end."""
        self._repeats.flush()
        self.writer.flush()
