"""Log lines that repeat others."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure

from dstreams.telemetry.fields import REQUESTS
from dstreams.telemetry.repeats import AT_ONCE, MAX_KINDS, SECONDS, Repeats


@define(eq=False)
class LastWords:
    """Says something when it goes, as a Deferred does whose failure nobody has handled."""

    log: Logger

    def __del__(self) -> None:
        self.log.critical("unhandled")


@define(eq=False)
class Log:
    """What is logged, by Twisted's loggers, with repeats left out."""

    clock: Clock = field(factory=Clock)
    events: list[LogEvent] = field(factory=list)
    repeats: Repeats = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.repeats = Repeats(self.events.append, self.later, self.clock.seconds)

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        self.clock.callLater(seconds, function)

    def __call__(self, event: LogEvent) -> None:
        if self.repeats.is_new(event):
            self.events.append(event)

    def of(self, namespace: str = "dstreams.storage") -> Logger:
        return Logger(namespace, observer=self)  # type: ignore[arg-type]

    def take(self) -> list[str]:
        """The lines since the last time."""
        lines = [formatEvent(event) for event in self.events]
        self.events.clear()
        return lines

    def ask(self, level: LogLevel, **fields: object) -> None:
        """A request's event."""
        self({"log_namespace": REQUESTS, "log_level": level, "log_format": "request failed", "log_fields": fields})


class RepeatsTests:
    """What is left out, and told of."""

    def test_storm(self) -> None:
        """Of many the first are logged at once, and then one line in five seconds tells how many more there were."""
        log = Log()
        for number in range(1000):
            log.of().error("no room for {number}", number=number)
        assert log.take() == [f"no room for {number}" for number in range(AT_ONCE)]
        log.clock.advance(SECONDS)
        assert log.take() == ["990 more were left out of: dstreams.storage: no room for 999"]
        for _ in range(3):
            log.of().error("no room for {number}", number="x")
        assert log.take() == []
        log.clock.advance(SECONDS)
        assert log.take() == ["3 more were left out of: dstreams.storage: no room for x"]

    def test_over(self) -> None:
        """When it is over nothing is told any more, nothing waits, and the next time begins anew."""
        log = Log()
        for _ in range(20):
            log.of().error("full")
        log.clock.pump([SECONDS, SECONDS])
        assert log.clock.getDelayedCalls() == []
        log.clock.advance(SECONDS * AT_ONCE)
        log.take()
        for _ in range(20):
            log.of().error("full")
        assert log.take() == ["full"] * AT_ONCE
        log.clock.advance(SECONDS)
        assert len(log.take()) == 1

    def test_slow(self) -> None:
        """What comes no more often than that is logged every time."""
        log = Log()
        for _ in range(100):
            log.of().error("again")
            log.clock.advance(SECONDS)
        assert log.take() == ["again"] * 100

    def test_kinds(self) -> None:
        """Others aren't left out for one that repeats: of another text, part, level or exception."""
        log = Log()
        for _ in range(50):
            log.of().error("full")
        log.take()
        log.of().error("broken")
        log.of("dstreams.http").error("full")
        log.of().warn("full")
        log.of().failure("full", Failure(ValueError()))
        log.of().failure("full", Failure(KeyError()))
        assert log.take() == ["broken", "full", "full", "full", "full"]

    def test_bare_texts(self) -> None:
        """Messages that are nothing but a text are as many kinds as there are texts."""
        log = Log()
        for number in range(50):
            log.of().warn("{warning}", warning=f"key {number} has an old name")
        assert len(log.take()) == 50

    @pytest.mark.parametrize("namespace", ["dstreams", "dstreams.services.site"])
    def test_news(self, namespace: str) -> None:
        """What the server tells without trouble is always logged, and so is what was asked for: debug."""
        log = Log()
        for _ in range(50):
            log.of(namespace).info("listening on {address}", address=1)
            log.of("twisted").debug("x")
        assert len(log.take()) == 100

    def test_twisted(self) -> None:
        """What Twisted tells of itself is limited at every level: it reports each accept that fails."""
        log = Log()
        for _ in range(50):
            log.of("twisted.internet.tcp").info("EMFILE recovery")
        assert len(log.take()) == AT_ONCE

    def test_failures(self) -> None:
        """The last exception that was left out is told without its traceback."""
        log = Log()
        for _ in range(50):
            log.of().failure("reading failed", Failure(OSError(5, "Input/output error")))
        log.take()
        log.clock.advance(SECONDS)
        assert log.take() == [
            "40 more were left out of: dstreams.storage: reading failed: builtins.OSError: [Errno 5] Input/output error"
        ]

    def test_requests(self) -> None:
        """Requests that fail are of a kind by operation and error; those of clients' faults are all logged."""
        log = Log()
        for _ in range(50):
            log.ask(LogLevel.error, **{"ds.operation": "append", "ds.error_code": "UNAVAILABLE"})
        log.ask(LogLevel.error, **{"ds.operation": "append", "ds.error_code": "INSUFFICIENT_STORAGE"})
        log.ask(LogLevel.error, **{"ds.operation": "create", "ds.error_code": "UNAVAILABLE"})
        assert len(log.take()) == AT_ONCE + 2
        log.clock.advance(SECONDS)
        (summary,) = log.events
        assert summary["log_level"] is LogLevel.error
        assert log.take() == ["40 more were left out of: dstreams.requests: request failed (append, UNAVAILABLE)"]
        for _ in range(50):
            log.ask(LogLevel.warn, **{"ds.operation": "append"})
            log.ask(LogLevel.info, **{"ds.operation": "append"})
        assert len(log.take()) == 100

    def test_last_words(self) -> None:
        """What goes with an event that was left out may log something itself, in the middle of the next one."""
        log = Log()

        def storm() -> None:
            for _ in range(AT_ONCE):
                log.of().error("full")
            for _ in range(3):
                log.of().error("full", what=LastWords(log.of()))
            log.of().error("done")

        thread = Thread(target=storm, daemon=True)  # else a lock that is never free would hold up the tests' end
        thread.start()
        thread.join(20)
        assert log.take()[AT_ONCE:] == ["unhandled", "unhandled", "done"]

    def test_at_the_end(self) -> None:
        """At the end what was left out is told at once."""
        log = Log()
        for _ in range(50):
            log.of().error("full")
        log.take()
        assert log.repeats.flush()
        assert log.take() == ["40 more were left out of: dstreams.storage: full"]
        assert not log.repeats.flush()

    def test_bounded(self) -> None:
        """However many kinds there are, only so many are remembered, and nothing that was left out is forgotten."""
        log = Log()
        for _ in range(AT_ONCE + 1):
            log.of().error("first")
        for number in range(2 * MAX_KINDS):
            log.of().error("{text}", text=f"{number}")
        assert len(log.repeats._kinds) <= MAX_KINDS
        log.take()
        log.clock.advance(SECONDS)
        assert log.take() == ["1 more were left out of: dstreams.storage: first"]
