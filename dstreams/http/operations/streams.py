"""PUT, HEAD and DELETE: create, describe and delete streams (PROTOCOL 4.2, 5.1, 5.4, 5.5)."""

from __future__ import annotations

from dstreams.http.caching import NO_STORE
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.protocol import headers
from dstreams.protocol.content_types import parse_content_type
from dstreams.protocol.expiry import format_expires_at, parse_expires_at, parse_ttl
from dstreams.protocol.headers import STREAM_EXPIRES_AT, STREAM_TTL
from dstreams.protocol.names import encode_name, parse_name
from dstreams.protocol.offsets import NOW, parse_offset
from dstreams.protocol.positions import position_lines
from dstreams.protocol.problems import BadRequest
from dstreams.runtime.pending import Pending, map_result
from dstreams.streams.creating import Created, CreateRequest, ForkRequest


def create(context: Context, request: Request, name: str) -> Pending[Response]:
    """Create the stream: 201, or 200 if it exists with the same configuration."""
    created = context.streams.create(_parse(context, request, name))
    return map_result(created, lambda result: _answer(context, request, result))


def validate_create(context: Context, request: Request, name: str) -> Response | None:
    """Return the response that the head alone decides, or ``None``."""
    created = context.streams.validate_create_head(_parse(context, request, name))
    return None if created is None else _answer(context, request, created)


def _parse(context: Context, request: Request, name: str) -> CreateRequest:
    given = request.headers
    content_type = given.get(headers.CONTENT_TYPE_KEY)
    ttl = given.get(headers.STREAM_TTL_KEY)
    expires_at = given.get(headers.STREAM_EXPIRES_AT_KEY)
    if ttl is not None and expires_at is not None:
        raise BadRequest("Stream-TTL and Stream-Expires-At cannot be combined")
    return CreateRequest(
        name=name,
        content_type=None if content_type is None else parse_content_type(content_type),
        ttl=None if ttl is None else parse_ttl(ttl),
        expires_at=None if expires_at is None else parse_expires_at(expires_at),
        closed=headers.is_closed(given),
        fork=_parse_fork(context, request),
        length=request.content_length,
        body=request.body,
    )


def _parse_fork(context: Context, request: Request) -> ForkRequest | None:
    given = request.headers
    source = given.get(headers.STREAM_FORKED_FROM_KEY)
    offset = given.get(headers.STREAM_FORK_OFFSET_KEY)
    sub_offset = given.get(headers.STREAM_FORK_SUB_OFFSET_KEY)
    if source is None:
        if offset is not None or sub_offset is not None:
            raise BadRequest("Stream-Fork-Offset and Stream-Fork-Sub-Offset require Stream-Forked-From")
        return None
    anchor = None if offset is None else parse_offset(offset)
    if anchor == NOW:
        raise BadRequest("Stream-Fork-Offset must be an offset of the source; leave it out to fork at the tail")
    return ForkRequest(
        source=_source_name(context, request, source),
        anchor=anchor,
        sub_offset=0 if sub_offset is None else headers.parse_integer(headers.STREAM_FORK_SUB_OFFSET, sub_offset),
    )


def _source_name(context: Context, request: Request, path: bytes) -> str:
    """Return the name of a fork's source, which is given as the path of its URL or as the name itself."""
    prefix = context.settings.prefix
    # Below a mount point, the path that clients see, and receive as Location, is longer.
    seen = request.root + prefix
    return parse_name(path.removeprefix(seen if path.startswith(seen) else prefix), context.settings.name_limits)


def _answer(context: Context, request: Request, created: Created) -> Response:
    head = created.content_type.line + position_lines(created.tail, closed=created.closed)
    if created.fresh:
        head += b"Location: %b\r\n" % _location(context, request, created.name)
    return Response(201 if created.fresh else 200, NO_STORE + head)


def _location(context: Context, request: Request, name: str) -> bytes:
    """Return the stream's URL for the client; only the path if the request has no host."""
    path = request.root + context.settings.prefix + encode_name(name)
    host = request.headers.get(b"host")
    return b"%b://%b%b" % (request.scheme, host, path) if host else path


_TTL = STREAM_TTL + b": %d\r\n"
_EXPIRES_AT = STREAM_EXPIRES_AT + b": %b\r\n"


def metadata(context: Context, request: Request, name: str) -> Response:
    """Describe the stream: 200. It does not renew the TTL."""
    state = context.streams.find(name)
    config = state.config
    head = NO_STORE + config.content_type.line + position_lines(state.tail, closed=state.closed)
    if config.ttl is not None:
        head += _TTL % config.ttl
    if config.expires_at is not None:
        head += _EXPIRES_AT % format_expires_at(config.expires_at)
    return Response(200, head)


def delete(context: Context, request: Request, name: str) -> Pending[Response]:
    """Delete the stream: 204."""
    return map_result(context.streams.delete(name), lambda _: Response(204, NO_STORE))
