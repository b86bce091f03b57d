"""The service tree: order, waiting, failures, and what an operator is told."""

from __future__ import annotations

import atexit
import io
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
from attrs import define, evolve, field
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dstreams import __version__
from dstreams.config import Config
from dstreams.runtime.progress import Progress
from dstreams.runtime.shutdown import ShutdownDeadline
from dstreams.runtime.startup import StartupError, StartupPhase
from dstreams.services.configuration import ConfigService
from dstreams.services.ending import end_process
from dstreams.services.listeners import Listener, resolve_listeners
from dstreams.services.notify import Notifier
from dstreams.services.parts import Readiness, SiteParts
from dstreams.services.site import SiteService
from dstreams.services.storage import StorageService
from dstreams.services.tree import ServerService
from dstreams.storage.interface import StorageError

CONFIG = Config()
FAILURE = StartupError(StartupPhase.BIND_LISTENER, "failed to bind 127.0.0.1:1: in use")


class FakeChild(Service):
    """Writes down when it is started and stopped, and takes as long as the test wants."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self.name = name
        self.journal = journal
        self.starting: Deferred[None] = succeed(None)
        self.stopping: Deferred[None] = succeed(None)

    def startService(self) -> Deferred[None]:
        self.journal.append(f"start {self.name}")
        return self.starting

    def stopService(self) -> Deferred[None]:
        self.journal.append(f"stop {self.name}")
        return self.stopping


class ServerServiceTests(SynchronousTestCase):
    """The parent service starts its children in order and stops them in reverse."""

    def setUp(self) -> None:
        self.journal: list[str] = []
        self.failures: list[StartupError] = []
        self.children = [FakeChild(name, self.journal) for name in ("config", "storage", "site")]
        self.server = ServerService(self.children, self.failures.append)

    def test_starts_in_order(self) -> None:
        """Children start one after the other."""
        self.server.startService()
        assert self.journal == ["start config", "start storage", "start site"]
        assert self.failures == []

    def test_waits_for_start(self) -> None:
        """A child starts only when the one before it has started."""
        self.children[1].starting = Deferred()
        self.server.startService()
        assert self.journal == ["start config", "start storage"]
        self.children[1].starting.callback(None)
        assert self.journal == ["start config", "start storage", "start site"]

    def test_stops_in_reverse_and_waits(self) -> None:
        """At the end each child stops only when the one after it has stopped."""
        self.server.startService()
        self.journal.clear()
        self.children[2].stopping = Deferred()
        stopped = self.server.stopService()
        assert self.journal == ["stop site"]
        self.assertNoResult(stopped)
        self.children[2].stopping.callback(None)
        assert self.journal == ["stop site", "stop storage", "stop config"]
        self.successResultOf(stopped)

    def test_failing_stop(self) -> None:
        """A child that fails to stop is logged, and the others are stopped all the same."""
        self.server.startService()
        self.children[2].stopping = Deferred()
        stopped = self.server.stopService()
        self.children[2].stopping.errback(ValueError("stuck"))
        self.successResultOf(stopped)
        assert self.journal[-2:] == ["stop storage", "stop config"]
        assert len(self.flushLoggedErrors(ValueError)) == 1

    def test_failing_start(self) -> None:
        """When a child can't start, those before it are stopped and the reason is told, once."""
        self.children[2].starting = Deferred()
        self.server.startService()
        self.children[2].starting.errback(FAILURE)
        assert self.journal[3:] == ["stop storage", "stop config"]
        assert self.failures == [FAILURE]

    def test_failure_is_told_after_stopping(self) -> None:
        """The reason is told only when everything that had started has stopped again."""
        self.children[1].stopping = Deferred()
        self.children[2].starting = Deferred()
        self.server.startService()
        self.children[2].starting.errback(FAILURE)
        assert self.failures == []
        self.children[1].stopping.callback(None)
        assert self.failures == [FAILURE]

    def test_stop_after_failing_start(self) -> None:
        """After a failed start there is nothing left to stop."""
        self.children[1].starting = Deferred()
        self.server.startService()
        self.children[1].starting.errback(FAILURE)
        self.journal.clear()
        self.successResultOf(self.server.stopService())
        assert self.journal == []

    def test_unexpected_error(self) -> None:
        """An error that nobody foresaw is logged in full, and told as one line."""
        self.children[0].starting = Deferred()
        self.server.startService()
        self.children[0].starting.errback(KeyError("x"))
        assert [str(error) for error in self.failures] == ["[start_server] KeyError: 'x'"]
        assert len(self.flushLoggedErrors(KeyError)) == 1

    def test_raises(self) -> None:
        """For a daemon, an error that is known at once is logged and raised, and not told."""
        server = ServerService(self.children, self.failures.append, raises=True)
        self.children[2].starting = Deferred()
        self.children[2].starting.errback(FAILURE)
        with (
            capturedLogs() as events,
            pytest.raises(StartupError, match=r"^\[bind_listener\] failed to bind"),
        ):
            server.startService()
        assert [(event["log_level"], formatEvent(event)) for event in events] == [(LogLevel.critical, str(FAILURE))]
        assert self.journal[-2:] == ["stop storage", "stop config"]
        assert self.failures == []

    def test_late_failure_of_a_daemon(self) -> None:
        """For a daemon, an error that comes later is told."""
        server = ServerService(self.children, self.failures.append, raises=True)
        self.children[1].starting = Deferred()
        server.startService()
        self.children[1].starting.errback(FAILURE)
        assert self.failures == [FAILURE]

    def test_stop_while_starting(self) -> None:
        """A stop gives up the start that is under way and stops what had started."""
        self.children[1].starting = Deferred()
        self.server.startService()
        stopped = self.server.stopService()
        self.successResultOf(stopped)
        assert self.journal == ["start config", "start storage", "stop config"]
        assert self.failures == []

    def test_start_again(self) -> None:
        """After a stop the server can be started again."""
        self.server.startService()
        self.successResultOf(self.server.stopService())
        self.journal.clear()
        self.server.startService()
        assert self.journal == ["start config", "start storage", "start site"]


