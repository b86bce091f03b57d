"""The response with the messages of a read: 200 or 304 (PROTOCOL 5.6, 9.1.5, 10.1)."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.http import caching
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response, Sink
from dstreams.protocol.etags import format_etag, matches
from dstreams.protocol.headers import IF_NONE_MATCH_KEY
from dstreams.protocol.json_mode import wrap
from dstreams.protocol.positions import position_lines
from dstreams.runtime.pending import then
from dstreams.storage.interface import StorageDamaged
from dstreams.streams.reading import Slice

_log = Logger()

PIECE_BYTES = 256 * 1024
"""Number of bytes of a large response that are fetched at a time: what one stalled client can keep in memory."""

FILE_BYTES = 512 * 1024
"""Number of bytes that the kernel is asked to send from a file at a time. They must be in the page cache."""

COPIED_BYTES = 128 * 1024
"""Number of bytes written between those that the kernel sends, enough for the transport to ask for a pause."""


def answer(
    context: Context, request: Request, found: Slice, cursor: int | None = None
) -> Response | Deferred[Response]:
    """Return the response with the messages, or 304 if the client has them.

    :param cursor: the ``Stream-Cursor`` of a live response.
    """
    etag = format_etag(found.stream_id, found.start, found.end, found.closed)
    head = b"%b%bETag: %b\r\n" % (
        caching.for_read(context, found.config),
        position_lines(found.end, closed=found.closed, up_to_date=found.up_to_date, cursor=cursor),
        etag,
    )
    known = request.headers.get(IF_NONE_MATCH_KEY)
    if known is not None and matches(known, etag):
        return Response(304, head)
    content_type, size = found.config.content_type, found.end - found.start
    head += content_type.line
    # The first piece is read before the head is sent, so that damage in it is answered with 500.
    data = found.read(found.start, found.end if size <= PIECE_BYTES else found.start + PIECE_BYTES) if size else b""
    if size > PIECE_BYTES:
        return then(data, lambda first: Response(200, head, SliceBody(found, content_type.is_json, first)))
    if isinstance(data, bytes):
        return Response(200, head, wrap(data) if content_type.is_json else data)
    return data.addCallback(lambda stored: Response(200, head, wrap(stored) if content_type.is_json else stored))


@define(eq=False)
class SliceBody:
    """The messages of a large read, fetched while they are sent (a ``Body``).

    In JSON mode every stored message is followed by a comma. It becomes an array by a bracket before the first message,
    and another in place of the last comma.

    :param first: its first bytes.
    """

    _slice: Slice
    _is_json: bool
    _first: bytes
    _position: int = field(init=False)
    _sink: Sink | None = field(default=None, init=False)
    _fetching: bool = field(default=False, init=False)

    @_position.default
    def _begin(self) -> int:
        return self._slice.start

    @property
    def length(self) -> int:
        """The number of bytes that will be sent."""
        return len(self._slice) + self._is_json

    def start(self, sink: Sink) -> None:
        """Send the first piece, and more until the client is slower than the server."""
        self._sink = sink
        first, self._first = self._first, b""
        if self._send(first, self._position + len(first)):
            self.resume()

    def resume(self) -> None:
        """Continue until the client is slower than the server."""
        while self._sink is not None and not self._fetching:
            try:
                size = self._send_file(self._sink)
                end = min(self._position + size, self._slice.end)
                data = self._slice.read(self._position, end)
            except Exception:
                self._failed(Failure())
                return
            if isinstance(data, Deferred):
                self._fetching = True
                data.addCallback(self._fetched, end).addErrback(self._failed)
                return
            if not self._send(data, end):
                return

    def _send_file(self, sink: Sink) -> int:
        """Have the kernel send verified bytes of a file, until the client is slower than the server.

        The last piece is written, because it may have to be changed, and so is one where the client takes no more,
        since the transport tells when that is sent.

        :return: how much is to be written next.
        """
        last = self._slice.end - COPIED_BYTES
        while sink.sends_files and self._position < last:
            part = self._slice.in_file(self._position, min(self._position + FILE_BYTES, last))
            if part is None:
                break
            sent = sink.send_file(part)
            if not sent:
                return COPIED_BYTES
            self._position += sent
        return PIECE_BYTES

    def stop(self) -> None:
        """Stop, because the client has disconnected."""
        self._sink = None

    def _fetched(self, data: bytes, end: int) -> None:
        self._fetching = False
        if self._sink is not None and self._send(data, end):
            self.resume()

    def _failed(self, failure: Failure) -> None:
        self._fetching = False
        if not failure.check(StorageDamaged):  # the storage logs that, once for each stream
            _log.failure("a read failed while its answer was being sent", failure)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()

    def _send(self, data: bytes, end: int) -> bool:
        """Send one piece. Return whether there is more to send and the client is ready for it."""
        sink = self._sink
        assert sink is not None
        last = end == self._slice.end
        if self._is_json:
            opening = b"[" if self._position == self._slice.start else b""
            data = opening + (data[:-1] + b"]" if last else data)
        self._position = end
        takes_more = sink.write(data)
        if last:
            self._sink = None
            sink.finish()
            return False
        return takes_more
