"""The application of the admin listener, which serves only pages."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dstreams.http.errors import error_response, problem_response
from dstreams.http.messages import Request, Response
from dstreams.http.pages.hosts import AllowedHosts
from dstreams.http.pages.page import Page, nothing_here
from dstreams.http.routes import page_route
from dstreams.protocol.problems import BY_STATUS

MAX_BODY_BYTES = 64 * 1024
"""Maximum size of a request body. Pages are only read, so no body is expected."""

_HEAD = b"X-Content-Type-Options: nosniff\r\n"


@define(eq=False)
class PagesApplication:
    """Answers every request with a page, or 404 (an ``Application``).

    It sends no CORS headers, because scripts of other origins must not read the admin pages.

    :param pages: the pages by their paths.
    :param hosts: the host names under which requests are answered.
    """

    _pages: Mapping[bytes, Page]
    hosts: AllowedHosts = field(factory=AllowedHosts)
    max_body_bytes: int = MAX_BODY_BYTES

    def validate_head(self, request: Request) -> Response | None:  # noqa: ARG002 (the interface's)
        """Return ``None``: no request is answered before its body has arrived."""
        return None

    def respond(self, request: Request) -> Response | Deferred[Response]:
        """Answer a complete request."""
        request.facts.route = page_route(request.path, self._respond)
        try:
            response = self._respond(request)
        except Exception:
            response = error_response(Failure(), request)
        if isinstance(response, Deferred):
            return response.addErrback(error_response, request).addCallback(_complete)
        return _complete(response)

    def _respond(self, request: Request) -> Response | Deferred[Response]:
        misdirected = self.hosts.check(request)
        if misdirected is not None:
            raise misdirected
        page = self._pages.get(request.path)
        return nothing_here(request) if page is None else page.respond(request)

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        """Return the response to a message that violates HTTP."""
        return _complete(problem_response(BY_STATUS[status](detail), request))


def _complete(response: Response) -> Response:
    response.head = _HEAD + response.head
    return response
