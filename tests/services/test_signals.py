"""What SIGTERM and SIGINT do, on a fake reactor and with real signals sent to this process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from attrs import define, field
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from dstreams.runtime.shutdown import ShutdownDeadline
from dstreams.services.signals import SignalService


@define
class FakeReactor:
    """A reactor whose turns the test takes."""

    stops: int = 0
    stopping: bool = False
    when_running: list[Callable[[], object]] = field(factory=list)
    from_thread: list[Callable[[], object]] = field(factory=list)

    def callWhenRunning(self, callable: Callable[[], object]) -> None:  # noqa: A002
        self.when_running.append(callable)

    def callFromThread(self, callable: Callable[[], object]) -> None:  # noqa: A002
        self.from_thread.append(callable)

    def run(self) -> None:
        """Begin to run: the reactor takes the signals for itself."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for call in self.when_running:
            call()

    def turn(self) -> None:
        """Do what was asked from a signal."""
        while self.from_thread:
            self.from_thread.pop(0)()

    def stop(self) -> None:
        if self.stopping:
            raise ReactorNotRunning
        self.stopping = True
        self.stops += 1


class SignalServiceTests:
    """The first signal stops, the second hurries, the third ends."""

    @pytest.fixture(autouse=True)
    def _service(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.reactor = FakeReactor()
        self.shutdown = ShutdownDeadline(Clock())
        self.exits: list[int] = []
        self.started = False
        self.service = SignalService(cast("Any", self.reactor), self.shutdown, lambda: self.started, self.exits.append)
        yield
        for number, action in before.items():
            signal.signal(number, action)

    def test_before_the_reactor_runs(self) -> None:
        """A signal while storage is being opened ends the process with status 0, at once."""
        self.service.startService()
        signal.raise_signal(signal.SIGTERM)
        assert self.exits == [0]
        assert self.reactor.from_thread == []

    def test_between_start_and_run(self) -> None:
        """A signal to a server that listens, but whose reactor doesn't run yet, stops it as soon as that runs."""
        self.service.startService()
        self.started = True
        signal.raise_signal(signal.SIGTERM)
        assert (self.exits, self.reactor.stops) == ([], 0)
        self.reactor.run()
        assert self.reactor.stops == 1

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_three_signals(self, number: signal.Signals) -> None:
        """Stop, stop now, end: the steps are taken by the reactor, but for the last."""
        self.service.startService()
        self.reactor.run()
        signal.raise_signal(number)
        assert not self.reactor.stopping
        self.reactor.turn()
        assert self.reactor.stops == 1
        assert not self.shutdown.lost
        signal.raise_signal(number)
        self.reactor.turn()
        assert self.shutdown.lost
        assert self.exits == []
        signal.raise_signal(number)
        assert self.exits == [128 + number]
        assert self.reactor.stops == 1

    def test_says_so(self) -> None:
        """What a signal does is logged."""
        self.service.startService()
        self.reactor.run()
        with capturedLogs() as events:
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
                self.reactor.turn()
        assert [(event["log_level"], event["signal"]) for event in events] == [
            (LogLevel.info, "SIGTERM"),
            (LogLevel.warn, "SIGTERM"),
        ]

    def test_stopping_already(self) -> None:
        """A signal to a server that is stopping for another reason is no error."""
        self.service.startService()
        self.reactor.run()
        self.reactor.stopping = True
        signal.raise_signal(signal.SIGTERM)
        self.reactor.turn()
        assert self.reactor.stops == 0

    def test_ignored_interrupt(self) -> None:
        """A SIGINT that is ignored, as in a shell's background jobs, stays so."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.service.startService()
        self.reactor.run()
        signal.raise_signal(signal.SIGINT)
        assert self.reactor.from_thread == []
        assert self.exits == []
