"""Writing lines: order, patience, and outputs that fail."""

from __future__ import annotations

import syslog

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from dstreams.telemetry.lines import FLUSH_BYTES, FLUSH_SECONDS, LineWriter, Syslog


@define(eq=False)
class FakeOutput:
    """Notes what is written."""

    writes: list[bytes] = field(factory=list)
    flushes: int = 0
    error: Exception | None = None

    def write(self, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.writes.append(data)

    def flush(self) -> None:
        self.flushes += 1


class LineWriterTests:
    """When lines are written."""

    def test_at_once(self) -> None:
        """A line is written and flushed when it comes."""
        output = FakeOutput()
        LineWriter(output, Clock().callLater).write(b"a\n")
        assert (output.writes, output.flushes) == ([b"a\n"], 1)

    def test_together(self) -> None:
        """Lines that may wait are written together, soon."""
        clock, output = Clock(), FakeOutput()
        writer = LineWriter(output, clock.callLater)
        writer.write_soon(b"a\n")
        clock.advance(FLUSH_SECONDS / 2)
        writer.write_soon(b"b\n")
        assert output.writes == []
        clock.advance(FLUSH_SECONDS / 2)
        assert output.writes == [b"a\nb\n"]
        assert not clock.getDelayedCalls()
        writer.write_soon(b"c\n")
        clock.advance(FLUSH_SECONDS)
        assert output.writes == [b"a\nb\n", b"c\n"]

    def test_in_order(self) -> None:
        """A line that doesn't wait comes after those that did."""
        clock, output = Clock(), FakeOutput()
        writer = LineWriter(output, clock.callLater)
        writer.write_soon(b"a\n")
        writer.write(b"b\n")
        assert b"".join(output.writes) == b"a\nb\n"
        clock.advance(FLUSH_SECONDS)
        assert b"".join(output.writes) == b"a\nb\n"

    def test_bounded(self) -> None:
        """Many bytes don't wait."""
        output = FakeOutput()
        writer = LineWriter(output, Clock().callLater)
        line = b"x" * 1023 + b"\n"
        for _ in range(FLUSH_BYTES // len(line)):
            assert output.writes == []
            writer.write_soon(line)
        assert [len(data) for data in output.writes] == [FLUSH_BYTES]

    def test_without_reactor(self) -> None:
        """Where nobody can call later nothing waits."""
        output = FakeOutput()
        LineWriter(output).write_soon(b"a\n")
        assert output.writes == [b"a\n"]

    @pytest.mark.parametrize("error", [OSError(28, "full"), BrokenPipeError(), ValueError("closed file")])
    def test_output_fails(self, error: Exception) -> None:
        """Lines that can't be written are lost; how many is told when lines can be written again."""
        clock, output = Clock(), FakeOutput(error=error)
        writer = LineWriter(output, clock.callLater, lambda lost: b"%d lost\n" % lost)
        writer.write_soon(b"a\n")
        writer.write_soon(b"b\n")
        writer.write(b"c\n")
        output.error = None
        writer.write(b"d\n")
        writer.write(b"e\n")
        assert output.writes == [b"3 lost\nd\n", b"e\n"]

    def test_untold(self) -> None:
        """Without a way to tell, lines are lost in silence."""
        output = FakeOutput(error=OSError(28, "full"))
        writer = LineWriter(output)
        writer.write(b"a\n")
        output.error = None
        writer.write(b"b\n")
        assert output.writes == [b"b\n"]


class SyslogTests:
    """Lines for syslog."""

    def test_messages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every line is a message; syslog is opened with the prefix at the first."""
        calls: list[object] = []

        def send(priority: int, line: str) -> None:
            if "\0" in line:
                raise ValueError("embedded null character")
            calls.append((priority, line))

        monkeypatch.setattr(syslog, "openlog", lambda *arguments: calls.append(arguments))
        monkeypatch.setattr(syslog, "syslog", send)
        output = Syslog("streams")
        assert calls == []
        output.write(b"a\n\xff\n\0\n")
        output.write(b"b\n")
        output.flush()
        assert calls == [
            ("streams", syslog.LOG_PID, syslog.LOG_DAEMON),
            (syslog.LOG_INFO, "a"),
            (syslog.LOG_INFO, "\ufffd"),
            (syslog.LOG_INFO, "b"),
        ]
