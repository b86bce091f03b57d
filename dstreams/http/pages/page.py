"""A page at a fixed path, and the responses that pages give."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from attrs import frozen
from twisted.internet.defer import Deferred

from dstreams.http.caching import NO_STORE
from dstreams.http.messages import Request, Response
from dstreams.protocol.problems import MethodNotAllowed, NotFound

_METHODS = (b"GET", b"HEAD")


@frozen(eq=False)
class Page:
    """A page, which is only read.

    :param show: returns the response, or raises a ``ProtocolError``.
    """

    show: Callable[[Request], Response | Deferred[Response]]

    def respond(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request.

        :raise MethodNotAllowed: for methods other than GET and HEAD.
        """
        if request.method not in _METHODS:
            raise MethodNotAllowed("This path is read-only", b"Allow: %b\r\n" % b", ".join(_METHODS))
        return self.show(request)


def nothing_here(_: Request) -> Response:
    """Raise ``NotFound``, for paths that have no page."""
    raise NotFound("There is nothing at this path")


def text_response(body: bytes, content_type: bytes = b"text/plain; charset=utf-8") -> Response:
    """Return a 200 that must not be cached."""
    return Response(200, b"Content-Type: %b\r\n" % content_type + NO_STORE, body)


def json_response(document: object) -> Response:
    """Return a JSON document that must not be cached."""
    return text_response(orjson.dumps(document) + b"\n", b"application/json")
