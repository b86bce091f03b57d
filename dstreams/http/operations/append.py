"""POST: append, close, or both (PROTOCOL 5.2, 5.2.1, 5.3)."""

from __future__ import annotations

from dstreams.http.caching import NO_STORE
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.protocol import headers
from dstreams.protocol.positions import position_lines
from dstreams.protocol.producers import ACCEPTED_LINES, parse_producer
from dstreams.runtime.pending import Pending, map_result
from dstreams.streams.appending import Appended, AppendRequest


def append(context: Context, request: Request, name: str) -> Pending[Response]:
    """Append the body, close the stream, or both: 204, or 200 if a producer's append was stored."""
    body = request.body
    assert body is not None
    appended = context.streams.append(name, request.facts.append or _read(request), body)
    return _answer(appended) if isinstance(appended, Appended) else map_result(appended, _answer)


def validate_append(context: Context, request: Request, name: str) -> Response | None:
    """Return the response that the head alone decides, or ``None``."""
    appended = context.streams.validate_append_head(
        name, request.facts.append or _read(request), request.content_length
    )
    return None if appended is None else _answer(appended)


def _read(request: Request) -> AppendRequest:
    """Parse the head, and cache the result for other requests with the same head."""
    given = request.headers
    asked = request.facts.append = AppendRequest(
        content_type=given.get(headers.CONTENT_TYPE_KEY),
        closes=headers.is_closed(given),
        producer=parse_producer(given),
        stream_seq=given.get(headers.STREAM_SEQ_KEY),
    )
    return asked


def _answer(appended: Appended) -> Response:
    head = NO_STORE + position_lines(appended.tail, closed=appended.closed)
    producer = appended.producer
    if producer is None:
        return Response(204, head)
    return Response(200 if appended.stored else 204, head + ACCEPTED_LINES % (producer.epoch, producer.seq))
