"""Writes one large event piece by piece, so that it never has to be in memory as a whole.

:func:`dstreams.protocol.sse.data_event` does the same for events of ordinary size. An event whose only line would be
longer than :data:`LINE_BYTES` is divided into several ``data`` fields where that does not change the content. Readers
join the fields with LF, which is white space in JSON; in base64, decoders skip it or clients remove it (PROTOCOL 5.8).
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Final, Protocol

from attrs import define, field

from dstreams.protocol.sse import LINE_BYTES, SseEncoding, escape_lines, incomplete_suffix

_BEGIN: Final = b"event: data\ndata:"
_NEW_LINE: Final = b"\ndata:"


class EventWriter(Protocol):
    """Converts a large event's stored bytes, which are passed in pieces of any size."""

    @property
    def held_back(self) -> int:
        """The number of bytes at the end of the last piece that are not written yet, as they depend on the next one."""

    def begin(self) -> bytes:
        """Return the beginning of the event."""

    def write(self, data: bytes) -> bytes:
        """Return the event's next bytes for the next piece of stored bytes; may be empty."""

    def end(self, complete: bool) -> bytes:
        """Return the rest of the event's data. :func:`~dstreams.protocol.sse.end_of_event` comes next.

        :param complete: whether bytes that are held back are written as they are. Otherwise they are left for the
            next event. In base64 they are always written.
        """


def event_writer(encoding: SseEncoding, table: str | None = None) -> EventWriter:
    """Return a writer for one event.

    :param table: the characters of text in a single-byte charset; ``None`` for UTF-8.
    """
    if encoding is SseEncoding.BASE64:
        return _Base64Writer()
    return _TextWriter(encoding is SseEncoding.JSON, table)


@define(eq=False)
class _TextWriter:
    """Writes text with a ``data`` field for each line. JSON also gets one for each bracket of the array.

    The end of a piece is held back if it may be the beginning of a character or of CRLF.
    """

    _is_json: bool
    _table: str | None = None
    _held: bytes = field(default=b"", init=False)
    _at_line_start: bool = field(default=True, init=False)

    @property
    def held_back(self) -> int:
        return len(self._held)

    def begin(self) -> bytes:
        return _BEGIN + b"[" + _NEW_LINE if self._is_json else _BEGIN

    def write(self, data: bytes) -> bytes:
        data = self._held + data
        if self._table is not None:
            held_back = int(self._table[data[-1]] == "\r")
        else:
            held_back = 1 if data.endswith(b"\r") else incomplete_suffix(data)
        self._held = data[len(data) - held_back :]
        return self._lines(data[: len(data) - held_back])

    def end(self, complete: bool) -> bytes:
        rest = b""
        if complete:
            rest, self._held = self._lines(self._held), b""
        return rest + (_NEW_LINE + b"]" if self._is_json else b"")

    def _lines(self, text: bytes) -> bytes:
        if not text:
            return b""
        written = escape_lines(text, self._at_line_start, self._table)
        self._at_line_start = written.endswith(_NEW_LINE)
        return written


@define(eq=False)
class _Base64Writer:
    """Writes base64 in lines of :data:`LINE_BYTES`; the last one may be shorter."""

    _held: bytes = field(default=b"", init=False)
    _room: int = field(default=LINE_BYTES, init=False)
    """The number of characters left in the current line; a multiple of 4."""

    @property
    def held_back(self) -> int:
        return len(self._held)

    def begin(self) -> bytes:
        return _BEGIN

    def write(self, data: bytes) -> bytes:
        data = self._held + data
        whole = len(data) - len(data) % 3
        self._held = data[whole:]
        return self._lines(b2a_base64(data[:whole], newline=False))

    def end(self, complete: bool) -> bytes:  # noqa: ARG002 (nothing is left for the next event)
        rest, self._held = self._lines(b2a_base64(self._held, newline=False)), b""
        return rest

    def _lines(self, encoded: bytes) -> bytes:
        lines, at = [], 0
        while at < len(encoded):
            if not self._room:
                lines.append(_NEW_LINE)
                self._room = LINE_BYTES
            line = encoded[at : at + self._room]
            lines.append(line)
            at += len(line)
            self._room -= len(line)
        return b"".join(lines)
