"""Which operation answers a request: the one table that the application, the access log and the metrics share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from attrs import frozen

from dstreams.config.paths import HEALTH_PATHS, METRICS_PATH, READY_PATH
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.http.operations.append import append, validate_append
from dstreams.http.operations.long_poll import long_poll
from dstreams.http.operations.read import read
from dstreams.http.operations.sse import subscribe
from dstreams.http.operations.streams import create, delete, metadata, validate_create
from dstreams.protocol.problems import ProtocolError
from dstreams.protocol.queries import Live, parse_read_query
from dstreams.runtime.pending import Pending

Operation = Callable[[Context, Request, str], Pending[Response]]
"""Answers a complete request; the last argument is the stream's name."""

HeadValidator = Callable[[Context, Request, str], Response | None]
"""Answers a request from its head alone, or returns ``None`` if the body is needed."""


@frozen(eq=False)
class Route:
    """The operation that answers one kind of request.

    :param name: the operation's name in logs, metrics and traces.
    :param validate_head: for methods with a body.
    """

    name: str
    respond: Operation
    validate_head: HeadValidator | None = None


READ: Final = Route("read", read)
LONG_POLL: Final = Route("poll", long_poll)
SUBSCRIBE: Final = Route("subscribe", subscribe)

LIVE: Final = {None: READ, Live.LONG_POLL: LONG_POLL, Live.SSE: SUBSCRIBE}
"""The routes of GET on a stream, by the parameter ``live`` (PROTOCOL 5.6 to 5.8)."""

METHODS: Final[Mapping[bytes, Route]] = {
    b"GET": READ,
    b"HEAD": Route("head", metadata),
    b"PUT": Route("create", create, validate_create),
    b"POST": Route("append", append, validate_append),
    b"DELETE": Route("delete", delete),
}
"""The routes of all methods on a stream (PROTOCOL 3)."""

PREFLIGHT: Final = "preflight"
"""The name of the operation that answers OPTIONS."""

PAGES: Final = {
    **dict.fromkeys((path.encode() for path in HEALTH_PATHS), "health"),
    READY_PATH.encode(): "readiness",
    METRICS_PATH.encode(): "metrics",
}
"""The names of the operations that answer with a page, by its path. These paths are never streams."""

OTHER: Final = "request"
"""The operation of requests that no route matches."""

OPERATIONS: Final = (
    *(route.name for route in METHODS.values()),
    LONG_POLL.name,
    SUBSCRIBE.name,
    PREFLIGHT,
    *dict.fromkeys(PAGES.values()),
    OTHER,
)
"""The names of all operations."""


def page_route(path: bytes, respond: Callable[[Request], Pending[Response]]) -> Route:
    """Return the route of a page at a path."""
    return Route(PAGES.get(path, OTHER), lambda _context, request, _name: respond(request))


def live_route(request: Request) -> Route:
    """Return the route of a GET on a stream, and cache its parsed query.

    :return: ``READ`` also for a malformed query, which it answers with 400.
    """
    try:
        query = request.facts.query = parse_read_query(request.query)
    except ProtocolError:
        return READ
    return LIVE[query.live]
