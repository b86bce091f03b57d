"""Buffers a connection's output, so that everything written in one turn is sent in one piece."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from dstreams.http.transport.limits import WRITE_PIECE_BYTES
from dstreams.http.transport.sockets import Transport


@define(eq=False)
class OutputBuffer:
    """Joins the writes of one turn, and notes whether the client is slower than the server.

    :param transport: receives the bytes.
    """

    _transport: Transport
    corked: bool = field(default=False, init=False)
    """Whether writes are joined until :meth:`flush`."""
    blocked: bool = field(default=False, init=False)
    """Whether the transport has asked for a pause."""
    _pieces: list[bytes] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _flushes: int = field(default=0, init=False)

    def write(self, data: bytes) -> None:
        """Send ``data`` now, or together with later writes of this turn."""
        if not self.corked:
            self._transport.write(data)
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= WRITE_PIECE_BYTES:
            self.flush()

    @property
    def sends_files(self) -> bool:
        """Whether the transport can send a file."""
        # Looked up in the class, because a wrapper (such as TLS) forwards unknown attributes to the inner transport.
        return hasattr(type(self._transport), "send_file")

    def send_file(self, descriptor: int, offset: int, size: int) -> int:
        """Have the kernel send as many bytes of a file as it accepts at once, and return their number.

        0 unless all that was written before is with the kernel.
        """
        if self._pieces or self.blocked:
            return 0
        send: Callable[..., int] = self._transport.send_file  # type: ignore[attr-defined]
        return send(descriptor, offset, size)

    def cork(self) -> bool:
        """Join writes from now on. Return whether they were joined before."""
        corked, self.corked = self.corked, True
        return corked

    def flush(self) -> None:
        """Send the joined writes."""
        while self._pieces:
            pieces, self._pieces, self._size = self._pieces, [], 0
            self._flushes += 1
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def mark(self) -> tuple[int, int]:
        """Return the current position in the joined writes, for :meth:`take_back`."""
        return self._flushes, len(self._pieces)

    def take_back(self, mark: tuple[int, int]) -> bool:
        """Discard the writes since ``mark``. Return ``False`` if they have been sent already."""
        flushes, count = mark
        if not self.corked or flushes != self._flushes:
            return False
        del self._pieces[count:]
        self._size = sum(map(len, self._pieces))
        return True
