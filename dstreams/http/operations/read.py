"""GET: read from an offset, at once or by waiting (PROTOCOL 5.6 to 5.8)."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from dstreams.http import caching
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.http.operations.long_poll import long_poll
from dstreams.http.operations.slices import answer
from dstreams.http.operations.sse import follow
from dstreams.model.state import StreamState
from dstreams.protocol.json_mode import wrap
from dstreams.protocol.offsets import NOW, format_offset
from dstreams.protocol.queries import Live, parse_read_query
from dstreams.streams.reading import Slice


def read(context: Context, request: Request, name: str) -> Response | Deferred[Response]:
    """Read, in the mode that the query names."""
    query = request.facts.query
    if query is None:
        query = request.facts.query = parse_read_query(request.query)
    state = context.streams.find(name)
    offset = query.offset or 0
    if query.live is Live.LONG_POLL:
        return long_poll(context, request, state, offset, query.cursor)
    if query.live is Live.SSE:
        return follow(context, request, state, offset, query.cursor)
    if offset == NOW:
        context.streams.renew(state)
        return _tail_only(state)
    found = context.streams.read(state, offset, context.settings.max_answer_bytes)
    context.streams.renew(state)
    if isinstance(found, Slice):
        return answer(context, request, found)
    return found.addCallback(lambda found: answer(context, request, found))


def _tail_only(state: StreamState) -> Response:
    """``offset=now`` without waiting: where the tail is, and no messages (PROTOCOL 8)."""
    head = b"%b%bStream-Next-Offset: %b\r\nStream-Up-To-Date: true\r\n" % (
        caching.NO_STORE,
        state.config.content_type.line,
        format_offset(state.tail),
    )
    if state.closed:
        head += b"Stream-Closed: true\r\n"
    return Response(200, head, wrap(b"") if state.config.content_type.is_json else b"")
