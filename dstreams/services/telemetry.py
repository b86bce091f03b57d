"""Measures the reactor while the server runs, and exports traces."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dstreams.storage.sync import Run, run_inline
from dstreams.telemetry.lag import ReactorLag
from dstreams.telemetry.traces import Traces

_log = Logger()


class TelemetryService(Service):
    """The first to start and the last to stop.

    :param lag: measures the reactor, ``None`` when nobody wants to know.
    :param traces: takes the spans of requests, ``None`` when nobody wants them.
    :param run: runs a function in a thread.
    """

    name: str | None = "telemetry"

    def __init__(self, lag: ReactorLag | None, traces: Traces | None = None, run: Run = run_inline) -> None:
        self._lag = lag
        self._traces = traces
        self._run = run

    def startService(self) -> None:
        """Begin to measure and to export."""
        super().startService()
        if self._lag is not None:
            self._lag.start()
        if self._traces is not None:
            self._traces.start()
            _log.info("traces: exported by OTLP over HTTP")

    def stopService(self) -> Deferred[None] | None:
        """Measure no more; fires when the last spans are exported, or can't be."""
        super().stopService()
        if self._lag is not None:
            self._lag.stop()
        return None if self._traces is None else self._run(self._traces.stop)
