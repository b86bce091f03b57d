"""The application of the admin listener, which serves only pages."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from dstreams.http.application import OtherPaths, problem_response
from dstreams.http.messages import Request, Response
from dstreams.http.pages.hosts import AllowedHosts
from dstreams.protocol.problems import BY_STATUS

MAX_BODY_BYTES = 64 * 1024
"""Maximum size of a request body. Pages are only read, so no body is expected."""

_HEAD = b"X-Content-Type-Options: nosniff\r\n"


@define(eq=False)
class PagesApplication:
    """Passes every request to the pages (an ``Application``).

    It sends no CORS headers, because scripts of other origins must not read the admin pages.

    :param pages: answers the requests.
    :param hosts: the host names under which requests are answered.
    """

    _pages: OtherPaths
    hosts: AllowedHosts = field(factory=AllowedHosts)
    max_body_bytes: int = MAX_BODY_BYTES

    def judge(self, request: Request) -> Response | None:  # noqa: ARG002 (the interface's)
        """Return ``None``: no request is answered before its body has arrived."""
        return None

    def respond(self, request: Request) -> Response | Deferred[Response]:
        """Answer a complete request."""
        refusal = self.hosts.refusal(request)
        if refusal is not None:
            return _complete(problem_response(refusal, request))
        response = self._pages.respond(request)
        if isinstance(response, Deferred):
            return response.addCallback(_complete)
        return _complete(response)

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        """Return the response to a message that violates HTTP."""
        return _complete(problem_response(BY_STATUS[status](detail), request))


def _complete(response: Response) -> Response:
    response.head = _HEAD + response.head
    return response
