"""A listener that serves only pages: the admin listener's application."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from dstreams.http.application import Elsewhere, problem_response
from dstreams.http.messages import Request, Response
from dstreams.http.pages.hosts import AllowedHosts
from dstreams.protocol.problems import BY_STATUS

MAX_BODY_BYTES = 64 * 1024
"""The largest request body: pages are read, so none is expected."""

_HEAD = b"X-Content-Type-Options: nosniff\r\n"


@define(eq=False)
class PagesApplication:
    """Hands every request to the pages (an ``Application``).

    No CORS headers: pages of the admin listener are nothing for scripts of other origins.

    :param pages: what answers.
    :param hosts: under which names.
    """

    _pages: Elsewhere
    hosts: AllowedHosts = field(factory=AllowedHosts)
    max_body_bytes: int = MAX_BODY_BYTES

    def judge(self, request: Request) -> Response | None:  # noqa: ARG002 (the interface's)
        """Nothing is decided by the head alone."""
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
        """The answer to a message that HTTP itself doesn't allow."""
        return _complete(problem_response(BY_STATUS[status](detail), request))


def _complete(response: Response) -> Response:
    response.head = _HEAD + response.head
    return response
