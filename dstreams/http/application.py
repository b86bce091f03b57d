"""The application: which operation answers a request, and what every answer carries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.config.paths import RESERVED_PATHS
from dstreams.http.caching import NO_STORE
from dstreams.http.context import Context
from dstreams.http.cors import ALLOWED_METHODS, Cors
from dstreams.http.messages import Refusal, Request, Response
from dstreams.http.operations import append, create
from dstreams.http.operations.delete import delete
from dstreams.http.operations.metadata import metadata
from dstreams.http.operations.read import read
from dstreams.protocol.names import parse_name
from dstreams.protocol.problems import (
    BY_STATUS,
    DataDamaged,
    InternalError,
    MethodNotAllowed,
    NotFound,
    ProtocolError,
    Unavailable,
    render,
)
from dstreams.runtime.pending import Pending, PendingCommit
from dstreams.storage.interface import StorageDamaged

_log = Logger()

Operation = Callable[[Context, Request, str], Pending[Response]]
Judge = Callable[[Context, Request, str], "Response | None"]

OPERATIONS: dict[bytes, Operation] = {
    b"GET": read,
    b"HEAD": metadata,
    b"PUT": create.create,
    b"POST": append.append,
    b"DELETE": delete,
}
"""What a method does to a stream (PROTOCOL 3)."""

JUDGES: dict[bytes, Judge] = {b"PUT": create.judge, b"POST": append.judge}
"""How a method with a body is judged by its head."""

_SECURITY = b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: cross-origin\r\n"
"""On every answer (PROTOCOL 12.7)."""

_PAGE_PATHS = frozenset(path.encode() for path in RESERVED_PATHS)


class OtherPaths(Protocol):
    """What answers requests that aren't for a stream: health, and whatever else is mounted."""

    def respond(self, request: Request) -> Response | Deferred[Response]: ...


@define(eq=False)
class StreamApplication:
    """Serves the streams of one engine (an ``Application``).

    :param elsewhere: answers what isn't below the base path; ``None``: 404.
    """

    _context: Context
    _other_paths: OtherPaths | None = None
    max_body_bytes: int = field(init=False)
    _cors: Cors = field(init=False)
    _prefix: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings = self._context.settings
        self.max_body_bytes = settings.max_body_bytes
        self._cors = Cors(settings.cors_origins, settings.cors_credentials, settings.cors_allow_headers)
        self._prefix = settings.prefix

    def judge(self, request: Request) -> Response | None:
        """Answer from the head alone, while the body is still arriving, or say ``None``."""
        path = request.path
        if request.method == b"OPTIONS" or not path.startswith(self._prefix) or path in _PAGE_PATHS:
            return None
        try:
            response = self._judge(request)
        except ProtocolError as error:
            response = problem_response(error, request)
        except Exception:
            _log.failure("judging a request failed")
            return None  # respond() will meet the same fault and answer for it
        return None if response is None else self._complete(request, response)

    def _judge(self, request: Request) -> Response | None:
        name = self._name(request.path)
        if request.method not in OPERATIONS:
            raise _not_allowed(request.method)
        judge = JUDGES.get(request.method)
        return None if judge is None else judge(self._context, request, name)

    def respond(self, request: Request) -> Pending[Response]:
        """Answer a complete request."""
        facts = request.facts
        try:
            operation = facts.operation or self._route(request)
            response = operation(self._context, request, facts.name)
        except ProtocolError as error:
            response = problem_response(error, request)
        except Exception as error:
            response = _unexpected(Failure(error), request)
        if isinstance(response, Response):
            response.head = (facts.lines or self._lines(request)) + response.head
        elif isinstance(response, PendingCommit):
            if response.error is None:
                response.value.head = (facts.lines or self._lines(request)) + response.value.head
            response.error_response = partial(self._error_response, request)
        else:
            response.addErrback(_failed, request).addCallback(partial(self._complete, request))
        return response

    def _error_response(self, request: Request, error: Exception) -> Response:
        """The answer to a request whose change, or what its answer rests on, could not be committed."""
        return self._complete(request, _failed(Failure(error), request))

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        """The answer to a message that HTTP itself doesn't allow."""
        return self._complete(request, problem_response(BY_STATUS[status](detail), request))

    def _route(self, request: Request) -> Operation:
        """What answers a request; noted among its facts, with the stream it is for."""
        path, facts = request.path, request.facts
        operation: Operation
        if request.method == b"OPTIONS":
            operation = self._preflight
        elif path.startswith(self._prefix) and path not in _PAGE_PATHS:
            facts.name = self._name(path)
            if request.method not in OPERATIONS:
                raise _not_allowed(request.method)
            operation = OPERATIONS[request.method]
        else:
            operation = self._answer_elsewhere
        facts.operation = operation
        return operation

    def _preflight(self, *_: object) -> Response:
        return self._cors.preflight()

    def _answer_elsewhere(self, _: Context, request: Request, __: str) -> Pending[Response]:
        if self._other_paths is None:
            raise NotFound("There is nothing at this path")
        return self._other_paths.respond(request)

    def _name(self, path: bytes) -> str:
        return parse_name(path[len(self._prefix) :], self._context.settings.name_limits)

    def _lines(self, request: Request) -> bytes:
        """The header lines that every answer to this head carries."""
        lines = request.facts.lines = _SECURITY + self._cors.lines(request)
        return lines

    def _complete(self, request: Request | None, response: Response) -> Response:
        """Add what every answer carries."""
        lines = _SECURITY + self._cors.lines(None) if request is None else request.facts.lines or self._lines(request)
        response.head = lines + response.head
        return response


def problem_response(error: ProtocolError, request: Request | None, cause: BaseException | None = None) -> Refusal:
    """An error as the client sees it (RFC 9457).

    :param cause: what is for the log only; what the error was raised from, when it is left out.
    """
    # It isn't logged, and its frames refer to the answer: else each refusal would be garbage in a cycle.
    error.__traceback__ = None
    instance = ""
    if request is not None:
        target = request.root + request.path + (b"?" + request.query if request.query else b"")
        instance = target.decode("latin-1")
    head = b"Content-Type: application/problem+json\r\n" + NO_STORE + error.headers
    return Refusal(error.status, head, render(error, instance), error, cause or error.__cause__)


def _failed(failure: Failure, request: Request) -> Response:
    if failure.check(CancelledError):
        # The client has gone, or the server stops: nobody reads this, but a Response is owed.
        return problem_response(Unavailable("The request was cancelled"), request)
    if isinstance(failure.value, ProtocolError):
        return problem_response(failure.value, request)
    return _unexpected(failure, request)


def _unexpected(failure: Failure, request: Request) -> Refusal:
    if isinstance(failure.value, StorageDamaged):  # the storage logs it, once for each stream
        return problem_response(DataDamaged(), request, failure.value)
    _log.failure("answering a request failed", failure)
    return problem_response(InternalError(), request, failure.value)


def _not_allowed(method: bytes) -> MethodNotAllowed:
    return MethodNotAllowed(f"A stream has no method {method.decode('latin-1')}", b"Allow: %b\r\n" % ALLOWED_METHODS)
