"""Where the log goes, and in which form."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger
from twisted.python.logfile import LogFile
from zope.interface.verify import verifyObject

from dstreams.config import LogFilter
from dstreams.telemetry import twistd
from dstreams.telemetry.fields import REQUESTS
from dstreams.telemetry.lines import FLUSH_SECONDS, Output, Syslog
from dstreams.telemetry.observer import LogObserver
from dstreams.telemetry.repeats import AT_ONCE, SECONDS
from dstreams.telemetry.twistd import Destination, build_observer, destination

FOREGROUND = {"nodaemon": True, "logfile": None, "syslog": False}
DAEMON = {"nodaemon": False, "logfile": None, "syslog": False}


class FakeReactor(Clock):
    """Calls from threads at once."""

    def callFromThread(self, function: object) -> None:
        assert callable(function)
        function()


@define(eq=False)
class FakeTerminal:
    """A stdout that is a terminal, or isn't."""

    is_terminal: bool
    buffer: io.BytesIO = field(factory=io.BytesIO)

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.fixture(autouse=True)
def nothing_at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twistd.atexit, "register", lambda function: None)


@pytest.fixture(autouse=True)
def no_signals() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def find() -> Iterator[Callable[[dict[str, object]], Destination]]:
    """``destination``; files are closed at the end."""
    outputs: list[Output] = []

    def find(options: dict[str, object]) -> Destination:
        found = destination(options, FakeReactor())
        outputs.append(found.output)
        return found

    yield find
    for output in outputs:
        if isinstance(output, LogFile):
            output.close()


Find = Callable[[dict[str, object]], Destination]


def observer(options: dict[str, object], log_format: str = "auto", level: str = "info") -> LogObserver:
    return build_observer(options, log_format, LogFilter(level), "1.0", FakeReactor())


