"""Measures the reactor's lag and exports traces while the server runs."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dstreams.runtime.threads import Run, run_inline
from dstreams.telemetry.lag import ReactorLag
from dstreams.telemetry.traces import Traces

_log = Logger()


class TelemetryService(Service):
    """Starts and stops the measurement of lag and the export of traces. First to start and last to stop.

    :param lag: measures the reactor's lag, if wanted.
    :param traces: exports the spans of requests, if wanted.
    :param run: runs a function in a thread.
    """

    name: str | None = "telemetry"

    def __init__(self, lag: ReactorLag | None, traces: Traces | None = None, run: Run = run_inline) -> None:
        self._lag = lag
        self._traces = traces
        self._run = run

    def startService(self) -> None:
        """Start to measure and to export."""
        super().startService()
        if self._lag is not None:
            self._lag.start()
        if self._traces is not None:
            self._traces.start()
            _log.info("traces: exported by OTLP over HTTP")

    def stopService(self) -> Deferred[None] | None:
        """Stop measuring; fires when the last spans have been exported, or cannot be."""
        super().stopService()
        if self._lag is not None:
            self._lag.stop()
        return None if self._traces is None else self._run(self._traces.stop)
