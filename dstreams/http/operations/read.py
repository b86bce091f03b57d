"""GET: read from an offset (PROTOCOL 5.6)."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from dstreams.http import caching
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.http.operations.slices import answer
from dstreams.model.state import StreamState
from dstreams.protocol.json_mode import wrap
from dstreams.protocol.offsets import NOW
from dstreams.protocol.positions import position_lines
from dstreams.protocol.queries import ReadQuery, parse_read_query
from dstreams.streams.reading import Slice


def read(context: Context, request: Request, name: str) -> Response | Deferred[Response]:
    """Return the messages after the requested offset, without waiting for more."""
    query = request.facts.query or read_query(request)
    state = context.streams.find(name)
    offset = query.offset or 0
    if offset == NOW:
        context.streams.renew(state)
        return _tail_only(state)
    found = context.streams.read(state, offset, context.settings.max_answer_bytes)
    context.streams.renew(state)
    if isinstance(found, Slice):
        return answer(context, request, found)
    return found.addCallback(lambda found: answer(context, request, found))


def _tail_only(state: StreamState) -> Response:
    """Return the position of the tail without messages, for ``offset=now`` (PROTOCOL 8)."""
    head = (
        caching.NO_STORE
        + state.config.content_type.line
        + position_lines(state.tail, closed=state.closed, up_to_date=True)
    )
    return Response(200, head, wrap(b"") if state.config.content_type.is_json else b"")


def read_query(request: Request) -> ReadQuery:
    """Return the parsed query of a read (PROTOCOL 5.6 to 5.8).

    :raise ProtocolError: if it is malformed.
    """
    query = request.facts.query
    if query is None:
        query = request.facts.query = parse_read_query(request.query)
    return query
