"""Telling the service manager how the server is: systemd's notification protocol, sd_notify(3).

A message is one datagram of ``NAME=value`` lines to the socket that the environment names. The libraries for it
are either bindings of libsystemd, which an optional feature shouldn't have to compile, or as long as this module
and no longer kept. Without that environment, as on macOS or in a container, nothing is done.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Self, cast

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from dstreams.timers import Scheduler

_log = Logger()

SEND_TIMEOUT_SECONDS = 1.0
"""How long a service manager that doesn't read its socket may hold up the server."""

STORAGE_CLOSE_SECONDS = 60
"""What a stop may take on top of its delay and its grace time: the last commits and a checkpoint."""


@frozen
class Notifier:
    """The way to the service manager.

    :param address: its socket: a path, or ``@`` and an abstract name; ``None``: there is no such manager.
    :param watchdog_seconds: within which it wants to hear from the server, ``None`` when it doesn't ask.
    """

    address: str | None = None
    watchdog_seconds: float | None = None

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int | None = None) -> Self:
        """What the environment says. The variables are removed, so that child processes don't speak for the server.

        :param pid: this process's number, when it isn't to be asked for.
        """
        address = environ.pop("NOTIFY_SOCKET", None)
        microseconds = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", None)
        ours = watched is None or watched == str(os.getpid() if pid is None else pid)
        seconds = int(microseconds) / 1e6 if microseconds.isdecimal() and ours else 0
        return cls(address or None, seconds or None)

    def send(self, *assignments: str) -> None:
        """Send one message, if anybody wants it. A failure is logged: the server doesn't depend on it.

        :param assignments: such as ``READY=1``; line breaks in a value become spaces.
        """
        if self.address is None:
            return
        message = "\n".join(" ".join(each.splitlines()) for each in assignments).encode()
        # Linux's abstract names begin with a zero byte, which no environment variable can hold.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(SEND_TIMEOUT_SECONDS)
                channel.sendto(message, address)
        except (OSError, ValueError) as error:
            _log.warn("telling the service manager at {address} failed: {error}", address=self.address, error=error)

    def status(self, text: str) -> None:
        """Say in words what the server does; ``systemctl status`` shows it."""
        self.send(f"STATUS={text}")

    def ready(self) -> None:
        """The server has started."""
        self.send("READY=1", "STATUS=serving")

    def reloading(self) -> None:
        """The server has begun a reload."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """The server has ended a reload, well or not: it goes on."""
        self.send("READY=1")

    def stopping(self, seconds: float) -> None:
        """The server has begun to stop.

        :param seconds: that it may take.
        """
        self.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", "STATUS=stopping")


class NotifyService(Service):
    """Tells the service manager that the server is ready and that it stops: the last service to start.

    In between it answers the watchdog, at half the interval. That shows that the reactor turns, and nothing
    else: when the storage has failed, readers are still served, and a restart that doesn't mend the disk would
    only send them away, again and again. That state is told in words here, and by ``/readyz``.

    :param failure: why nothing can be stored, ``None`` while it can.
    :param stop_seconds: the longest that clients are waited for at the end.
    """

    name: str | None = "notify"

    def __init__(
        self, notifier: Notifier, reactor: Scheduler, failure: Callable[[], str | None], stop_seconds: float
    ) -> None:
        self._notifier = notifier
        self._failure = failure
        self._stop_seconds = stop_seconds
        self._told: str | None = None
        self._beats = LoopingCall(self._beat)
        self._beats.clock = cast("IReactorTime", reactor)

    def startService(self) -> None:
        """Everything else has started."""
        super().startService()
        self._notifier.ready()
        if self._notifier.watchdog_seconds is not None:
            self._beats.start(self._notifier.watchdog_seconds / 2)

    def stopService(self) -> None:
        """Everything else is about to stop. The watchdog expects nothing from then on."""
        super().stopService()
        if self._beats.running:
            self._beats.stop()
        self._notifier.stopping(self._stop_seconds + STORAGE_CLOSE_SECONDS)

    def _beat(self) -> None:
        failure = self._failure()
        if failure != self._told:
            self._told = failure
            self._notifier.status(f"read-only until a restart: {failure}")
        self._notifier.send("WATCHDOG=1")
