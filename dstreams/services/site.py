"""Listens, and at the end lets the clients finish."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from dstreams.config import BindAddress, Config, parse_bind_address
from dstreams.services.parts import Reactor, SiteParts
from dstreams.services.patience import Patience
from dstreams.services.readiness import Readiness
from dstreams.startup import StartupError, StartupPhase

_log = Logger()


class SiteService(Service):
    """Listens, and at the end lets clients finish within the grace time.

    :param readiness: told when traffic is wanted and when it isn't any more.
    :param patience: ends every wait of the end when somebody has none left.
    """

    name: str | None = "site"

    def __init__(
        self, config: Config, parts: SiteParts, readiness: Readiness, patience: Patience, reactor: Reactor
    ) -> None:
        self._config = config
        self._parts = parts
        self._readiness = readiness
        self._patience = patience
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
        """Send clients elsewhere, close the port, let what is under way finish; then cut what is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._readiness.ready = False
        if self._port is not None:
            await self._drain_traffic()
            await maybeDeferred(self._port.stopListening)
            self._port = None
        connections = self._parts.connections
        # Told first, so that the last answers of live readers already say that the connection closes.
        drained = connections.drain()
        self._parts.engine.end_live()
        grace = self._config.server.shutdown_grace_secs
        if not await self._patience.wait_for(drained, grace):
            when = "" if self._patience.lost else f" after {grace} s"
            _log.warn("cutting the connections that are left{when}", when=when)
            connections.abort()
            # What they were reading or writing is let go of only when they are really gone.
            await connections.drain()

    async def _drain_traffic(self) -> None:
        """Serve on for a while, so that whoever sends the traffic here can notice that it isn't wanted."""
        delay = self._config.server.drain_delay_secs
        self._parts.connections.retire()
        if delay:
            _log.info("not ready any more; the port closes in {delay} s", delay=delay)
            await self._patience.wait(delay)


def endpoint_description(address: BindAddress) -> str:
    """A listening address as Twisted's server endpoint string."""
    return f"tcp:{address.port}:interface={quoteStringArgument(address.host)}"


def reachable(address: BindAddress) -> BindAddress:
    """An address that a client on this machine can connect to: the loopback one, where all are bound."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)
    return BindAddress(loopback.get(address.host, address.host), address.port)


def _reason(error: CannotListenError | OSError) -> str:
    """What the operating system says."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    return getattr(cause, "strerror", None) or str(cause)
