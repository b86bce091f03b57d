"""The service tree: what runs, in which order it starts and stops, and what happens when it can't start.

Twisted's MultiService waits for no child and binds ports before anything has started, so the parent here is
our own: storage opens before the port does, and at the end the port closes, readers and requests finish, and
storage closes last, each waiting for the one before.
"""

from __future__ import annotations

import atexit
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from attrs import define, frozen
from twisted import __version__ as twisted_version
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams import __version__
from dstreams.config import BindAddress, Config, parse_bind_address, warnings
from dstreams.progress import Progress, on_terminal
from dstreams.startup import StartupError, StartupPhase
from dstreams.storage.interface import StorageError
from dstreams.timers import Scheduler

_log = Logger()

OnFailure = Callable[[StartupError], object]
"""Is told, once everything that had started is stopped again, why the server can't start."""


class Reactor(Scheduler, Protocol):
    """What a server needs of the reactor; endpoints find the rest by themselves."""

    def callWhenRunning(self, callable: Callable[[], object]) -> object: ...  # noqa: A002 (Twisted's name)

    def stop(self) -> None: ...


class Engine(Protocol):
    """The streams, as far as starting and stopping goes."""

    def open(self, progress: Progress) -> Deferred[None] | None:
        """Make the streams ready; raises, or fails with, a ``StorageError``."""

    def end_live(self) -> None:
        """Answer every waiting long-poll and end every SSE stream, and let nobody wait from now on."""

    def close(self) -> Deferred[None] | None:
        """Finish what is being stored, and close the storage."""


class Connections(Protocol):
    """A factory's open connections."""

    def drain(self) -> Deferred[None]:
        """Close idle connections now and the others after their answer; fires when there are none left.

        It may be called again, and what it returned may be cancelled.
        """

    def abort(self) -> None:
        """Cut all that are left."""


@define
class Readiness:
    """Whether the server wants traffic: what ``/readyz`` says.

    :param failure: why the storage takes no more changes, ``None`` while it does.
    """

    ready: bool = False
    failure: Callable[[], str | None] = lambda: None

    def __call__(self) -> bool:
        return self.ready and self.failure() is None


@frozen
class SiteParts:
    """What the services start and stop.

    :param engine: opened before the port and closed after it.
    :param factory: speaks HTTP on the port.
    :param connections: that factory's connections.
    """

    engine: Engine
    factory: IProtocolFactory
    connections: Connections


class ConfigService(Service):
    """Tells which program runs, and what an operator should know about its configuration."""

    name: str | None = "config"

    def __init__(self, config: Config, reactor: object) -> None:
        self._config = config
        self._reactor = reactor

    def startService(self) -> None:
        """Log the version and the configuration's warnings."""
        super().startService()
        _log.info(
            "dstreams {version} on Twisted {twisted} ({reactor}), {python} {python_version}",
            version=__version__,
            twisted=twisted_version,
            reactor=type(self._reactor).__name__,
            python=platform.python_implementation(),
            python_version=platform.python_version(),
        )
        for warning in warnings(self._config):
            _log.warn("{warning}", warning=warning)


class StorageService(Service):
    """Opens and closes what the streams are kept in."""

    name: str | None = "storage"

    def __init__(self, config: Config, engine: Engine) -> None:
        self._config = config
        self._engine = engine

    def startService(self) -> Deferred[None]:
        """Open the storage.

        :return: fires when all streams are there; fails with a ``StartupError``.
        """
        super().startService()
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        mode = self._config.storage.mode
        try:
            await maybeDeferred(self._engine.open, on_terminal())
        except (StorageError, OSError) as error:
            cause = f"failed to open {mode} storage: {error}"
            raise StartupError(StartupPhase.START_SERVER, cause) from error
        _log.info("storage: {where}, {limits}", where=_storage_place(self._config), limits=_limits(self._config))

    def stopService(self) -> Deferred[None]:
        """Close the storage; fires when everything acknowledged is where it belongs."""
        super().stopService()
        return cast("Deferred[None]", maybeDeferred(self._engine.close))


