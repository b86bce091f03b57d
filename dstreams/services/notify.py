"""Reports the server's state to the service manager with systemd's notification protocol, sd_notify(3).

A message is one datagram of ``NAME=value`` lines, sent to the socket named in the environment. The existing libraries
are either bindings of libsystemd, which an optional feature should not have to compile, or as long as this module and
unmaintained. If the environment names no socket, as on macOS or in a container, nothing is sent.
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

from dstreams.runtime.timers import Scheduler

_log = Logger()

SEND_TIMEOUT_SECONDS = 1.0
"""Maximum seconds that a service manager that does not read its socket may block the server."""

STORAGE_CLOSE_SECONDS = 60
"""Seconds for the last commits and a checkpoint at shutdown, in addition to the drain delay and the grace time."""


@frozen
class Notifier:
    """Sends messages to the service manager.

    :param address: its socket: a path, or ``@`` and an abstract name; ``None`` if there is no service manager.
    :param watchdog_seconds: the interval within which it expects a message, or ``None`` if it expects none.
    """

    address: str | None = None
    watchdog_seconds: float | None = None

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int | None = None) -> Self:
        """Read the environment, and remove the variables so that child processes do not send messages.

        :param pid: this process's id; by default it is looked up.
        """
        address = environ.pop("NOTIFY_SOCKET", None)
        microseconds = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", None)
        ours = watched is None or watched == str(os.getpid() if pid is None else pid)
        seconds = int(microseconds) / 1e6 if microseconds.isdecimal() and ours else 0
        return cls(address or None, seconds or None)

    def send(self, *assignments: str) -> None:
        """Send one message, if there is a service manager. A failure is only logged, because it affects nothing else.

        :param assignments: lines such as ``READY=1``; line breaks in a value become spaces.
        """
        if self.address is None:
            return
        message = "\n".join(" ".join(each.splitlines()) for each in assignments).encode()
        # Linux's abstract names begin with a zero byte, which environment variables cannot contain.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(SEND_TIMEOUT_SECONDS)
                channel.sendto(message, address)
        except (OSError, ValueError) as error:
            _log.warn("cannot notify the service manager at {address}: {error}", address=self.address, error=error)

    def status(self, text: str) -> None:
        """Report in words what the server does; ``systemctl status`` shows it."""
        self.send(f"STATUS={text}")

    def ready(self) -> None:
        """Report that the server has started."""
        self.send("READY=1", "STATUS=serving")

    def reloading(self) -> None:
        """Report that a reload has begun."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Report that a reload has ended, successfully or not."""
        self.send("READY=1")

    def stopping(self, seconds: float) -> None:
        """Report that the server has begun to stop.

        :param seconds: the maximum seconds that stopping may take.
        """
        self.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", "STATUS=stopping")


class NotifyService(Service):
    """Reports when the server is ready and when it stops. It is the last service to start.

    In between it answers the watchdog, at half the watchdog's interval. That shows only that the reactor runs: when the
    storage has failed, readers are still served, and a restart that does not repair the disk would only disconnect
    them again and again. A storage failure is reported as a status text here, and by ``/readyz``.

    :param failure: returns why nothing can be stored, or ``None``.
    :param stop_seconds: the maximum seconds that the server waits for clients at shutdown.
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
        """Report that the server is ready, because all other services have started."""
        super().startService()
        self._notifier.ready()
        if self._notifier.watchdog_seconds is not None:
            self._beats.start(self._notifier.watchdog_seconds / 2)

    def stopService(self) -> None:
        """Report that the server stops, and stop answering the watchdog, which expects nothing from now on."""
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
