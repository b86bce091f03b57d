"""The application: answers requests for streams and pages, and adds the headers that every response carries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.http.context import Context
from dstreams.http.cors import ALLOWED_METHODS, Cors
from dstreams.http.errors import error_response, problem_response
from dstreams.http.messages import Request, Response
from dstreams.http.pages.page import Page, nothing_here
from dstreams.http.routes import METHODS, OTHER, PAGES, PREFLIGHT, READ, Route, live_route, page_route
from dstreams.protocol.names import parse_name
from dstreams.protocol.problems import (
    BY_STATUS,
    MethodNotAllowed,
    ProtocolError,
)
from dstreams.runtime.pending import Pending, PendingCommit

_log = Logger()

_SECURITY = b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: cross-origin\r\n"
"""Header lines of every response (PROTOCOL 12.7)."""


@define(eq=False)
class StreamApplication:
    """Serves the streams of one engine, and pages (an ``Application``).

    :param pages: the pages by their paths. A stream with such a path cannot be reached.
    """

    _context: Context
    _pages: Mapping[bytes, Page] = field(factory=dict)
    max_body_bytes: int = field(init=False)
    _cors: Cors = field(init=False)
    _prefix: bytes = field(init=False)
    _page_routes: dict[bytes, Route] = field(init=False)
    _preflight: Route = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings = self._context.settings
        self.max_body_bytes = settings.max_body_bytes
        self._cors = Cors(settings.cors_origins, settings.cors_credentials, settings.cors_allow_headers)
        self._prefix = settings.prefix
        self._page_routes = {path: page_route(path, nothing_here) for path in PAGES}
        self._page_routes |= {path: page_route(path, page.respond) for path, page in self._pages.items()}
        self._preflight = Route(PREFLIGHT, lambda *_: self._cors.preflight())

    def validate_head(self, request: Request) -> Response | None:
        """Return the response that the head alone decides, while the body still arrives, or ``None``."""
        try:
            route = request.facts.route or self._route(request)
            if route.validate_head is None:
                return None
            response = route.validate_head(self._context, request, request.facts.name)
        except ProtocolError as error:
            response = problem_response(error, request)
        except Exception:
            _log.failure("validating a request's head failed")
            return None  # respond() will meet the same error and answer it
        return None if response is None else self._complete(request, response)

    def respond(self, request: Request) -> Pending[Response]:
        """Answer a complete request."""
        facts = request.facts
        try:
            route = facts.route or self._route(request)
            response = route.respond(self._context, request, facts.name)
        except ProtocolError as error:
            response = problem_response(error, request)
        except Exception:
            response = error_response(Failure(), request)
        if isinstance(response, Response):
            response.head = (facts.lines or self._lines(request)) + response.head
        elif isinstance(response, PendingCommit):
            if response.error is None:
                response.value.head = (facts.lines or self._lines(request)) + response.value.head
            response.error_response = partial(self._error_response, request)
        else:
            response.addErrback(error_response, request).addCallback(partial(self._complete, request))
        return response

    def _error_response(self, request: Request, error: Exception) -> Response:
        """Return the response to a request whose commit, or one that it depends on, has failed."""
        return self._complete(request, error_response(Failure(error), request))

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        """Return the response to a message that violates HTTP or a limit of the transport."""
        if request is not None and request.facts.route is None:
            self._route(request)
        return self._complete(request, problem_response(BY_STATUS[status](detail), request))

    def _route(self, request: Request) -> Route:
        """Return the route of a request, and cache it with the stream's name. It never raises."""
        path, facts = request.path, request.facts
        route = self._page_routes.get(path)
        if request.method == b"OPTIONS":
            route = self._preflight
        elif route is None and path.startswith(self._prefix):
            route = METHODS.get(request.method, _NO_METHOD)
            if route is READ and request.query:
                route = live_route(request)
            try:
                facts.name = parse_name(path[len(self._prefix) :], self._context.settings.name_limits)
            except ProtocolError:
                route = Route(route.name, self._reject_name, self._reject_name)
        elif route is None:
            route = _NOTHING_HERE
        facts.route = route
        return route

    def _reject_name(self, _: Context, request: Request, __: str) -> Response:
        parse_name(request.path[len(self._prefix) :], self._context.settings.name_limits)
        raise AssertionError("a name that was invalid is valid now")

    def _lines(self, request: Request) -> bytes:
        """Return the header lines of every response to this head, and cache them."""
        lines = request.facts.lines = _SECURITY + self._cors.lines(request)
        return lines

    def _complete(self, request: Request | None, response: Response) -> Response:
        """Add the header lines of every response."""
        lines = _SECURITY + self._cors.lines(None) if request is None else request.facts.lines or self._lines(request)
        response.head = lines + response.head
        return response


def _no_method(_: Context, request: Request, __: str) -> Response:
    method = request.method.decode("latin-1")
    raise MethodNotAllowed(f"A stream has no method {method}", b"Allow: %b\r\n" % ALLOWED_METHODS)


_NO_METHOD = Route(OTHER, _no_method, _no_method)
_NOTHING_HERE = page_route(b"", nothing_here)