class DestinationTests:
    """``twistd``'s options."""

    @pytest.mark.parametrize("name", [None, "", "-"])
    def test_stdout(self, find: Find, name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the foreground the log goes to stdout, unless a file is named."""
        stdout = FakeTerminal(is_terminal=True)
        monkeypatch.setattr(sys, "stdout", stdout)
        found = find(FOREGROUND | {"logfile": name})
        assert found.output is stdout.buffer
        assert found.for_people

    @pytest.mark.parametrize("options", [FOREGROUND, DAEMON])
    def test_file(self, find: Find, options: dict[str, object], tmp_path: Path) -> None:
        """A named file is written to, with -n too."""
        found = find(options | {"logfile": str(tmp_path / "a.log")})
        assert isinstance(found.output, LogFile)
        assert found.output.path == str(tmp_path / "a.log")
        assert not found.for_people

    def test_daemon(self, find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A daemon writes to twistd.log, in the directory that it was started in."""
        monkeypatch.chdir(tmp_path)
        found = find(DAEMON)
        assert isinstance(found.output, LogFile)
        assert found.output.path == str(tmp_path / "twistd.log")

    def test_daemon_without_stdout(self, find: Find) -> None:
        """A daemon has no stdout: that is said, and the start ends."""
        with pytest.raises(SystemExit, match="can't log to stdout"):
            find(DAEMON | {"logfile": "-"})

    def test_syslog(self, find: Find) -> None:
        """Syslog takes lines for people, without a time of ours, before any file."""
        found = find(FOREGROUND | {"syslog": True, "prefix": "ds", "logfile": "x"})
        assert isinstance(found.output, Syslog)
        assert (found.for_people, found.dated) == (True, False)

    def test_rotation(self, find: Find, tmp_path: Path) -> None:
        """SIGUSR1 begins the file anew and keeps the old one."""
        found = find(DAEMON | {"logfile": str(tmp_path / "a.log")})
        found.output.write(b"old\n")
        os.kill(os.getpid(), signal.SIGUSR1)
        found.output.write(b"new\n")
        assert (tmp_path / "a.log").read_bytes() == b"new\n"
        assert (tmp_path / "a.log.1").read_bytes() == b"old\n"

    def test_other_use_of_the_signal(self, find: Find, tmp_path: Path) -> None:
        """A SIGUSR1 that means something else already isn't taken away."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        find(DAEMON | {"logfile": str(tmp_path / "a.log")})
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


class ObserverTests:
    """The form, the filter, and when lines are written."""

    @pytest.mark.parametrize(
        ("is_terminal", "log_format", "is_json"),
        [
            (True, "auto", False),
            (False, "auto", True),
            (True, "json", True),
            (False, "json", True),
            (True, "text", False),
            (False, "text", False),
        ],
    )
    def test_form(self, is_terminal: bool, log_format: str, is_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Text on a terminal, JSON elsewhere, unless one of them is asked for."""
        stdout = FakeTerminal(is_terminal)
        monkeypatch.setattr(sys, "stdout", stdout)
        Logger("dstreams", observer=observer(FOREGROUND, log_format)).info("hello")
        line = stdout.buffer.getvalue()
        assert line.startswith(b"{") == is_json
        assert b"hello" in line
        if is_json:
            assert json.loads(line)["service.version"] == "1.0"

    def test_filter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Events below the level aren't written."""
        stdout = FakeTerminal(is_terminal=False)
        monkeypatch.setattr(sys, "stdout", stdout)
        log = Logger("dstreams", observer=observer(FOREGROUND, level="warn"))
        log.info("quiet")
        log.error("loud")
        assert [json.loads(line)["message"] for line in stdout.buffer.getvalue().splitlines()] == ["loud"]

    def test_requests_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Requests' events are written a little later, in order."""
        stdout = FakeTerminal(is_terminal=False)
        monkeypatch.setattr(sys, "stdout", stdout)
        reactor = FakeReactor()
        made = build_observer(FOREGROUND, "text", LogFilter(), "1.0", reactor)
        Logger(REQUESTS, observer=made).info("request completed", log_fields={})
        assert stdout.buffer.getvalue() == b""
        reactor.advance(FLUSH_SECONDS)
        assert b"request completed" in stdout.buffer.getvalue()

    def test_lost_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lines that are lost are told of in the log's own form."""

        class Full(io.BytesIO):
            full = True

            def write(self, data: object) -> int:
                if self.full:
                    raise OSError(28, "No space left on device")
                return super().write(data)  # type: ignore[arg-type]

        stdout = FakeTerminal(is_terminal=False, buffer=Full())
        monkeypatch.setattr(sys, "stdout", stdout)
        log = Logger("dstreams", observer=observer(FOREGROUND))
        log.info("one")
        log.info("two")
        Full.full = False
        log.info("three")
        lost, three = (json.loads(line) for line in stdout.buffer.getvalue().splitlines())
        assert lost["message"] == "2 log lines before this one could not be written"
        assert lost["log.level"] == "error"
        assert three["message"] == "three"

    def test_repeats(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a thousand failures only some are written, and how many there were, at the latest at the end."""
        stdout = FakeTerminal(is_terminal=False)
        monkeypatch.setattr(sys, "stdout", stdout)
        reactor = FakeReactor()
        made = build_observer(FOREGROUND, "json", LogFilter(), "1.0", reactor)
        log, fields = Logger(REQUESTS, observer=made), {"ds.operation": "append"}
        for _ in range(1000):
            log.error("request failed", log_fields=fields)
        reactor.advance(SECONDS)
        for _ in range(7):
            log.error("request failed", log_fields=fields)
        made.flush()
        lines = [json.loads(line) for line in stdout.buffer.getvalue().splitlines()]
        assert [line["message"] for line in lines] == [
            *["request failed"] * AT_ONCE,
            "990 more were left out of: dstreams.requests: request failed (append)",
            "7 more were left out of: dstreams.requests: request failed (append)",
        ]
        assert lines[-1]["log.level"] == "error"
        assert lines[-1]["labels.count"] == "7"

    def test_interface(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is what Twisted calls a log observer."""
        monkeypatch.setattr(sys, "stdout", FakeTerminal(is_terminal=True))
        verifyObject(ILogObserver, observer(FOREGROUND))
