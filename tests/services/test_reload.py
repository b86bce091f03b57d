"""What SIGHUP does to the service."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from attrs import define, field
from twisted.internet.error import ReactorNotRunning
from twisted.logger import LogLevel, capturedLogs, formatEvent

from dstreams.services import reload
from dstreams.services.notify import Notifier
from dstreams.services.reload import ReloadService


@define
class FakeReactor:
    """Keeps what it is to do, and notes that it is to stop."""

    calls: list[Callable[[], object]] = field(factory=list)
    stopped: int = 0

    def callFromThread(self, function: Callable[[], object]) -> None:
        self.calls.append(function)

    def stop(self) -> None:
        self.stopped += 1
        if self.stopped > 1:
            raise ReactorNotRunning


@define(eq=False)
class Scene:
    """A service, and what it reloads."""

    reactor: FakeReactor = field(factory=FakeReactor)
    journal: list[str] = field(factory=list)

    def service(self, *actions: Callable[[], object]) -> ReloadService:
        """A service with these actions."""
        return ReloadService(actions, cast("Any", self.reactor), Notifier(None))

    def hang_up(self) -> None:
        """The signal comes, and the reactor has its turn."""
        os.kill(os.getpid(), signal.SIGHUP)
        for call in self.reactor.calls:
            call()
        self.reactor.calls.clear()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Leaves the signal as it was."""
    before = signal.getsignal(signal.SIGHUP)
    yield Scene()
    signal.signal(signal.SIGHUP, before)


class ReloadServiceTests:
    """SIGHUP reloads, and stops the server only when its terminal has gone."""

    def test_reloads(self, scene: Scene) -> None:
        """Each signal does everything once, in the reactor's turn; nothing is done after the end."""
        service = scene.service(lambda: scene.journal.append("one"), lambda: scene.journal.append("two"))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        service.startService()
        scene.hang_up()
        assert scene.journal == ["one", "two"]
        os.kill(os.getpid(), signal.SIGHUP)
        service.stopService()
        for call in scene.reactor.calls:
            call()
        assert scene.journal == ["one", "two"]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    def test_failing_action(self, scene: Scene) -> None:
        """An action that raises is logged, and the others are done."""

        def fail() -> None:
            raise ZeroDivisionError

        service = scene.service(fail, lambda: scene.journal.append("two"))
        with capturedLogs() as events:
            service.reload()
        assert scene.journal == ["two"]
        assert [event["log_level"] for event in events].count(LogLevel.critical) == 1

    def test_nothing_to_do(self, scene: Scene) -> None:
        """A server without certificates says that there is nothing to reload."""
        with capturedLogs() as events:
            scene.service().reload()
        assert [formatEvent(event) for event in events] == ["there is nothing to reload: no certificates are in use"]

    @pytest.mark.parametrize(
        ("at_start", "later", "ignored", "stops"),
        [
            (True, False, False, True),  # the terminal was closed
            (True, True, False, False),  # somebody sent the signal
            (False, False, False, False),  # there never was one
            (True, False, True, False),  # nohup
        ],
    )
    def test_terminal(
        self,
        scene: Scene,
        monkeypatch: pytest.MonkeyPatch,
        at_start: bool,
        later: bool,
        ignored: bool,
        stops: bool,
    ) -> None:
        """A server whose terminal is closed stops, once; others reload."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        service = scene.service(lambda: scene.journal.append("reload"))
        monkeypatch.setattr(reload, "_has_terminal", lambda: at_start)
        service.startService()
        monkeypatch.setattr(reload, "_has_terminal", lambda: later)
        scene.hang_up()
        scene.hang_up()
        assert (scene.reactor.stopped, scene.journal) == ((2, []) if stops else (0, ["reload", "reload"]))
