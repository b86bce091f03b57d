"""The parent of all services: starts them one after the other, and stops them in reverse.

Twisted's MultiService waits for no child and binds ports before anything has started, so the parent here is
our own: storage opens before the port does, and at the end the port closes, readers and requests finish, and
storage closes last, each waiting for the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from dstreams.startup import StartupError, StartupPhase

_log = Logger()

OnFailure = Callable[[StartupError], object]
"""Is told, once everything that had started is stopped again, why the server can't start."""


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
        self.log_observer: Callable[[], ILogObserver] | None = None

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join an application; it gets the log observer that ``log_observer`` makes, for twistd to find there."""
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer())
        super().setServiceParent(parent)

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


def _startup_error(failure: Failure) -> StartupError:
    error = failure.value
    if isinstance(error, StartupError):
        return error
    _log.failure("starting the server failed", failure)
    return StartupError(StartupPhase.START_SERVER, f"{type(error).__name__}: {error}")
