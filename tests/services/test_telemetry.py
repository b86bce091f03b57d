"""What is measured while the server runs, and where its log goes."""

from __future__ import annotations

from twisted.application.service import Application, MultiService
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from dstreams.services.telemetry import TelemetryService
from dstreams.services.tree import ServerService
from dstreams.telemetry.lag import ReactorLag


class TelemetryServiceTests:
    """The lag and the last lines."""

    def test_measures(self) -> None:
        """The reactor's lag is measured from the start to the stop."""
        clock = Clock()
        lag = ReactorLag(clock)
        service = TelemetryService(lag)
        assert not clock.getDelayedCalls()
        service.startService()
        clock.advance(1)
        assert lag.seconds.count == 1
        service.stopService()
        assert not clock.getDelayedCalls()

    def test_without_metrics(self) -> None:
        """Where nobody wants to know nothing is measured."""
        service = TelemetryService(None)
        service.startService()
        service.stopService()


@implementer(ILogObserver)
def observe(event: LogEvent) -> None:
    """Takes events."""


class LogObserverTests:
    """How twistd learns of our observer."""

    def server(self) -> ServerService:
        return ServerService([], lambda error: None)

    def test_application(self) -> None:
        """The application that the server joins has the observer, made at that moment."""
        server, application, made = self.server(), Application("test"), []

        def make() -> ILogObserver:
            made.append(1)
            return observe

        server.log_observer = make
        assert not made
        server.setServiceParent(application)
        assert application.getComponent(ILogObserver) is observe

    def test_no_observer(self) -> None:
        """Without one, the application has none, and twistd logs as it does anyway."""
        application = Application("test")
        self.server().setServiceParent(application)
        assert application.getComponent(ILogObserver, None) is None

    def test_other_parents(self) -> None:
        """A parent that is no application is joined as always."""
        server, parent = self.server(), MultiService()
        server.log_observer = lambda: observe
        server.setServiceParent(parent)
        assert list(parent) == [server]
