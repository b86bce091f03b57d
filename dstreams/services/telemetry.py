"""Measures the reactor while the server runs."""

from __future__ import annotations

from twisted.application.service import Service

from dstreams.telemetry.lag import ReactorLag


class TelemetryService(Service):
    """The first to start and the last to stop.

    :param lag: measures the reactor, ``None`` when nobody wants to know.
    """

    name: str | None = "telemetry"

    def __init__(self, lag: ReactorLag | None) -> None:
        self._lag = lag

    def startService(self) -> None:
        """Begin to measure."""
        super().startService()
        if self._lag is not None:
            self._lag.start()

    def stopService(self) -> None:
        """Measure no more."""
        super().stopService()
        if self._lag is not None:
            self._lag.stop()
