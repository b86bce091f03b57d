"""Listens, and at the end lets the clients finish."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from dstreams.config import Config
from dstreams.services.listeners import Listener, Place, place, reason
from dstreams.services.parts import Reactor, SiteParts
from dstreams.services.patience import Patience
from dstreams.services.readiness import Readiness
from dstreams.startup import StartupError, StartupPhase

_log = Logger()


class SiteService(Service):
    """Listens, and at the end lets clients finish within the grace time.

    :param listeners: where to listen; all of them serve the same.
    :param readiness: told when traffic is wanted and when it isn't any more.
    :param patience: ends every wait of the end when somebody has none left.
    """

    name: str | None = "site"

    def __init__(
        self,
        config: Config,
        parts: SiteParts,
        listeners: Sequence[Listener],
        readiness: Readiness,
        patience: Patience,
        reactor: Reactor,
    ) -> None:
        self._config = config
        self._parts = parts
        self._listeners = listeners
        self._readiness = readiness
        self._patience = patience
        self._reactor = reactor
        self._ports: list[IListeningPort] = []

    def startService(self) -> Deferred[None]:
        """Bind the ports.

        :return: fires when clients can connect to all of them; fails with a ``StartupError`` when one can't be bound,
            and then none is.
        """
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        for listener in self._listeners:
            try:
                self._ports.append(await listener.endpoint.listen(self._factory(listener)))
            except (CannotListenError, OSError) as error:
                # Not waited for: a daemon's start has to fail before this returns, and nothing was served yet.
                for port in self._ports:
                    maybeDeferred(port.stopListening)
                self._ports.clear()
                cause = f"failed to bind {listener.name}: {reason(error)}"
                raise StartupError(StartupPhase.BIND_LISTENER, cause) from error
        self._limit_connections()
        self._readiness.ready = True
        self._announce()

    def _factory(self, listener: Listener) -> IProtocolFactory:
        """What speaks at a listener: HTTP/1.1, or what a TLS handshake agrees on."""
        context, over_tls = listener.tls, self._parts.over_tls
        return self._parts.factory if context is None or over_tls is None else over_tls(context.options.protocols)

    def _limit_connections(self) -> None:
        admission = self._parts.admission
        if admission is None:
            return
        for port, listener in zip(self._ports, self._listeners, strict=True):
            if not admission.watch(port):
                _log.warn(
                    "{name} can't make clients wait: server.max_connections doesn't hold there", name=listener.name
                )

    def _announce(self) -> None:
        places = [
            place(port.getHost(), secure=listener.is_secure)
            for port, listener in zip(self._ports, self._listeners, strict=True)
        ]
        for each, listener in zip(places, self._listeners, strict=True):
            _announce_tls(listener, each)
            _log.info("listening on {address}", address=each.text)
        proxy = self._config.proxy
        if proxy.enabled:
            _log.info(
                "believing {headers} headers of {proxies}",
                headers=proxy.forwarded_headers,
                proxies=", ".join(proxy.trusted_proxies),
            )
        for what, path in (
            ("health", "/healthz"),
            ("readiness", "/readyz"),
            ("protocol", self._config.http.stream_base_path),
        ):
            _log.info("{what}: {url}", what=what, url=f"{places[0].root}{path}{places[0].note}")

    def stopService(self) -> Deferred[None]:
        """Send clients elsewhere, close the ports, let what is under way finish; then cut what is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._readiness.ready = False
        if self._ports:
            await self._drain_traffic()
            await self._stop_listening()
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

    async def _stop_listening(self) -> None:
        if self._parts.admission is not None:
            self._parts.admission.release()
        while self._ports:
            await maybeDeferred(self._ports.pop().stopListening)


def _announce_tls(listener: Listener, where: Place) -> None:
    context = listener.tls
    if context is None:
        return
    options = context.options
    _log.info(
        "TLS on {address}: {min_version} to {max_version}, {protocols}, client certificates {clients}",
        address=where.text,
        min_version=options.min_version,
        max_version=options.max_version,
        protocols=" and ".join(name.decode("ascii") for name in options.protocols),
        clients="required" if options.files.client_ca is not None else "not asked for",
    )
    for warning in context.warnings:
        _log.warn("{warning}", warning=warning)
