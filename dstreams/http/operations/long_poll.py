"""Long-poll: a response as soon as there are new messages (PROTOCOL 5.7)."""

from __future__ import annotations

from typing import ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred

from dstreams.http.caching import NO_STORE
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.http.operations.read import read_query
from dstreams.http.operations.slices import answer
from dstreams.model.state import StreamState
from dstreams.protocol.cursors import interval, next_cursor
from dstreams.protocol.offsets import NOW
from dstreams.protocol.positions import position_lines
from dstreams.protocol.problems import ProtocolError
from dstreams.runtime.pending import then
from dstreams.runtime.timers import Timer


def long_poll(context: Context, request: Request, name: str) -> Response | Deferred[Response]:
    """Return the messages after the requested offset; if it is the tail, wait for more.

    :return: 200 with messages; 204 after the time-out, or if the stream is closed. A Deferred fails with 404
        or 410 as soon as the stream is gone.
    """
    query = read_query(request)
    state = context.streams.find(name)
    offset = query.offset or 0
    poll = _LongPoll(context, request, state.id, state.tail if offset == NOW else offset, query.cursor)
    if poll.position != state.tail or state.closed or context.streams.ending:
        found = poll.answer(state, on_boundary=False)
        context.streams.renew(state)
        return found
    return poll.wait(state)


@define(eq=False)
class _LongPoll:
    """A request that may wait (a ``Watcher``)."""

    kind: ClassVar[str] = "long-poll"
    _context: Context
    _request: Request
    _stream_id: int
    position: int
    _cursor: int | None
    # Fires with the state to answer from; ``None`` before and after the wait.
    _waiting: Deferred[StreamState] | None = field(default=None, init=False)
    _timeout: Timer | None = field(default=None, init=False)

    def answer(self, state: StreamState, on_boundary: bool = True) -> Response | Deferred[Response]:
        """Return the response for the current state.

        :param on_boundary: whether the position is known to be between messages, because it was the tail; otherwise it
            is an offset from the client.
        """
        current = interval(self._context.clocks.wall())
        cursor = next_cursor(self._cursor, current)
        if self.position == state.tail:
            return nothing_new(state, cursor)
        found = self._context.streams.read(
            state, self.position, self._context.settings.max_answer_bytes, on_boundary=on_boundary
        )
        return then(found, lambda messages: answer(self._context, self._request, messages, cursor))

    def wait(self, state: StreamState) -> Deferred[Response]:
        """Wait for new messages, the time-out, or the client's disconnection, which cancels the Deferred."""
        self._waiting = Deferred(self._cancelled)
        self._context.streams.watch(state, self)
        self._timeout = self._context.wheel.call_later(self._context.settings.long_poll_timeout, self.end)
        # The response is made inside the Deferred, so that errors reach the client, and a client that disconnects while
        # bytes are fetched cancels that too.
        return self._waiting.addCallback(self.answer)

    def wake(self) -> None:
        """Respond if the change concerns this reader."""
        self._look(at_the_end=False)

    def end(self) -> None:
        """Respond now, because of the time-out or a shutdown."""
        self._look(at_the_end=True)

    def _look(self, at_the_end: bool) -> None:
        try:
            state = self._context.streams.incarnation(self._stream_id)
        except ProtocolError as error:
            waiting = self._leave()
            if waiting is not None:
                waiting.errback(error)
            return
        if at_the_end or state.tail != self.position or state.closed:
            waiting = self._leave()
            if waiting is not None:
                waiting.callback(state)

    def _cancelled(self, waiting: Deferred[StreamState]) -> None:
        """Give the response of a time-out, because the client has disconnected or closed its side."""
        self._leave()
        try:
            waiting.callback(self._context.streams.incarnation(self._stream_id))
        except ProtocolError as error:
            waiting.errback(error)

    def _leave(self) -> Deferred[StreamState] | None:
        """Stop waiting. Return the Deferred of the response, or ``None`` if it has fired."""
        waiting, self._waiting = self._waiting, None
        if self._timeout is not None:
            self._timeout.cancel()
        self._context.streams.unwatch(self._stream_id, self)
        return waiting


def nothing_new(state: StreamState, cursor: int | None) -> Response:
    """Return the 204 for a client that is up to date.

    :param cursor: the next cursor; ``None`` for none. A closed stream has none.
    """
    cursor = None if state.closed else cursor
    return Response(204, NO_STORE + position_lines(state.tail, closed=state.closed, up_to_date=True, cursor=cursor))