@define
class FakeEngine:
    """An engine that writes down what is asked of it."""

    journal: list[str] = field(factory=list)
    opening: Callable[[], Deferred[None] | None] = lambda: None
    failure: str | None = None

    def open(self, progress: Progress) -> Deferred[None] | None:
        self.journal.append("open")
        return self.opening()

    def end_live(self) -> None:
        self.journal.append("end live readers")

    def close(self) -> Deferred[None] | None:
        self.journal.append("close")
        return None


@define
class FakeConnections:
    """Connections that end when the test says so."""

    journal: list[str]
    drained: Deferred[None] = field(factory=Deferred)

    def retire(self) -> None:
        self.journal.append("retire")

    def drain(self) -> Deferred[None]:
        self.journal.append("drain")
        self.drained = Deferred()
        return self.drained

    def abort(self) -> None:
        self.journal.append("abort")


class StorageServiceTests(SynchronousTestCase):
    """Storage is opened at the start and closed at the end."""

    def test_opens_and_closes(self) -> None:
        """The service opens the engine, says so, and closes it."""
        engine = FakeEngine()
        service = StorageService(CONFIG, engine, Notifier())
        with capturedLogs() as events:
            self.successResultOf(service.startService())
        assert [formatEvent(event) for event in events] == [
            "storage: memory, up to 104857600 bytes, 10485760 bytes per stream"
        ]
        self.successResultOf(service.stopService())
        assert engine.journal == ["open", "close"]

    def test_waits_for_open(self) -> None:
        """An engine that takes its time is waited for."""
        opening: Deferred[None] = Deferred()
        starting = StorageService(CONFIG, FakeEngine(opening=lambda: opening), Notifier()).startService()
        self.assertNoResult(starting)
        opening.callback(None)
        self.successResultOf(starting)

    def test_failure(self) -> None:
        """A storage that can't be opened fails in the phase start_server, with the reason."""

        def fail() -> None:
            raise StorageError("the directory is in use; stop the other server")

        starting = StorageService(CONFIG, FakeEngine(opening=fail), Notifier()).startService()
        error = self.failureResultOf(starting, StartupError).value
        assert str(error) == (
            "[start_server] failed to open memory storage: the directory is in use; stop the other server"
        )


@define
class FakePort:
    """A port that writes down when it is closed."""

    journal: list[str]

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)

    def stopListening(self) -> None:
        self.journal.append("close the port")


class ListeningReactor(MemoryReactorClock):
    """Listens wherever it is told to."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__()
        self.journal = journal

    def listenTCP(self, *args: Any, **kwargs: Any) -> IListeningPort:
        super().listenTCP(*args, **kwargs)
        return cast("IListeningPort", FakePort(self.journal))


class RefusingReactor(MemoryReactorClock):
    """Can't listen anywhere."""

    def listenTCP(self, *args: Any, **kwargs: Any) -> IListeningPort:
        raise CannotListenError("127.0.0.1", 80, OSError(13, "Permission denied"))


