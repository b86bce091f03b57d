"""Handles SIGTERM and SIGINT.

Twisted's own handlers stop the reactor too, but a second signal only makes it log an error. While storage is being
opened, before the reactor runs, a signal kills the process, or does nothing if that is process 1 of a container. And
at the end twistd kills itself with the signal that it received, so that a clean shutdown is reported as killed by a
signal. Therefore:

- the first signal starts a clean shutdown, and the process ends with status 0;
- the second one stops the server immediately: it waits for no client, aborts connections, and closes the storage;
- the third one ends the process at once, with status 128 + the signal's number;
- a signal while the storage is being opened ends the process with status 0: nothing has been served yet, and opening
  can be interrupted at any point, as by a crash.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from dstreams.runtime.shutdown import ShutdownDeadline
from dstreams.services.parts import Reactor

_log = Logger()


class SignalService(Service):
    """Handles signals as long as the server runs. It is the first service to start, so that it covers the others.

    :param shutdown: ended at the second signal.
    :param started: whether there is something to stop.
    :param exit_now: ends the process with a status; it does not return.
    """

    name: str | None = "signals"

    def __init__(
        self,
        reactor: Reactor,
        shutdown: ShutdownDeadline,
        started: Callable[[], bool],
        exit_now: Callable[[int], object] = os._exit,
    ) -> None:
        self._reactor = reactor
        self._shutdown = shutdown
        self._started = started
        self._exit_now = exit_now
        self._signals: list[signal.Signals] = []
        self._reactor_runs = False
        self._received = 0

    def startService(self) -> None:
        """Install the handlers. A SIGINT that is ignored, as in a shell's background jobs, or a debugger's, is left.

        The handlers stay installed when the service stops: a third signal is meant for a storage that does not close,
        and a signal in the last moment must not cause a clean shutdown to be reported as killed by a signal.
        """
        super().startService()
        self._signals = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL):
            self._signals.append(signal.SIGINT)
        self._take()
        # The reactor installs its own handlers when it starts to run.
        self._reactor.callWhenRunning(self._take_from_reactor)

    def _take_from_reactor(self) -> None:
        self._reactor_runs = True
        self._take()

    def _take(self) -> None:
        for number in self._signals:
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        """Handle a signal. It can interrupt the main thread anywhere, so all work is left to the reactor."""
        self._received += 1
        name = signal.Signals(number).name
        step = self._stop if self._received == 1 else self._hurry
        if self._received > 2:
            self._exit_now(128 + number)
        elif self._reactor_runs:
            self._reactor.callFromThread(lambda: step(name))
        elif self._started():
            self._reactor.callWhenRunning(lambda: step(name))
        else:
            self._exit_now(0)

    def _stop(self, name: str) -> None:
        _log.info("{signal}: stopping; a second one aborts connections, a third one ends the process", signal=name)
        with suppress(ReactorNotRunning):  # it is stopping already
            self._reactor.stop()

    def _hurry(self, name: str) -> None:
        _log.warn("{signal} again: stopping now", signal=name)
        self._shutdown.lose()
