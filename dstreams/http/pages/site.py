"""Builds a klein application from pages, and formats the responses of pages.

klein is imported only when it is needed: it installs the default reactor when it is imported, and by then the process
must have chosen its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from dstreams.protocol.problems import BY_STATUS, MethodNotAllowed, NotFound, ProtocolError, Unavailable, render

if TYPE_CHECKING:
    from klein import Klein
    from twisted.web.iweb import IRequest
    from twisted.web.resource import IResource

Page = Callable[["Klein"], object]
"""Adds the page's routes to an application."""

READ = ("GET", "HEAD")
"""The methods of a read-only page."""


def build_pages(*pages: Page) -> IResource:
    """Return the resource that serves ``pages``; every other path is answered with a 404 problem."""
    from klein import Klein
    from werkzeug.exceptions import HTTPException
    from werkzeug.exceptions import MethodNotAllowed as WrongMethod

    app = Klein()
    for page in pages:
        page(app)

    @app.handle_errors(HTTPException)
    def other_paths(request: IRequest, failure: object) -> bytes:
        error = getattr(failure, "value", None)
        if isinstance(error, WrongMethod):
            allow = b", ".join(sorted(method.encode() for method in error.valid_methods or ()))
            return answer_problem(request, MethodNotAllowed("This path is read-only", b"Allow: %b\r\n" % allow))
        return answer_problem(request, NotFound("There is nothing at this path"))

    @app.handle_errors(ProtocolError)
    def refused(request: IRequest, failure: object) -> bytes:
        error = getattr(failure, "value", None)
        return answer_problem(request, error if isinstance(error, ProtocolError) else Unavailable())

    return app.resource()


def answer_text(request: IRequest, body: bytes, content_type: bytes = b"text/plain; charset=utf-8") -> bytes:
    """Return a body that must not be cached."""
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"cache-control", b"no-store")
    return body


def answer_json(request: IRequest, document: object) -> bytes:
    """Return a JSON document that must not be cached."""
    return answer_text(request, orjson.dumps(document) + b"\n", b"application/json")


def answer_problem(request: IRequest, error: ProtocolError) -> bytes:
    """Return a problem document, and set its status and headers."""
    request.setResponseCode(error.status)
    for line in error.headers.splitlines():
        name, _, value = line.partition(b": ")
        request.setHeader(name, value)
    return answer_text(request, render(error, request.uri.decode("latin-1")), b"application/problem+json")


def unready() -> ProtocolError:
    """Return the problem of a server that is not ready for traffic."""
    return BY_STATUS[503]("The server is not ready to accept traffic")
