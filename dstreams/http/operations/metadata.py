"""HEAD: what a stream is, and how far it reaches (PROTOCOL 5.5)."""

from __future__ import annotations

from dstreams.http.caching import NO_STORE
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.protocol.expiry import format_expires_at
from dstreams.protocol.offsets import format_offset


def metadata(context: Context, request: Request, name: str) -> Response:
    """Describe the stream: 200. Doesn't renew its TTL."""
    state = context.streams.find(name)
    config = state.config
    head = b"%b%bStream-Next-Offset: %b\r\n" % (NO_STORE, config.content_type.line, format_offset(state.tail))
    if state.closed:
        head += b"Stream-Closed: true\r\n"
    if config.ttl is not None:
        head += b"Stream-TTL: %d\r\n" % config.ttl
    if config.expires_at is not None:
        head += b"Stream-Expires-At: %b\r\n" % format_expires_at(config.expires_at)
    return Response(200, head)
