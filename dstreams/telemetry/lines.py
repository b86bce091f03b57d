"""Writes log lines: at once, or several together when they are many."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from attrs import define, field

FLUSH_SECONDS: Final = 0.1
"""How long a line may wait for others."""

FLUSH_BYTES: Final = 64 * 1024
"""So many bytes don't wait any longer."""


class Output(Protocol):
    """Where bytes go: a file."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


@define(eq=False)
class LineWriter:
    """Writes lines in their order.

    A log that can't be written (the disk is full, the pipe's reader has gone) loses lines; it must not stop the server.

    :param output: where they go.
    :param call_later: the reactor's; ``None`` writes every line at once.
    :param lost: makes a line that tells how many were lost; it is written as soon as lines can be written again.
    """

    _output: Output
    _call_later: Callable[[float, Callable[[], object]], object] | None = None
    _lost: Callable[[int], bytes] | None = None
    _dropped: int = field(default=0, init=False)
    """How many lines were lost since that was last told."""
    _held: list[bytes] = field(factory=list, init=False)
    _held_bytes: int = field(default=0, init=False)
    _armed: bool = field(default=False, init=False)

    def write(self, line: bytes) -> None:
        """Write a line now, after those that wait. Any thread may call it."""
        if self._held:
            self.flush()
        self._put(line, 1)

    def write_soon(self, line: bytes) -> None:
        """Write a line within a tenth of a second, together with others; on the reactor's thread."""
        if self._call_later is None:
            self.write(line)
            return
        self._held.append(line)
        self._held_bytes += len(line)
        if self._held_bytes >= FLUSH_BYTES:
            self.flush()
        elif not self._armed:
            self._armed = True
            self._call_later(FLUSH_SECONDS, self._due)

    def flush(self) -> None:
        """Write what waits."""
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self._put(b"".join(held), len(held))

    def _due(self) -> None:
        self._armed = False
        self.flush()

    def _put(self, data: bytes, count: int) -> None:
        if self._dropped and self._lost is not None:
            data = self._lost(self._dropped) + data
        try:
            self._output.write(data)
            self._output.flush()
        except (OSError, ValueError):  # ValueError: the file has been closed
            self._dropped += count
        else:
            self._dropped = 0


@define(eq=False)
class Syslog:
    """Hands lines to syslog (an ``Output``); it adds the time, the host and the process itself.

    :param prefix: what its lines begin with.
    """

    _prefix: str
    _open: bool = field(default=False, init=False)

    def write(self, data: bytes) -> None:
        """Every line is a message."""
        import syslog

        if not self._open:
            self._open = True
            syslog.openlog(self._prefix, syslog.LOG_PID, syslog.LOG_DAEMON)
        for line in data.decode("utf-8", "replace").splitlines():
            with suppress(ValueError):  # a NUL
                syslog.syslog(syslog.LOG_INFO, line)

    def flush(self) -> None:
        """Nothing waits."""
