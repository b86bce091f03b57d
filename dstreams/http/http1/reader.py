"""The reading half of a connection: heads and bodies from the bytes as they come. No I/O, no time."""

from __future__ import annotations

from attrs import define, field

from dstreams.http.http1.framing import BodyDecoder, ChunkedDecoder, FramingError, LengthDecoder
from dstreams.http.http1.head_cache import HeadCache
from dstreams.http.http1.heads import RequestHead, prefix_fault
from dstreams.http.transport.heads import HeadFault
from dstreams.http.transport.limits import MAX_BLANK_LINES, HttpLimits


@define(eq=False)
class RequestReader:
    """Buffers what has arrived and hands out requests, part by part.

    The channel alternates: a head, then the body that it announced, or :meth:`skip` over it.

    :param limits: what a head may hold.
    :param heads: reads complete heads, with the same limits.
    """

    _limits: HttpLimits
    _head_cache: HeadCache
    ended: bool = field(default=False, init=False)
    """Whether nothing more will come."""
    body_received: int = field(default=0, init=False)
    """How many bytes of the present body have arrived, chunk sizes included."""
    body_paused: bool = field(default=False, init=False)
    """Whether :meth:`body` has more to read in what has arrived."""
    buffered: bytes = field(default=b"", init=False)
    """What has arrived and isn't used up; empty when all of it is."""
    _at: int = field(default=0, init=False)
    """Where the unused part of ``buffered`` begins. Cutting it off after every pipelined request would copy the
    rest each time."""
    _scanned: int = field(default=0, init=False)
    """How many bytes of an incomplete head were found harmless."""
    blank_lines: int = field(default=0, init=False)
    """How many empty lines have come since the last request."""
    _decoder: BodyDecoder | None = field(default=None, init=False)

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        unused = self.buffered
        if unused:
            data = unused[self._at :] + data
        self.buffered, self._at = data, 0

    @property
    def available(self) -> int:
        """How many bytes wait to be used."""
        return len(self.buffered) - self._at

    @property
    def has_more(self) -> bool:
        """Whether there may be something to read: bytes, or their end."""
        return self._at != len(self.buffered) or self.ended

    def head(self) -> RequestHead | None:
        """The next head, ``None`` while it is incomplete.

        :raises HeadFault: what has arrived can't be the head of a request that is served.
        """
        data, start = self.buffered, self._at
        end = data.find(b"\r\n\r\n", start)
        if end < 0 or data[start] == 13:
            return self._incomplete_head()
        self._at = end + 4
        self._scanned = self.blank_lines = 0
        return self._head_cache.read(data[start : end + 4])

    def begin_body(self, length: int | None, max_bytes: int) -> None:
        """The head was accepted: from here on the bytes are its body's.

        :param length: its announced length, ``None`` for a chunked body.
        :param max_bytes: the most that a chunked body may hold.
        """
        self._decoder = ChunkedDecoder(max_bytes) if length is None else LengthDecoder(length)
        self.body_received = 0
        self.body_paused = False

    def body(self) -> bytes | None:
        """The body, ``None`` while it is incomplete.

        :raises FramingError: its bytes are malformed, or end too soon.
        :raises BodyTooLarge: a chunked body exceeds its limit.
        """
        decoder, start = self._decoder, self._at
        assert decoder is not None
        self._at = decoder.feed(self.buffered, start)
        self.body_paused = decoder.paused
        self.body_received += self._at - start
        if decoder.complete:
            self._decoder = None
            return decoder.body()
        if self.ended and not self.body_paused:
            raise FramingError("The connection was closed in the middle of the body")
        return None

    def holds_head(self, body_bytes: int) -> bool:
        """Whether a whole head has arrived behind a body of ``body_bytes``."""
        return self.buffered.find(b"\r\n\r\n", self._at + body_bytes) >= 0

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes, which have all arrived: a body in the short way (1.1 us less)."""
        start = self._at
        self._at = end = start + length
        return self.buffered[start:end]

    def skip(self, most: int) -> int:
        """Drop up to ``most`` bytes; how many it were."""
        dropped = min(most, self.available)
        self._at += dropped
        return dropped

    def trim(self) -> bool:
        """Let go of used bytes when nothing else is left; whether that is so."""
        if self._at != len(self.buffered):
            return False
        self.buffered, self._at = b"", 0
        return True

    def clear(self) -> None:
        """Let go of everything."""
        self.buffered, self._at, self._decoder = b"", 0, None

    def _incomplete_head(self) -> RequestHead | None:
        """Skip empty lines before the request line; find out whether the rest can still become a head."""
        while self.buffered.startswith(b"\r\n", self._at):
            self._at += 2
            self._scanned = 0
            self.blank_lines += 1
            if self.blank_lines > MAX_BLANK_LINES:
                raise HeadFault(400, "Too many empty lines before the request line")
        start = self._at
        if start == len(self.buffered):
            return None
        if self.buffered[start] != 13 and self.buffered.find(b"\r\n\r\n", start) >= 0:
            return self.head()
        prefix = self.buffered[start:]
        fault = prefix_fault(prefix, self._scanned, self._limits)
        if fault is not None:
            raise fault
        if self.ended:
            raise HeadFault(400, "The connection was closed in the middle of the head")
        self._scanned = len(prefix)
        return None
