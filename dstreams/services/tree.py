"""The parent of all services: starts them one after the other, and stops them in reverse order.

Twisted's MultiService does not wait for its children, and its port would be bound before anything else has started.
This parent waits: the storage opens before the port is bound; at shutdown the port closes, readers and requests finish,
and the storage closes last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from dstreams.runtime.startup import StartupError, StartupPhase

_log = Logger()

OnFailure = Callable[[StartupError], object]
"""Called with the error of a failed start, after every started service has been stopped."""


class ServerService(Service):
    """Starts its children one after the other, and stops them in reverse order, waiting for each.

    A child's ``startService`` and ``stopService`` may return a Deferred. A child that fails to start must have released
    what it had acquired. Twisted ignores what ``startService`` returns, so a failure is passed to ``on_failure``.

    :param children: the services, in the order in which they start.
    :param on_failure: called with the error if the server cannot start.
    :param raises: whether ``startService`` also raises an error that is known before it returns; twistd passes it on
        to the parent process that waits for a daemon to start.
    """

    name: str | None = "durable-streams"

    def __init__(self, children: Sequence[Service], on_failure: OnFailure, *, raises: bool = False) -> None:
        self._children = children
        self._on_failure = on_failure
        self._raises = raises
        self._started: list[Service] = []
        self._starting: Deferred[None] = succeed(None)
        self._error: StartupError | None = None
        self.log_observer: Callable[[], ILogObserver] | None = None

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join an application, and set the log observer that ``log_observer`` builds as its component, for twistd."""
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer())
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start the children.

        :raise StartupError: see ``raises``.
        """
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed)
        if self._raises and self._error is not None:
            # Logged here, because twistd reports only the first hundred characters; and a new exception is raised,
            # because the traceback of the original would fill a page.
            _log.critical("{error}", error=str(self._error))
            raise StartupError(self._error.phase, self._error.cause)
        self._starting.addCallback(self._tell)

    def stopService(self) -> Deferred[None]:
        """Stop the children; fires when the last of them, which was started first, has stopped."""
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


def _startup_error(failure: Failure) -> StartupError:
    error = failure.value
    if isinstance(error, StartupError):
        return error
    _log.failure("starting the server failed", failure)
    return StartupError(StartupPhase.START_SERVER, f"{type(error).__name__}: {error}")
