"""Telling the service manager: what is sent when, on real sockets."""

from __future__ import annotations

import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from dstreams.services.notify import Notifier, NotifyService


@define
class ServiceManager:
    """The socket of a service manager."""

    socket: socket.socket

    def messages(self) -> list[list[str]]:
        """What has been sent since the last call: each message's lines."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65_536).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: the names of sockets are limited."""
    return tmp_path_factory.mktemp("n")


@pytest.fixture
def manager(directory: Path) -> Iterator[ServiceManager]:
    """A service manager that listens at ``notify`` in the directory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(directory / "notify"))
        listener.setblocking(False)
        yield ServiceManager(listener)


class NotifierTests:
    """What the environment says, and what is sent."""

    def test_nobody_listens(self) -> None:
        """Without the variables nothing is done."""
        notifier = Notifier.take({})
        assert notifier == Notifier(None, None)
        notifier.ready()

    def test_path(self, directory: Path, manager: ServiceManager) -> None:
        """The socket is a path; the variable is removed."""
        environ = {"NOTIFY_SOCKET": str(directory / "notify"), "HOME": "/"}
        Notifier.take(environ).ready()
        assert environ == {"HOME": "/"}
        assert manager.messages() == [["READY=1", "STATUS=serving"]]

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
    def test_abstract(self) -> None:
        """An ``@`` stands for the zero byte of an abstract name."""
        name = f"dstreams-{uuid.uuid4()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(f"\0{name}")
            listener.setblocking(False)
            Notifier(f"@{name}").status("fine")
            assert ServiceManager(listener).messages() == [["STATUS=fine"]]

    def test_reloading(self, directory: Path, manager: ServiceManager) -> None:
        """A reload says when it began, by the system's monotonic clock."""
        notifier = Notifier(str(directory / "notify"))
        notifier.reloading()
        notifier.reloaded()
        (reloading, since), reloaded = manager.messages()
        assert reloaded == ["READY=1"]
        assert reloading == "RELOADING=1"
        name, _, value = since.partition("=")
        assert name == "MONOTONIC_USEC"
        assert value.isdecimal()

    def test_line_breaks(self, directory: Path, manager: ServiceManager) -> None:
        """A value can't smuggle in another assignment."""
        Notifier(str(directory / "notify")).status("broken\nREADY=1")
        assert manager.messages() == [["STATUS=broken READY=1"]]

    @pytest.mark.parametrize("name", ["gone", "n" * 200])
    def test_failure(self, directory: Path, name: str) -> None:
        """A socket that is gone, or can't be, is logged and nothing else."""
        with capturedLogs() as events:
            Notifier(str(directory / name)).ready()
        assert [event["log_level"].name for event in events] == ["warn"]

    @pytest.mark.parametrize(
        ("environ", "seconds"),
        [
            ({"WATCHDOG_USEC": "30000000"}, 30.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
        ],
    )
    def test_watchdog(self, environ: dict[str, str], seconds: float | None) -> None:
        """A watchdog that asks for this process is answered; both variables are removed."""
        assert Notifier.take(environ, pid=7).watchdog_seconds == seconds
        assert environ == {}


class NotifyServiceTests:
    """Ready at the start, alive in between, stopping at the end."""

    @pytest.fixture(autouse=True)
    def _setup(self, directory: Path, manager: ServiceManager) -> None:
        self.address = str(directory / "notify")
        self.manager = manager
        self.clock = Clock()
        self.failure: str | None = None

    def service(self, watchdog_seconds: float | None = None) -> NotifyService:
        """A service whose stop takes at most ten seconds of waiting for clients."""
        return NotifyService(Notifier(self.address, watchdog_seconds), self.clock, lambda: self.failure, 10)

    def test_start_and_stop(self) -> None:
        """It says when the server is ready, and how long a stop may take."""
        service = self.service()
        service.startService()
        assert self.manager.messages() == [["READY=1", "STATUS=serving"]]
        assert self.clock.getDelayedCalls() == []
        service.stopService()
        assert self.manager.messages() == [["STOPPING=1", "EXTEND_TIMEOUT_USEC=70000000", "STATUS=stopping"]]

    def test_watchdog(self) -> None:
        """The watchdog is answered twice per interval, until the stop."""
        service = self.service(10)
        service.startService()
        assert self.manager.messages()[1:] == [["WATCHDOG=1"]]
        self.clock.pump([5, 5])
        assert self.manager.messages() == [["WATCHDOG=1"]] * 2
        service.stopService()
        self.clock.advance(20)
        assert len(self.manager.messages()) == 1

    def test_failed_storage(self) -> None:
        """A storage that has failed is told in words, once, and the watchdog goes on: readers are served."""
        self.service(10).startService()
        self.manager.messages()
        self.failure = "No space left on device"
        self.clock.pump([5, 5])
        assert self.manager.messages() == [
            ["STATUS=read-only until a restart: No space left on device"],
            ["WATCHDOG=1"],
            ["WATCHDOG=1"],
        ]