class SiteService(Service):
    """Listens, and at the end lets clients finish within the grace time.

    :param readiness: told when traffic is wanted and when it isn't any more.
    """

    name: str | None = "site"

    def __init__(self, config: Config, parts: SiteParts, readiness: Readiness, reactor: Reactor) -> None:
        self._config = config
        self._parts = parts
        self._readiness = readiness
        self._reactor = reactor
        self._port: IListeningPort | None = None

    def startService(self) -> Deferred[None]:
        """Bind the port.

        :return: fires when clients can connect; fails with a ``StartupError``.
        """
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        address = parse_bind_address(self._config.server.bind_address)
        endpoint = serverFromString(self._reactor, endpoint_description(address))
        try:
            self._port = await endpoint.listen(self._parts.factory)
        except (CannotListenError, OSError) as error:
            cause = f"failed to bind {address}: {_reason(error)}"
            raise StartupError(StartupPhase.BIND_LISTENER, cause) from error
        self._readiness.ready = True
        host = self._port.getHost()
        assert isinstance(host, IPv4Address | IPv6Address)
        self._announce(BindAddress(address.host, host.port))

    def _announce(self, address: BindAddress) -> None:
        root = f"http://{reachable(address)}"
        _log.info("listening on {address}", address=str(address))
        _log.info("health: {url}", url=f"{root}/healthz")
        _log.info("readiness: {url}", url=f"{root}/readyz")
        _log.info("protocol: {url}", url=f"{root}{self._config.http.stream_base_path}")

    def stopService(self) -> Deferred[None]:
        """Close the port, end live readers, and let requests in flight finish; then cut what is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._readiness.ready = False
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
            self._port = None
        connections = self._parts.connections
        # Told first, so that the last answers of live readers already say that the connection closes.
        drained = connections.drain()
        self._parts.engine.end_live()
        grace = self._config.server.shutdown_grace_secs
        try:
            await drained.addTimeout(grace, cast("IReactorTime", self._reactor))
        except DeferredTimeout:
            _log.warn("cutting the connections that are left after {grace} s", grace=grace)
            connections.abort()
            # What they were reading or writing is let go of only when they are really gone.
            await connections.drain()


class ServerService(Service):
    """Starts its children one after the other, and stops them in reverse, waiting for each.

    A child's ``startService`` may return a Deferred, and so may its ``stopService``. A child that fails to
    start has released what it had taken. Twisted ignores what ``startService`` returns, so a failure goes to
    ``on_failure``.

    :param children: in the order of their start.
    :param on_failure: told when the server can't start.
    :param raises: whether ``startService`` also raises an error that is known before it returns: twistd
        passes it on to the process that waits for a daemon to have started.
    """

    name: str | None = "durable-streams"

    def __init__(self, children: Sequence[Service], on_failure: OnFailure, *, raises: bool = False) -> None:
        self._children = children
        self._on_failure = on_failure
        self._raises = raises
        self._started: list[Service] = []
        self._starting: Deferred[None] = succeed(None)
        self._error: StartupError | None = None

    def startService(self) -> None:
        """Begin to start the children.

        :raise StartupError: see ``raises``.
        """
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed)
        if self._raises and self._error is not None:
            # Logged here, because twistd reports only the first hundred characters, and raised anew, because
            # where it came from would fill a page.
            _log.critical("{error}", error=str(self._error))
            raise StartupError(self._error.phase, self._error.cause)
        self._starting.addCallback(self._tell)

    def stopService(self) -> Deferred[None]:
        """Stop the children; fires when the last of them, the first that was started, has stopped."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        self._error = None
        for child in self._children:
            await maybeDeferred(child.startService)
            self._started.append(child)

    def _failed(self, failure: Failure) -> Deferred[None] | None:
        if not self.running and failure.check(CancelledError):
            return None
        self._error = _startup_error(failure)
        return Deferred.fromCoroutine(self._stop_started())

    def _tell(self, _: None) -> None:
        if self._error is not None:
            self._on_failure(self._error)

    async def _stop(self) -> None:
        if self._error is None:
            self._starting.cancel()
        await self._starting
        await self._stop_started()

    async def _stop_started(self) -> None:
        while self._started:
            child = self._started.pop()
            try:
                await maybeDeferred(child.stopService)
            except Exception:
                _log.failure("stopping the {name} service failed", name=child.name)


def build_server(config: Config, reactor: Reactor, *, foreground: bool = True) -> ServerService:
    """The whole server as one service; nothing is opened yet.

    :param foreground: whether the process has its terminal; else it is a daemon, and another process waits
        for it to have started.
    """
    readiness = Readiness()
    parts = build_site_parts(config, reactor, readiness)
    children = [
        ConfigService(config, reactor),
        StorageService(config, parts.engine),
        SiteService(config, parts, readiness, reactor),
    ]
    return ServerService(children, end_process(reactor), raises=not foreground)


def build_site_parts(config: Config, reactor: Reactor, readiness: Readiness) -> SiteParts:
    """Put the engine, the application and the HTTP channel together."""
    # Late: some of it imports klein, which installs a reactor where none is.
    from dstreams.http.assembly import assemble, build_storage
    from dstreams.http.http1.channel import HttpFactory
    from dstreams.http.http1.limits import HttpLimits

    assembly = assemble(build_storage(config, reactor), config, reactor, readiness)
    readiness.failure = lambda: assembly.streams.failure
    factory = HttpFactory(assembly.application, assembly.wheel, HttpLimits())
    return SiteParts(assembly.streams, factory, factory)


def end_process(reactor: Reactor) -> OnFailure:
    """What a server that can't start does: say why in one line on stderr, and exit with status 1.

    Not by SystemExit: in a daemon it would leave the process that waits for it hanging, from a callback it
    wouldn't end the reactor, and twistd would leave its pid file behind. The reactor stops as at any other
    time, and the status is set when the interpreter ends, because twistd itself always exits with 0.
    """

    def give_up(error: StartupError) -> None:
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{error}\n")
            sys.__stderr__.flush()
        atexit.register(_exit_with_failure)
        reactor.callWhenRunning(reactor.stop)

    return give_up


def _exit_with_failure() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(1)


def _storage_place(config: Config) -> str:
    """Which mode, and where its files are."""
    mode = config.storage.mode
    return mode if mode == "memory" else f"{mode} in {os.path.abspath(config.storage.data_dir)}"


def _limits(config: Config) -> str:
    limits = config.limits
    total = limits.max_memory_bytes if config.storage.mode == "memory" else limits.max_disk_bytes
    return f"up to {total or 'any number of'} bytes, {limits.max_stream_bytes} bytes per stream"


def endpoint_description(address: BindAddress) -> str:
    """A listening address as Twisted's server endpoint string."""
    return f"tcp:{address.port}:interface={quoteStringArgument(address.host)}"


def reachable(address: BindAddress) -> BindAddress:
    """An address that a client on this machine can connect to: the loopback one, where all are bound."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)
    return BindAddress(loopback.get(address.host, address.host), address.port)


def _startup_error(failure: Failure) -> StartupError:
    error = failure.value
    if isinstance(error, StartupError):
        return error
    _log.failure("starting the server failed", failure)
    return StartupError(StartupPhase.START_SERVER, f"{type(error).__name__}: {error}")


def _reason(error: CannotListenError | OSError) -> str:
    """What the operating system says."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    return getattr(cause, "strerror", None) or str(cause)
