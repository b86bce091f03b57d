"""Health and readiness, for load balancers, orchestrators and people.

Imports klein only when it is called: klein installs the default reactor when it is imported, and by then the
process must have chosen its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import orjson

from dstreams.protocol.problems import BY_STATUS, MethodNotAllowed, NotFound, ProtocolError, render

if TYPE_CHECKING:
    from twisted.web.iweb import IRequest
    from twisted.web.resource import IResource

Status = Callable[[], Mapping[str, object]]
"""Gives the members of ``/health`` that only the server knows."""


def build_health(ready: Callable[[], bool], status: Status) -> IResource:
    """The resource that answers ``/healthz``, ``/readyz`` and ``/health``.

    ``/healthz`` is 200 as long as the process answers at all; ``/readyz`` is 200 while traffic is wanted, else 503;
    ``/health`` is 200 with a JSON document for people and dashboards. All else is a 404 problem.

    :param ready: whether traffic is wanted.
    """
    from klein import Klein
    from werkzeug.exceptions import HTTPException
    from werkzeug.exceptions import MethodNotAllowed as WrongMethod

    app = Klein()
    started = time.monotonic()

    @app.route("/healthz", methods=["GET", "HEAD"])
    def healthz(request: IRequest) -> bytes:
        return _text(request, b"ok\n")

    @app.route("/readyz", methods=["GET", "HEAD"])
    def readyz(request: IRequest) -> bytes:
        if ready():
            return _text(request, b"ready\n")
        return _problem(request, BY_STATUS[503]("The server is not ready to accept traffic"))

    @app.route("/health", methods=["GET", "HEAD"])
    def health(request: IRequest) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        members = {"status": "ok" if ready() else "unavailable", "uptime_seconds": int(time.monotonic() - started)}
        return orjson.dumps(members | dict(status())) + b"\n"

    @app.handle_errors(HTTPException)
    def elsewhere(request: IRequest, failure: object) -> bytes:
        error = getattr(failure, "value", None)
        if isinstance(error, WrongMethod):
            allow = b", ".join(sorted(method.encode() for method in error.valid_methods or ()))
            return _problem(request, MethodNotAllowed("This path is only read", b"Allow: %b\r\n" % allow))
        return _problem(request, NotFound("There is nothing at this path"))

    return app.resource()


def _text(request: IRequest, body: bytes) -> bytes:
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"cache-control", b"no-store")
    return body


def _problem(request: IRequest, error: ProtocolError) -> bytes:
    request.setResponseCode(error.status)
    request.setHeader(b"content-type", b"application/problem+json")
    request.setHeader(b"cache-control", b"no-store")
    for line in error.headers.splitlines():
        name, _, value = line.partition(b": ")
        request.setHeader(name, value)
    return render(error, request.uri.decode("latin-1"))
