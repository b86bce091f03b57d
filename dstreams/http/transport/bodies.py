"""Bodies of requests and responses, whatever the version of HTTP."""

from __future__ import annotations

from io import BytesIO

from attrs import define, field
from twisted.logger import Logger

from dstreams.http.messages import Body, Sink
from dstreams.http.transport.limits import WRITE_PIECE_BYTES

_log = Logger()


@define(eq=False)
class ReceivedBody:
    """Collects a request body, whatever the version of HTTP.

    The first piece is kept as it came, since most bodies have no other. Further pieces are copied into a buffer as they
    arrive: to join 100 MB at the end would hold up everybody for 80 ms.
    """

    _first: bytes = field(default=b"", init=False)
    _buffer: BytesIO | None = field(default=None, init=False)

    def add(self, data: bytes, start: int, end: int) -> None:
        """Take the bytes of ``data`` from ``start`` up to ``end``."""
        piece = data[start:end]
        if self._buffer is not None:
            self._buffer.write(piece)
        elif self._first:
            self._buffer = BytesIO()
            self._buffer.write(self._first)
            self._buffer.write(piece)
            self._first = b""
        else:
            self._first = piece

    def joined(self) -> bytes:
        """Return all of it. The buffer hands over its bytes without a copy."""
        return self._first if self._buffer is None else self._buffer.getvalue()

    def clear(self) -> None:
        """Discard it."""
        self._first, self._buffer = b"", None


@define(eq=False)
class BytesBody:
    """A large body that is all there (a ``Body``), sent in pieces as the client takes them.

    :param data: the bytes.
    """

    _data: bytes
    _position: int = field(default=0, init=False)
    _sink: Sink | None = field(default=None, init=False)

    @property
    def length(self) -> int:
        """The number of bytes."""
        return len(self._data)

    def start(self, sink: Sink) -> None:
        """Send as many pieces as the client takes."""
        self._sink = sink
        self.resume()

    def resume(self) -> None:
        """Send on until the client is slower than we are, or all is sent."""
        sink = self._sink
        while sink is not None:
            start = self._position
            self._position = start + WRITE_PIECE_BYTES
            takes_more = sink.write(self._data[start : self._position])
            if self._position >= len(self._data):
                self._sink = None
                sink.finish()
                return
            if not takes_more:
                return

    def stop(self) -> None:
        """The client has gone."""
        self._sink = None


def stop_body(body: Body) -> None:
    """Tell a body that it isn't wanted."""
    try:
        body.stop()
    except Exception:
        _log.failure("a response body failed when it was stopped")
