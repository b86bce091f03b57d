"""Determines where a request body ends: bodies of announced length, and chunked ones (RFC 9112 sections 6 and 7).

A decoder gets the received bytes and returns how many of them belong to the body. The result, or the error, is the same
however the bytes are divided into segments.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import ClassVar, Protocol

from attrs import define, field

from dstreams.http.transport.bodies import ReceivedBody
from dstreams.http.transport.limits import (
    MAX_CHUNK_EXTENSIONS_BYTES,
    MAX_CHUNK_LINE_BYTES,
    MAX_LINES_AT_ONCE,
    MAX_TRAILER_BYTES,
)

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_NOT_IN_A_LINE = re.compile(rb"[\x00-\x08\x0a-\x0c\x0e-\x1f\x7f]|\r.", re.DOTALL)


class FramingError(Exception):
    """The bytes are not a body as announced; the argument is one sentence for the client's developer."""


class BodyTooLarge(Exception):
    """The body is larger than the application accepts."""


class BodyDecoder(Protocol):
    """The interface of both kinds of body."""

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived."""

    @property
    def paused(self) -> bool:
        """Whether the last ``feed`` stopped early, because it had processed enough lines at once."""

    def feed(self, data: bytes, start: int) -> int:
        """Process the part of ``data`` from ``start`` on that belongs to the body.

        :return: the index of the next message, or the length of ``data``. It is less if a line is incomplete there, or
            if
            the decoder has paused; then the rest must be passed again.
        :raises FramingError: the bytes are malformed.
        :raises BodyTooLarge: the body exceeds its limit.
        """

    def body(self) -> bytes:
        """Return the complete body."""


@define(eq=False)
class LengthDecoder:
    """A body of announced length.

    :param length: the length in bytes.
    """

    _missing: int
    _arrived: ReceivedBody = field(factory=ReceivedBody, init=False)
    paused: ClassVar[bool] = False

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived."""
        return not self._missing

    def feed(self, data: bytes, start: int) -> int:
        """See :meth:`BodyDecoder.feed`; raises nothing."""
        end = min(len(data), start + self._missing)
        self._missing -= end - start
        self._arrived.add(data, start, end)
        return end

    def body(self) -> bytes:
        """Return the complete body."""
        return self._arrived.joined()


class _Expecting(Enum):
    SIZE = "a chunk's size line"
    DATA = "a chunk's bytes"
    DATA_END = "the CRLF after a chunk"
    TRAILER = "a trailer line, or the empty line that ends the body"
    NOTHING = "nothing: the body is complete"


@define(eq=False)
class ChunkedDecoder:
    """A chunked body: sizes of at most eight hexadecimal digits, CRLF wherever it belongs.

    Extensions and trailers are checked, bounded and dropped.

    :param max_bytes: the most that the chunks may hold together.
    """

    _max_bytes: int
    paused: bool = field(default=False, init=False)
    """See :attr:`BodyDecoder.paused`."""
    _expecting: _Expecting = field(default=_Expecting.SIZE, init=False)
    _missing: int = field(default=0, init=False)
    _total: int = field(default=0, init=False)
    _extension_bytes: int = field(default=0, init=False)
    _trailer_bytes: int = field(default=0, init=False)
    _arrived: ReceivedBody = field(factory=ReceivedBody, init=False)

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived."""
        return self._expecting is _Expecting.NOTHING

    def feed(self, data: bytes, start: int) -> int:
        """See :meth:`BodyDecoder.feed`."""
        end, lines = len(data), 0
        self.paused = False
        while start < end and self._expecting is not _Expecting.NOTHING:
            if self._expecting is _Expecting.DATA:
                stop = min(end, start + self._missing)
                self._arrived.add(data, start, stop)
                self._missing -= stop - start
                if not self._missing:
                    self._expecting = _Expecting.DATA_END
                start = stop
                continue
            if lines == MAX_LINES_AT_ONCE:
                self.paused = True
                break
            lines += 1
            stop = self._end_of_line(data, start)
            if stop < 0:
                break
            self._take_line(data[start:stop])
            start = stop + 2
        return start

    def body(self) -> bytes:
        """Return the complete body."""
        return self._arrived.joined()

    def _end_of_line(self, data: bytes, start: int) -> int:
        """Return the index of the CRLF of the line that begins at ``start``, or -1 if it has not arrived."""
        limit = self._line_limit()
        stop = data.find(b"\r\n", start, start + limit + 2)
        if stop >= 0:
            return stop
        beginning = data[start : start + limit + 2]
        # A line that cannot become valid is rejected at once, rather than after a time-out.
        if len(beginning) == limit + 2 or _NOT_IN_A_LINE.search(beginning):
            raise FramingError(self._complaint())
        return -1

    def _line_limit(self) -> int:
        if self._expecting is _Expecting.SIZE:
            return MAX_CHUNK_LINE_BYTES
        if self._expecting is _Expecting.DATA_END:
            return 0
        return MAX_TRAILER_BYTES - self._trailer_bytes

    def _complaint(self) -> str:
        return f"The chunked body is malformed where {self._expecting.value} should be"

    def _take_line(self, line: bytes) -> None:
        if self._expecting is _Expecting.SIZE:
            self._take_size(line)
        elif self._expecting is _Expecting.DATA_END:
            self._expecting = _Expecting.SIZE
        elif not line:
            self._expecting = _Expecting.NOTHING
        else:
            self._trailer_bytes = min(MAX_TRAILER_BYTES, self._trailer_bytes + len(line) + 2)
            if _TRAILER_LINE.fullmatch(line) is None:
                raise FramingError(self._complaint())

    def _take_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise FramingError(self._complaint())
        self._extension_bytes += len(match[2])
        if self._extension_bytes > MAX_CHUNK_EXTENSIONS_BYTES:
            raise FramingError("The chunked body has too many extensions")
        self._missing = int(match[1], 16)
        self._total += self._missing
        if self._total > self._max_bytes:
            raise BodyTooLarge
        self._expecting = _Expecting.DATA if self._missing else _Expecting.TRAILER
