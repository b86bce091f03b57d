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
from dstreams.telemetry.logs import LogObserver
from dstreams.telemetry.repeats import AT_ONCE, SECONDS
from dstreams.telemetry.twistd import Destination, build_observer, destination

FOREGROUND = {"nodaemon": True, "logfile": None, "syslog": False}
DAEMON = {"nodaemon": False, "logfile": None, "syslog": False}


class FakeReactor(Clock):
    """Calls from threads at once; notes what is to be called when it runs and after its end."""

    def __init__(self) -> None:
        super().__init__()
        self.when_running: list[Callable[[], object]] = []
        self.at_end: list[tuple[object, ...]] = []

    def callWhenRunning(self, function: Callable[[], object]) -> None:
        self.when_running.append(function)

    def addSystemEventTrigger(self, *trigger: object) -> None:  # noqa: N802 (Twisted's name)
        self.at_end.append(trigger)

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        function(*arguments)


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
        found = destination(options)
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

    def test_real_stdout(self, find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lines go past stdout's buffer, after what that has held."""
        with (tmp_path / "out").open("w") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            stdout.write("first\n")
            find(FOREGROUND).output.write(b"second\n")
            assert (tmp_path / "out").read_bytes() == b"first\nsecond\n"


class RotationTests:
    """SIGUSR1."""

    def test_rotation(self, tmp_path: Path) -> None:
        """The signal begins the file anew and keeps the old one; no line is lost, also when a thread writes."""
        reactor, name = FakeReactor(), tmp_path / "a.log"
        made = build_observer(DAEMON | {"logfile": str(name)}, "text", LogFilter(), "1.0", reactor)
        log = Logger("dstreams", observer=made)
        log.info("old")
        os.kill(os.getpid(), signal.SIGUSR1)
        log.info("newer")
        assert b"old" in (tmp_path / "a.log.1").read_bytes()
        [start] = reactor.when_running
        start()
        for number in range(200):
            log.info("line {number}", number=number)
        os.kill(os.getpid(), signal.SIGUSR1)
        log.info("newest")
        made.flush()
        assert [line.split(b"] ")[1] for line in name.read_bytes().splitlines()] == [b"newest"]
        kept = (tmp_path / "a.log.1").read_bytes().splitlines()
        assert [line.split(b"] ")[1] for line in kept] == [b"newer", *(b"line %d" % number for number in range(200))]
        assert b"old" in (tmp_path / "a.log.2").read_bytes()
        found = made.writer._output
        assert isinstance(found, LogFile)
        made.writer.call(found.close)
        made.flush()

    def test_other_use_of_the_signal(self, tmp_path: Path) -> None:
        """A SIGUSR1 that means something else already isn't taken away."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        made = observer(DAEMON | {"logfile": str(tmp_path / "a.log")})
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        found = made.writer._output
        assert isinstance(found, LogFile)
        found.close()


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
        made = observer(FOREGROUND, log_format)
        Logger("dstreams", observer=made).info("hello")
        made.flush()
        line = stdout.buffer.getvalue()
        assert line.startswith(b"{") == is_json
        assert b"hello" in line
        if is_json:
            assert json.loads(line)["service.version"] == "1.0"

    def test_filter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Events below the level aren't written."""
        stdout = FakeTerminal(is_terminal=False)
        monkeypatch.setattr(sys, "stdout", stdout)
        made = observer(FOREGROUND, level="warn")
        log = Logger("dstreams", observer=made)
        log.info("quiet")
        log.error("loud")
        made.flush()
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
        made.flush()
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
        made = observer(FOREGROUND)
        log = Logger("dstreams", observer=made)
        log.info("one")
        log.info("two")
        made.flush()
        Full.full = False
        log.info("three")
        made.flush()
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

    def test_at_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last lines are written before what was registered for the end of the process while the reactor ran."""
        registered: list[object] = []
        monkeypatch.setattr(sys, "stdout", FakeTerminal(is_terminal=True))
        monkeypatch.setattr(twistd.atexit, "register", registered.append)
        reactor = FakeReactor()
        made = build_observer(FOREGROUND, "text", LogFilter(), "1.0", reactor)
        assert registered == [made.flush]
        assert reactor.at_end == [("after", "shutdown", registered.append, made.flush)]

    def test_interface(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is what Twisted calls a log observer."""
        monkeypatch.setattr(sys, "stdout", FakeTerminal(is_terminal=True))
        verifyObject(ILogObserver, observer(FOREGROUND))
