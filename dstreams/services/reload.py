"""Reloads at SIGHUP what can be reloaded while the server runs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from dstreams.services.notify import Notifier
from dstreams.services.parts import Reactor

_log = Logger()


class ReloadService(Service):
    """Reloads at SIGHUP, and keeps the server running whatever the outcome.

    It handles the signal even if there is nothing to reload, because the signal would otherwise kill the process, and
    its sender (``systemctl reload``, a certificate's deploy hook) need not know how the server is configured. Two
    conventions remain: a process whose terminal is closed ends, and ``nohup`` prevents that.

    :param actions: the reloads, in order. They log their results and raise nothing.
    :param notifier: reports to the service manager when a reload begins and ends.
    """

    name: str | None = "reload"

    def __init__(self, actions: Sequence[Callable[[], object]], reactor: Reactor, notifier: Notifier) -> None:
        self._actions = actions
        self._notifier = notifier
        self._reactor: Any = reactor
        self._before: Any = None
        self._terminal = False

    def startService(self) -> None:
        """Start to handle SIGHUP, on systems that have it."""
        super().startService()
        try:
            self._before = signal.signal(signal.SIGHUP, self._signalled)
        except (AttributeError, ValueError):  # the system has no SIGHUP, or this is not the main thread
            return
        self._terminal = self._before is not signal.SIG_IGN and _has_terminal()

    def stopService(self) -> None:
        """Restore the previous handler."""
        super().stopService()
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
            self._before = None

    def reload(self) -> None:
        """Run all reloads."""
        self._notifier.reloading()
        _log.info("reloading" if self._actions else "there is nothing to reload: no certificates are in use")
        for action in self._actions:
            try:
                action()
            except Exception:
                _log.failure("reloading failed")
        self._notifier.reloaded()

    def _signalled(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (Python's arguments)
        # Do the work later in the reactor, because the signal may have interrupted anything.
        self._reactor.callFromThread(self._hung_up)

    def _hung_up(self) -> None:
        if not self.running:
            return
        if self._terminal and not _has_terminal():
            with suppress(ReactorNotRunning):  # it is stopping already
                self._reactor.stop()
        else:
            self.reload()


def _has_terminal() -> bool:
    """Whether the process still has the terminal that it was started in."""
    try:
        return sys.__stdin__ is not None and os.isatty(sys.__stdin__.fileno())
    except (OSError, ValueError):
        return False
