"""HEAD: what a stream is, and how far it reaches (PROTOCOL 5.5)."""

from __future__ import annotations

from dstreams.http.caching import NO_STORE
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.protocol.expiry import format_expires_at
from dstreams.protocol.headers import STREAM_EXPIRES_AT, STREAM_TTL
from dstreams.protocol.positions import position_lines

_TTL = STREAM_TTL + b": %d\r\n"
_EXPIRES_AT = STREAM_EXPIRES_AT + b": %b\r\n"


def metadata(context: Context, request: Request, name: str) -> Response:
    """Describe the stream: 200. Doesn't renew its TTL."""
    state = context.streams.find(name)
    config = state.config
    head = NO_STORE + config.content_type.line + position_lines(state.tail, closed=state.closed)
    if config.ttl is not None:
        head += _TTL % config.ttl
    if config.expires_at is not None:
        head += _EXPIRES_AT % format_expires_at(config.expires_at)
    return Response(200, head)