@implementer(IStreamServerEndpoint, IListeningPort)
@define(eq=False)
class FakeEndpoint:
    """An endpoint, and the port that it opens."""

    name: str
    journal: list[str]
    address: IAddress = field(factory=lambda: IPv4Address("TCP", "0.0.0.0", 80))
    error: Exception | None = None
    factory: object = None

    def listen(self, protocolFactory: object) -> Deferred[IListeningPort]:  # noqa: N803
        self.journal.append(f"listen {self.name}")
        self.factory = protocolFactory
        return fail(self.error) if self.error is not None else succeed(cast("IListeningPort", self))

    def startListening(self) -> None:  # noqa: N802
        """Unused: an endpoint's port listens already."""

    def stopListening(self) -> Deferred[None]:
        self.journal.append(f"stop {self.name}")
        return succeed(None)

    def getHost(self) -> IAddress:
        return self.address


class SiteServiceTests(SynchronousTestCase):
    """The site listens, and at the end lets clients finish."""

    def setUp(self) -> None:
        self.journal: list[str] = []
        self.reactor: MemoryReactorClock = ListeningReactor(self.journal)
        self.readiness = Readiness()
        self.shutdown = ShutdownDeadline(self.reactor)
        self.connections = FakeConnections(self.journal)

    def site(self, *, bind_address: str = "127.0.0.1:8080", grace: int = 30, delay: int = 0) -> SiteService:
        """A site over fakes."""
        server = evolve(CONFIG.server, bind_address=bind_address, shutdown_grace_secs=grace, drain_delay_secs=delay)
        parts = SiteParts(FakeEngine(self.journal), Factory(), self.connections)
        config = evolve(CONFIG, server=server)
        listeners = resolve_listeners(config, self.reactor)
        return SiteService(config, parts, listeners, self.readiness, self.shutdown, cast("Any", self.reactor))

    def site_on(self, *endpoints: FakeEndpoint) -> SiteService:
        """A site that listens on several endpoints."""
        parts = SiteParts(FakeEngine(self.journal), Factory(), self.connections)
        listeners = [Listener(endpoint.name, endpoint) for endpoint in endpoints]
        return SiteService(CONFIG, parts, listeners, self.readiness, self.shutdown, cast("Any", self.reactor))

    def test_listens(self) -> None:
        """It binds the configured address and is ready then."""
        assert not self.readiness()
        self.successResultOf(self.site(bind_address="127.0.0.1:8080").startService())
        ((port, _, _, interface),) = self.reactor.tcpServers
        assert (interface, port) == ("127.0.0.1", 8080)
        assert self.readiness()

    def test_announces(self) -> None:
        """One line each tells the address and the URLs for health, readiness and the protocol."""
        with capturedLogs() as events:
            self.successResultOf(self.site(bind_address="127.0.0.1:8080").startService())
        ours = [formatEvent(event) for event in events if event["log_namespace"] == "dstreams.services.site"]
        assert ours == [
            "listening on 127.0.0.1:8080",
            "health: http://127.0.0.1:8080/healthz",
            "readiness: http://127.0.0.1:8080/readyz",
            "protocol: http://127.0.0.1:8080/v1/stream",
        ]

    def test_bind_failure(self) -> None:
        """A port that can't be bound fails in the phase bind_listener, with address and reason."""
        self.reactor = RefusingReactor()
        starting = self.site(bind_address="127.0.0.1:80").startService()
        error = self.failureResultOf(starting, StartupError).value
        assert str(error) == "[bind_listener] failed to bind 127.0.0.1:80: Permission denied"
        assert not self.readiness()

    def test_several(self) -> None:
        """Every endpoint is listened on, serves the same, has its line, and is closed at the end."""
        one = FakeEndpoint("one", self.journal)
        two = FakeEndpoint("two", self.journal, UNIXAddress(b"/run/ds.sock"))
        site = self.site_on(one, two)
        with capturedLogs() as events:
            self.successResultOf(site.startService())
        assert one.factory is two.factory
        ours = [formatEvent(event) for event in events if event["log_namespace"] == "dstreams.services.site"]
        assert ours == [
            "listening on 0.0.0.0:80",
            "listening on unix:/run/ds.sock",
            "health: http://127.0.0.1:80/healthz",
            "readiness: http://127.0.0.1:80/readyz",
            "protocol: http://127.0.0.1:80/v1/stream",
        ]
        self.journal.clear()
        self.assertNoResult(site.stopService())
        assert self.journal[:3] == ["retire", "stop two", "stop one"]

    def test_one_of_several_fails(self) -> None:
        """An endpoint that can't be bound is named, and those bound before it are closed again."""
        one = FakeEndpoint("one", self.journal)
        refused = CannotListenError(None, "/run/ds.sock", OSError(13, "Permission denied"))
        two = FakeEndpoint("unix:/run/ds.sock", self.journal, error=refused)
        error = self.failureResultOf(self.site_on(one, two).startService(), StartupError).value
        assert str(error) == "[bind_listener] failed to bind unix:/run/ds.sock: Permission denied"
        assert self.journal == ["listen one", "listen unix:/run/ds.sock", "stop one"]
        assert not self.readiness()

    def test_stops_in_order(self) -> None:
        """Connections are told to finish before live readers end, and the service waits for them."""
        site = self.site()
        self.successResultOf(site.startService())
        stopping = site.stopService()
        assert self.journal == ["retire", "close the port", "drain", "end live readers"]
        assert not self.readiness()
        self.assertNoResult(stopping)
        self.connections.drained.callback(None)
        self.successResultOf(stopping)
        self.reactor.advance(31)
        assert self.journal == ["retire", "close the port", "drain", "end live readers"]

    def test_grace_time(self) -> None:
        """Connections that are left when the grace time is over are cut, and waited for."""
        site = self.site(grace=5)
        self.successResultOf(site.startService())
        stopping = site.stopService()
        self.reactor.advance(4.9)
        assert "abort" not in self.journal
        self.reactor.advance(0.2)
        assert self.journal == ["retire", "close the port", "drain", "end live readers", "abort", "drain"]
        self.assertNoResult(stopping)
        self.connections.drained.callback(None)
        self.successResultOf(stopping)

    def test_drain_delay(self) -> None:
        """After a delay only is the port closed; until then the server isn't ready, and every answer is a last one."""
        site = self.site(delay=10)
        self.successResultOf(site.startService())
        stopping = site.stopService()
        assert not self.readiness()
        self.reactor.advance(9.9)
        assert self.journal == ["retire"]
        self.reactor.advance(0.2)
        assert self.journal == ["retire", "close the port", "drain", "end live readers"]
        self.connections.drained.callback(None)
        self.successResultOf(stopping)

    def test_lost_patience(self) -> None:
        """Without patience nothing is waited for but the connections' real end."""
        site = self.site(delay=10)
        self.successResultOf(site.startService())
        stopping = site.stopService()
        self.shutdown.lose()
        assert self.journal == ["retire", "close the port", "drain", "end live readers", "abort", "drain"]
        self.connections.drained.callback(None)
        self.successResultOf(stopping)


