"""The destination of streamed bodies in HTTP/1.1."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from dstreams.http.http1.output_buffer import OutputBuffer
from dstreams.http.messages import Frame
from dstreams.runtime.timers import TimerWheel
from dstreams.storage.interface import FileRange

_log = Logger()

LARGE_WRITE_BYTES = 4 * 1024
"""Minimum size in bytes of a write after which the end of the turn is checked. Smaller writes are cheap: their callers
limit their number (``CALLS_PER_TURN`` wake-ups a turn), and the check would cost more than they do."""


@define(eq=False)
class ChannelSink:
    """The destination of one streamed body (a :class:`Sink`). Ignores calls after the body has ended or was aborted.

    :param output: the connection's output.
    :param chunked: whether the body is sent in chunks.
    :param missing: the number of bytes still to come if the length was announced, else ``None``.
    :param on_end: called once, with whether the body is as long as announced.
    :param wheel: determines when the turn of the reactor is over.
    :param go_on: resumes the body; called in a later turn.
    """

    _output: OutputBuffer
    _chunked: bool
    _missing: int | None
    _on_end: Callable[[bool], None]
    _wheel: TimerWheel
    _go_on: Callable[[], None]
    waiting: bool = field(default=False, init=False)
    """Whether the body waits until it is resumed."""
    _awaits_turn: bool = field(default=False, init=False)
    """Whether ``go_on`` will be called."""
    _has_turn: bool = field(default=False, init=False)
    """Whether the body is resumed even if the turn is over, so that other work cannot delay it forever."""
    _open: bool = field(default=True, init=False)

    def write(self, data: bytes) -> bool:
        """See :meth:`Sink.write`."""
        if self._open and data:  # an empty chunk would end the body
            if self._chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            elif self._missing is not None:
                if len(data) > self._missing:
                    _log.error("a response body is longer than it announced")
                    self.abort()
                    return False
                self._missing -= len(data)
            self._output.write(data)
        return self._takes_more(len(data))

    def write_frame(self, frame: Frame) -> bool:
        """See :meth:`Sink.write_frame`."""
        if not (self._chunked and self._open and frame.data):
            return self.write(frame.data)
        self._output.write(frame.chunked)
        return self._takes_more(len(frame.data))

    @property
    def sends_files(self) -> bool:
        """See :meth:`Sink.sends_files`."""
        return self._missing is not None and self._output.sends_files

    def send_file(self, part: FileRange) -> int:
        """See :meth:`Sink.send_file`."""
        if not self._open or self._missing is None or part.size > self._missing or self._wheel.turn_is_over():
            return 0
        sent = self._output.send_file(part.file.fileno(), part.offset, part.size)
        self._missing -= sent
        return sent

    def finish(self) -> None:
        """See :meth:`Sink.finish`."""
        if not self._open:
            return
        if self._missing:
            _log.error("a response body is shorter than it announced")
            self.abort()
            return
        self._open = False
        if self._chunked:
            self._output.write(b"0\r\n\r\n")
        self._on_end(True)

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        if self._open:
            self._open = False
            self._on_end(False)

    def close(self) -> None:
        """Ignore all further calls, because the response has ended for another reason."""
        self._open = False

    def wants_resumption(self) -> bool:
        """Return whether the body is to be resumed now. If it should be but the turn is over, it is resumed later."""
        if not self.waiting:
            return False
        if not self._has_turn and self._wheel.turn_is_over():
            self._await_turn()
            return False
        self._has_turn = self.waiting = False
        return True

    def _takes_more(self, size: int) -> bool:
        if self._output.blocked:
            self.waiting = True
            return False
        if size >= LARGE_WRITE_BYTES and self._open and self._wheel.turn_is_over():
            self.waiting = True
            self._await_turn()
            return False
        return self._open

    def _await_turn(self) -> None:
        if not self._awaits_turn:
            self._awaits_turn = True
            self._wheel.take_turn(self._take_turn)

    def _take_turn(self) -> None:
        self._awaits_turn = False
        if self.waiting and self._open and not self._output.blocked:  # else the transport resumes it
            self._has_turn = True
            self._go_on()
