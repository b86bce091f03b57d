"""Listens for clients, and lets them finish at shutdown."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from dstreams.config import Config
from dstreams.runtime.shutdown import ShutdownDeadline, finish
from dstreams.runtime.startup import StartupError, StartupPhase
from dstreams.services.listeners import Listener, Place, place, reason
from dstreams.services.parts import Reactor, Readiness, SiteParts

_log = Logger()


class SiteService(Service):
    """Listens for clients, and lets them finish within the grace time at shutdown.

    :param listeners: the endpoints; all of them serve the same streams.
    :param readiness: set when the server is ready for traffic, and cleared at shutdown.
    :param shutdown: its waits all end at once when a second signal arrives.
    """

    name: str | None = "site"

    def __init__(
        self,
        config: Config,
        parts: SiteParts,
        listeners: Sequence[Listener],
        readiness: Readiness,
        shutdown: ShutdownDeadline,
        reactor: Reactor,
    ) -> None:
        self._config = config
        self._parts = parts
        self._listeners = listeners
        self._readiness = readiness
        self._shutdown = shutdown
        self._reactor = reactor
        self._ports: list[IListeningPort] = []

    def startService(self) -> Deferred[None]:
        """Bind the ports.

        :return: fires when clients can connect to all of them. If one cannot be bound, it fails with a
            ``StartupError``, and none stays bound.
        """
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        for listener in self._listeners:
            try:
                self._ports.append(await listener.endpoint.listen(self._factory(listener)))
            except (CannotListenError, OSError) as error:
                # Do not wait: the start of a daemon must fail before this returns, and nothing was served yet.
                for port in self._ports:
                    maybeDeferred(port.stopListening)
                self._ports.clear()
                cause = f"failed to bind {listener.name}: {reason(error)}"
                raise StartupError(StartupPhase.BIND_LISTENER, cause) from error
        self._limit_connections()
        self._readiness.ready = True
        self._announce()

    def _factory(self, listener: Listener) -> IProtocolFactory:
        """Return the factory for a listener: HTTP/1.1, or whatever a TLS handshake selects."""
        context, over_tls = listener.tls, self._parts.over_tls
        return self._parts.factory if context is None or over_tls is None else over_tls(context.options.protocols)

    def _limit_connections(self) -> None:
        admission = self._parts.admission
        if admission is None:
            return
        for port, listener in zip(self._ports, self._listeners, strict=True):
            if not admission.watch(port):
                _log.warn(
                    "{name} cannot make clients wait, so server.max_connections has no effect on it", name=listener.name
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
                "trusting {headers} headers from {proxies}",
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
        """Become unready, close the ports, let requests in flight finish, then abort the remaining connections."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._readiness.ready = False
        if self._ports:
            await self._drain_traffic()
            await self._stop_listening()
        grace = self._config.server.shutdown_grace_secs
        await finish(self._parts.connections, grace, self._shutdown, self._parts.engine.end_live)

    async def _drain_traffic(self) -> None:
        """Continue to serve for a while, so that load balancers can notice that the server is not ready any more."""
        delay = self._config.server.drain_delay_secs
        self._parts.connections.retire()
        if delay:
            _log.info("not ready any more; closing the port in {delay} s", delay=delay)
            await self._shutdown.wait(delay)

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
        clients="required" if options.files.client_ca is not None else "not requested",
    )
    for warning in context.warnings:
        _log.warn("{warning}", warning=warning)
