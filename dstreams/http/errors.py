"""Error responses: problem documents (RFC 9457)."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.http.caching import NO_STORE
from dstreams.http.messages import Refusal, Request, Response
from dstreams.protocol.problems import DataDamaged, InternalError, ProtocolError, Unavailable, render
from dstreams.storage.interface import StorageDamaged

_log = Logger()


def problem_response(error: ProtocolError, request: Request | None, cause: BaseException | None = None) -> Refusal:
    """Return the response that reports an error (RFC 9457).

    :param cause: the internal cause, for the log only; by default the exception that the error was raised from.
    """
    # The traceback is not logged, and its frames refer to the response, so that each would be garbage in a cycle.
    error.__traceback__ = None
    instance = ""
    if request is not None:
        target = request.root + request.path + (b"?" + request.query if request.query else b"")
        instance = target.decode("latin-1")
    head = b"Content-Type: application/problem+json\r\n" + NO_STORE + error.headers
    return Refusal(error.status, head, render(error, instance), error, cause or error.__cause__)


def error_response(failure: Failure, request: Request) -> Response:
    """Return the response to a request that has failed; log the failure if it is the server's fault."""
    if failure.check(CancelledError):
        # The client has disconnected, or the server is shutting down: nobody reads this, but a Response is needed.
        return problem_response(Unavailable("The request was cancelled"), request)
    if isinstance(failure.value, ProtocolError):
        return problem_response(failure.value, request)
    return _unexpected(failure, request)


def _unexpected(failure: Failure, request: Request) -> Refusal:
    if isinstance(failure.value, StorageDamaged):  # the storage logs it, once for each stream
        return problem_response(DataDamaged(), request, failure.value)
    _log.failure("answering a request failed", failure)
    return problem_response(InternalError(), request, failure.value)