class ConfigServiceTests(SynchronousTestCase):
    """At the start the version and the configuration's warnings are logged."""

    def lines(self, *warnings: str) -> list[tuple[LogLevel, str]]:
        """What is logged at the start."""
        with capturedLogs() as events:
            ConfigService(object(), warnings).startService()
        return [(event["log_level"], formatEvent(event)) for event in events]

    def test_version(self) -> None:
        """The first line names the version of the server."""
        level, line = self.lines()[0]
        assert level is LogLevel.info
        assert line.startswith(f"dstreams {__version__} on Twisted ")

    def test_warnings(self) -> None:
        """Each warning is a line of its own, with its braces left alone."""
        assert self.lines("one {a}", "two")[1:] == [(LogLevel.warn, "one {a}"), (LogLevel.warn, "two")]


@define
class FakeReactor:
    """Says whether it was told to stop when it runs."""

    calls: list[Callable[[], object]] = field(factory=list)
    stopped: bool = False

    def callWhenRunning(self, callable: Callable[[], object]) -> None:  # noqa: A002 (Twisted's name)
        self.calls.append(callable)

    def stop(self) -> None:
        self.stopped = True


class EndProcessTests:
    """A server that can't start ends its process."""

    def test_says_why_and_stops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line goes to stderr, the reactor stops once it runs, and the status is set at exit."""
        stderr, at_exit, reactor = io.StringIO(), [], FakeReactor()
        monkeypatch.setattr(sys, "__stderr__", stderr)
        monkeypatch.setattr(atexit, "register", at_exit.append)
        end_process(cast("Any", reactor), Notifier())(FAILURE)
        assert stderr.getvalue() == "[bind_listener] failed to bind 127.0.0.1:1: in use\n"
        assert len(at_exit) == 1
        assert not reactor.stopped
        for call in reactor.calls:
            call()
        assert reactor.stopped
