"""Writes log lines in a thread, so that a blocked output never delays the server."""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase
from queue import SimpleQueue
from threading import Event, RLock, Thread
from typing import Final, Protocol

from attrs import define, field

FLUSH_SECONDS: Final = 0.1
"""Maximum seconds for which a line waits for others."""

FLUSH_BYTES: Final = 64 * 1024
"""Number of bytes that are written without waiting for more."""

MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
"""Maximum number of bytes queued for a blocked output; later lines are lost."""

END_SECONDS: Final = 2.0
"""Maximum seconds for which the end of the process waits for a blocked output."""


class Output(Protocol):
    """The destination of bytes: a file."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


@define(eq=False)
class LineWriter:
    """Writes lines in order. It may be called from any thread.

    Until :meth:`start` a line is written by whoever logs it. Afterwards a thread writes, and what it has not written
    yet is bounded: when the output takes no more (nobody reads the pipe), or can't be written (the disk is full),
    lines are lost, and the server goes on.

    :param output: where they go.
    :param call_later: the reactor's; ``None`` writes every line at once.
    :param lost: makes a line that says how many lines were lost; it is written in their place, as soon as the output
        takes lines again.
    """

    _output: Output
    _call_later: Callable[[float, Callable[[], object]], object] | None = None
    _lost: Callable[[int], bytes] | None = None
    _failed: int = field(default=0, init=False)
    """The number of lines lost by the output since the last report of it; only the writing thread changes it."""
    _refused: int = field(default=0, init=False)
    """The number of lines that were discarded because the queue was full."""
    _held: list[bytes] = field(factory=list, init=False)
    _held_bytes: int = field(default=0, init=False)
    _armed: bool = field(default=False, init=False)
    _thread: Thread | None = field(default=None, init=False)
    # Its put() may interrupt itself, as a log line does that the garbage collector causes.
    _queue: SimpleQueue[tuple[bytes, int] | Callable[[], object]] = field(factory=SimpleQueue, init=False)
    _queued_bytes: int = field(default=0, init=False)
    """The number of bytes queued since the start, and the number of those that the thread has processed."""
    _done_bytes: int = field(default=0, init=False)
    _lock: RLock = field(factory=RLock, init=False)

    def start(self) -> None:
        """Start the writing thread. Call it after a fork, because a child does not inherit the thread."""
        with self._lock:
            thread = Thread(target=self._run, name="log", daemon=True)
            with suppress(RuntimeError):  # no more threads: the callers go on writing
                thread.start()
                self._thread = thread

    def write(self, line: bytes) -> None:
        """Write a line now, after the queued ones."""
        with self._lock:
            self._flush_held()
            self._put(line, 1)

    def write_soon(self, line: bytes) -> None:
        """Write a line within a tenth of a second, together with others; on the reactor's thread."""
        if self._call_later is None:
            self.write(line)
            return
        with self._lock:
            self._held.append(line)
            self._held_bytes += len(line)
            if self._held_bytes >= FLUSH_BYTES:
                self._flush_held()
            elif not self._armed:
                self._armed = True
                self._call_later(FLUSH_SECONDS, self._due)

    def call(self, function: Callable[[], object]) -> None:
        """Call a function that changes the output, such as its rotation, between two lines."""
        with self._lock:
            self._flush_held()
            if self._thread is None:
                function()
            else:
                self._queue.put(function)

    def flush(self, seconds: float = END_SECONDS) -> bool:
        """Write the queued lines. Return whether that was done within the given time."""
        done = Event()
        self.call(done.set)
        return done.wait(seconds)

    def _due(self) -> None:
        with self._lock:
            self._armed = False
            self._flush_held()

    def _flush_held(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self._put(b"".join(held), len(held))

    def _put(self, data: bytes, count: int) -> None:
        """Write or queue lines; the caller holds the lock."""
        if self._thread is None:
            self._write(data, count)
            return
        waiting = self._queued_bytes - self._done_bytes
        # Once full, it takes no lines until it is empty: else a slow reader would get one line that says how many are
        # lost for each line that isn't.
        if self._refused or (waiting and waiting + len(data) > MAX_QUEUED_BYTES):
            self._refused += count
        else:
            self._queued_bytes += len(data)
            self._queue.put((data, count))

    def _run(self) -> None:
        """Write the queued lines; the function of the thread."""
        while True:
            item = self._queue.get()
            if callable(item):
                with suppress(Exception):  # a file that can't be rotated: the lines go on into the old one
                    item()
                continue
            data, count = item
            self._write(data, count)
            with self._lock:
                self._done_bytes += len(data)
                refused = 0
                if self._done_bytes == self._queued_bytes:
                    refused, self._refused = self._refused, 0
            if refused:
                self._failed += refused
                self._write(b"", 0)

    def _write(self, data: bytes, count: int) -> None:
        if self._failed and self._lost is not None:
            data = self._lost(self._failed) + data
        try:
            self._output.write(data)
            self._output.flush()
        except Exception:  # OSError; ValueError when the file was closed; and nothing may end the thread
            self._failed += count
        else:
            self._failed = 0


@define(eq=False)
class Unbuffered:
    """Writes to a raw file (an ``Output``), such as stdout's.

    Without a buffer, whose lock would be held by a write that lasts: the interpreter needs that lock at its end.
    """

    _raw: RawIOBase
    _torn: bool = field(default=False, init=False)
    """Whether the last write failed in the middle of a line."""

    def write(self, data: bytes) -> None:
        """Write all bytes, however long that takes."""
        left = memoryview(b"\n" + data if self._torn else data)
        while left:
            written = self._raw.write(left)
            if written is None:  # another process that shares the terminal or pipe has made it non-blocking
                _wait_writable(self._raw)
                continue
            self._torn = left[written - 1] != 0x0A if written else self._torn
            left = left[written:]

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""


def _wait_writable(raw: RawIOBase) -> None:
    poll = select.poll()
    poll.register(raw, select.POLLOUT)
    poll.poll()


@define(eq=False)
class Syslog:
    """Passes lines to syslog (an ``Output``), which adds the time, the host and the process.

    :param prefix: what its lines begin with.
    """

    _prefix: str
    _open: bool = field(default=False, init=False)

    def write(self, data: bytes) -> None:
        """Write each line as one message."""
        import syslog

        if not self._open:
            self._open = True
            syslog.openlog(self._prefix, syslog.LOG_PID, syslog.LOG_DAEMON)
        for line in data.decode("utf-8", "replace").splitlines():
            with suppress(ValueError):  # a NUL
                syslog.syslog(syslog.LOG_INFO, line)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""
