"""The application of the admin listener, which serves only pages, and only under its own host names.

A web page that an operator has open in a browser cannot read what the loopback interface serves. But the page's owner
can make the page's host name resolve to 127.0.0.1 a moment later, and then the browser treats both as one site ("DNS
rebinding"). Such a request carries that name in its ``Host`` header. So a listener that only this machine can reach
answers only under names that cannot belong to anybody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from dstreams.config.addresses import host_of, parse_host
from dstreams.config.endpoints import is_loopback
from dstreams.http.errors import error_response, problem_response
from dstreams.http.messages import Request, Response
from dstreams.http.pages.page import Page, nothing_here
from dstreams.http.routes import page_route
from dstreams.protocol.problems import BY_STATUS, Misdirected


def _comparable(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(parse_host, names))


@define(eq=False)
class AllowedHosts:
    """Checks the ``Host`` header of requests.

    :param names: the value of ``admin.allowed_hosts``. If it has names, every request is checked; otherwise only
        requests to the loopback interface are.
    """

    _names: frozenset[str] = field(converter=_comparable, default=())
    _checks: bool = field(init=False)

    @_checks.default
    def _checks_all(self) -> bool:
        return bool(self._names)

    def bound(self, address: IAddress) -> None:
        """Note the address that the listener is bound to."""
        host: str | None = getattr(address, "host", None)
        if host is not None and is_loopback(host):
            self._checks = True

    def check(self, request: Request) -> Misdirected | None:
        """Return why a request is rejected, or ``None``. One without ``Host`` (HTTP/1.0) comes from no browser."""
        header = request.headers.get(b"host")
        if not self._checks or header is None:
            return None
        host = host_of(header.decode("latin-1"))
        if host is not None and (is_loopback(host) or host in self._names):
            return None
        return Misdirected("The admin listener does not answer to this host name; see the key admin.allowed_hosts")


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
