"""What SIGHUP does: read again what can be read again while the server runs."""

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
    """Reloads at SIGHUP, and never stops the server for what it finds.

    Listens to the signal even when there is nothing to reload: it would end the process otherwise, and whoever
    sends it (``systemctl reload``, a certificate's deploy hook) need not know how the server is configured. Two
    habits stay: a process whose terminal is closed ends, and ``nohup`` keeps it from that.

    :param actions: what is reloaded, each in its turn. They log what they do, and raise nothing.
    :param notifier: told when a reload begins and ends.
    """

    name: str | None = "reload"

    def __init__(self, actions: Sequence[Callable[[], object]], reactor: Reactor, notifier: Notifier) -> None:
        self._actions = actions
        self._notifier = notifier
        self._reactor: Any = reactor
        self._before: Any = None
        self._terminal = False

    def startService(self) -> None:
        """Listen to SIGHUP from now on, where there is such a signal."""
        super().startService()
        try:
            self._before = signal.signal(signal.SIGHUP, self._signalled)
        except (AttributeError, ValueError):  # not on this system; not in this thread
            return
        self._terminal = self._before is not signal.SIG_IGN and _has_terminal()

    def stopService(self) -> None:
        """Do with the signal what was done before."""
        super().stopService()
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
            self._before = None

    def reload(self) -> None:
        """Do everything that is to be done."""
        self._notifier.reloading()
        _log.info("reloading" if self._actions else "there is nothing to reload: no certificates are in use")
        for action in self._actions:
            try:
                action()
            except Exception:
                _log.failure("reloading failed")
        self._notifier.reloaded()

    def _signalled(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (Python's arguments)
        # Not here, in the middle of whatever was interrupted.
        self._reactor.callFromThread(self._hung_up)

    def _hung_up(self) -> None:
        if not self.running:
            return
        if self._terminal and not _has_terminal():
            with suppress(ReactorNotRunning):  # it ends already
                self._reactor.stop()
        else:
            self.reload()


def _has_terminal() -> bool:
    """Whether the process has the terminal that it was started in."""
    try:
        return sys.__stdin__ is not None and os.isatty(sys.__stdin__.fileno())
    except (OSError, ValueError):
        return False
