"""The admin listener: serves metrics, health and the listing of streams on a port of its own."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from dstreams.runtime.shutdown import ShutdownDeadline, finish
from dstreams.runtime.startup import StartupError, StartupPhase
from dstreams.services.listeners import Listener, place, reason
from dstreams.services.parts import AdminParts

_log = Logger()

GRACE_SECONDS = 2.0
"""Maximum seconds that responses may take to be delivered at shutdown."""


class AdminService(Service):
    """Listens for operators. It starts before the clients' port is opened and stops after that is closed.

    :param listener: the address or endpoint to listen on.
    :param parts: the protocol factory and the connections.
    :param shutdown: its waits all end at once when a second signal arrives.
    """

    name: str | None = "admin"

    def __init__(self, listener: Listener, parts: AdminParts, shutdown: ShutdownDeadline) -> None:
        self._listener = listener
        self._parts = parts
        self._shutdown = shutdown
        self._port: IListeningPort | None = None

    def startService(self) -> Deferred[None]:
        """Bind the port.

        :return: fires when operators can connect; fails with a ``StartupError``.
        """
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        try:
            self._port = await self._listener.endpoint.listen(self._parts.factory)
        except (CannotListenError, OSError) as error:
            cause = f"failed to bind admin.endpoint {self._listener.name}: {reason(error)}"
            raise StartupError(StartupPhase.BIND_LISTENER, cause) from error
        if self._parts.admission is not None:
            self._parts.admission.watch(self._port)
        address = self._port.getHost()
        if self._parts.bound is not None:
            self._parts.bound(address)
        where = place(address, secure=self._listener.is_secure)
        _log.info("admin pages: {url}", url=f"{where.root}/{where.note}")

    def stopService(self) -> Deferred[None]:
        """Close the port and its connections."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._parts.admission is not None:
            self._parts.admission.release()
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
            self._port = None
        await finish(self._parts.connections, GRACE_SECONDS, self._shutdown)
