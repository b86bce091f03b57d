"""SIGCHLD on uvloop's loop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet import process


@define
class Signals:
    """A reactor's signals, with SIGCHLD handled in Python (Twisted's ``SignalHandling``).

    :param others: Twisted's handling of SIGINT and SIGTERM.
    :param child_ended: called in the middle of anything when a child process has ended.
    """

    _others: Any
    _child_ended: Callable[[], object]
    _installed: bool = False

    def install(self) -> None:
        """Start to handle signals."""
        self._others.install()
        signal.signal(signal.SIGCHLD, lambda *_: self._child_ended())
        self._installed = True
        process.reapAllProcesses()  # those that ended before

    def uninstall(self) -> None:
        """Restore the previous handler of SIGCHLD."""
        if self._installed:
            self._installed = False
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._others.uninstall()
