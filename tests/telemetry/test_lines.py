"""Writing lines: order, patience, and outputs that fail."""

from __future__ import annotations

import fcntl
import gc
import io
import os
import re
import syslog
import time
from collections.abc import Iterator
from threading import Thread

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from dstreams.telemetry import lines
from dstreams.telemetry.lines import FLUSH_BYTES, FLUSH_SECONDS, LineWriter, Syslog, Unbuffered


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


@define(eq=False)
class Pipe:
    """A pipe of a page, whose reader reads when it is asked to."""

    reader: int
    raw: io.FileIO

    def read(self, end: bytes) -> bytes:
        """All that comes until it ends with ``end``."""
        data = b""
        while not data.endswith(end):
            data += os.read(self.reader, 65_536)
        return data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with open(writer, "wb", buffering=0) as raw:
        yield Pipe(reader, raw)
        os.close(reader)  # first, so that a thread that still writes ends


def started(pipe: Pipe) -> LineWriter:
    writer = LineWriter(Unbuffered(pipe.raw), None, lambda lost: b"%d lost\n" % lost)
    writer.start()
    return writer


def numbers(data: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"^line (\d+)$", data, re.MULTILINE)]


class ThreadTests:
    """After the start, when a thread writes."""

    def test_written(self, pipe: Pipe) -> None:
        """Lines are written at once and in order, and flush() waits for that."""
        writer = started(pipe)
        for number in range(100):
            writer.write(b"line %d\n" % number)
        assert writer.flush()
        assert numbers(pipe.read(b"line 99\n")) == [*range(100)]

    def test_no_reader(self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pipe that nobody reads delays no caller; lines that fit are kept, the others are counted in their place."""
        monkeypatch.setattr(lines, "MAX_QUEUED_BYTES", 20_000)
        writer = started(pipe)
        begin = time.perf_counter()
        for number in range(5000):
            writer.write(b"line %d\n" % number)
        assert writer.flush(0.05) is False
        assert time.perf_counter() - begin < 5
        text = pipe.read(b"lost\n")  # without any line after
        found = re.fullmatch(rb"((?:line \d+\n)+)(\d+) lost\n", text)
        assert found is not None
        kept, lost = numbers(found[1]), int(found[2])
        assert kept == [*range(len(kept))]
        assert 15_000 < len(found[1]) < 40_000
        assert len(kept) + lost == 5000
        writer.write(b"after\n")
        assert pipe.read(b"after\n") == b"after\n"

    def test_slow_reader(self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every line is either written or counted, in order, however often the queue fills up."""
        monkeypatch.setattr(lines, "MAX_QUEUED_BYTES", 2000)
        writer, data = started(pipe), bytearray()

        def read() -> None:
            while not data.endswith(b"end\n"):
                data.extend(os.read(pipe.reader, 512))

        thread = Thread(target=read)
        thread.start()
        for number in range(30_000):
            writer.write(b"line %d\n" % number)
        assert writer.flush(20)
        writer.write(b"end\n")
        thread.join(20)
        at, notices = 0, 0
        for line in data.splitlines()[:-1]:
            if line.endswith(b"lost"):
                at += int(line.split()[0])
                notices += 1
            else:
                assert line == b"line %d" % at
                at += 1
        assert at == 30_000
        assert notices

    def test_large_line(self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line that is larger than the queue is written when nothing else waits."""
        monkeypatch.setattr(lines, "MAX_QUEUED_BYTES", 1000)
        writer = started(pipe)
        writer.write(b"x" * 50_000 + b"\n")
        assert len(pipe.read(b"\n")) == 50_001

    def test_several_threads(self, pipe: Pipe) -> None:
        """Lines of several threads are whole, and those of each are in order."""
        clock = Clock()
        writer = LineWriter(Unbuffered(pipe.raw), clock.callLater)
        writer.start()

        def log(name: int) -> None:
            for number in range(500):
                (writer.write if name else writer.write_soon)(b"%d: %d\n" % (name, number))

        threads = [Thread(target=log, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        texts: list[bytes] = []
        while sum(text.count(b"\n") for text in texts) < 2000:
            texts.append(os.read(pipe.reader, 65_536))
            clock.advance(FLUSH_SECONDS)
        for thread in threads:
            thread.join()
        found = [line.split(b": ") for line in b"".join(texts).splitlines()]
        for name in range(4):
            assert [int(number) for who, number in found if int(who) == name] == [*range(500)]

    def test_by_the_garbage_collector(self, pipe: Pipe) -> None:
        """A line that is logged by an object's end, while another one is being queued, is written."""
        writer = started(pipe)

        class Noisy:
            def __del__(self) -> None:
                writer.write(b"gone\n")

        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for number in range(200):
                noisy = Noisy()
                noisy.itself = noisy  # type: ignore[attr-defined]
                del noisy
                writer.write(b"line %d\n" % number)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        writer.write(b"end\n")
        text = pipe.read(b"end\n")
        assert text.count(b"gone\n") == 200
        assert numbers(text) == [*range(200)]

    def test_output_fails(self) -> None:
        """Whatever the output raises, the thread goes on, and says how many lines were lost."""
        output = FakeOutput(error=RuntimeError())
        writer = LineWriter(output, None, lambda lost: b"%d lost\n" % lost)
        writer.start()
        writer.write(b"a\n")
        writer.call(lambda: 1 / 0)
        assert writer.flush()
        output.error = None
        writer.write(b"b\n")
        assert writer.flush()
        assert output.writes == [b"1 lost\nb\n"]

    def test_no_more_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no thread can be started, the callers write."""

        def fail(_: Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(Thread, "start", fail)
        output = FakeOutput()
        writer = LineWriter(output)
        writer.start()
        writer.write(b"a\n")
        assert output.writes == [b"a\n"]


class UnbufferedTests:
    """Writing to a raw file."""

    def test_non_blocking(self, pipe: Pipe) -> None:
        """A pipe that another process has made non-blocking is waited for."""
        os.set_blocking(pipe.raw.fileno(), False)
        writer = started(pipe)
        for number in range(5000):
            writer.write(b"line %d\n" % number)
        assert numbers(pipe.read(b"line 4999\n")) == [*range(5000)]

    def test_torn(self) -> None:
        """A line that was cut by an error ends before the next one begins."""

        class Full(io.RawIOBase):
            room = 3
            data = b""

            def write(self, data: memoryview) -> int:  # type: ignore[override]
                if not self.room:
                    raise OSError(28, "No space left on device")
                piece = bytes(data[: self.room])
                self.room -= len(piece)
                self.data += piece
                return len(piece)

        full = Full()
        output = Unbuffered(full)
        with pytest.raises(OSError, match="No space"):
            output.write(b"first\n")
        full.room = 100
        output.write(b"second\n")
        output.write(b"third\n")
        assert full.data == b"fir\nsecond\nthird\n"


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
