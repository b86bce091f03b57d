"""How a transport asks the application: calls that always return a response, whatever the application does."""

from __future__ import annotations

from attrs import define
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.http.messages import Application, Request, Response
from dstreams.http.transport.replies import internal_error
from dstreams.http.transport.upload_budget import BUSY
from dstreams.runtime.pending import Pending

_log = Logger()


@define(eq=False)
class Exchange:
    """Calls an application and answers 500 if it raises. It has no state, so all connections of a listener share it.

    :param application: answers the requests.
    """

    application: Application

    def validate_head(self, request: Request) -> Response | None:
        """Return the response that the head alone decides, or ``None`` if the body is needed."""
        try:
            return self.application.validate_head(request)
        except Exception:
            return self.failed(request, "validating a request's head failed")

    def respond(self, request: Request) -> Pending[Response]:
        """Answer a complete request."""
        try:
            return self.application.respond(request)
        except Exception:
            return self.failed(request, "answering a request failed")

    def refuse(self, request: Request | None, status: int, detail: str) -> Response:
        """Return the error response to a message that violates HTTP or a limit.

        :param request: ``None`` if its head could not be read.
        :param detail: one sentence for the client's developer.
        """
        try:
            return self.application.refuse(request, status, detail)
        except Exception:
            _log.failure("refusing a request failed")
            return internal_error()

    def refuse_too_large(self, request: Request | None) -> Response:
        """Return the 413 for a body that is larger than the application accepts."""
        return self.refuse(request, 413, f"The request body is larger than {self.application.max_body_bytes} bytes")

    def refuse_busy(self, request: Request) -> Response:
        """Return the 503 for a body that exceeds the upload budget."""
        return self.refuse(request, 503, BUSY)

    def failed(self, request: Request | None, event: str, failure: Failure | None = None) -> Response:
        """Log an error in the application and return the 500 for it.

        :param event: the message to log.
        :param failure: the error; by default the exception that is being handled.
        """
        _log.failure(event, failure)
        return self.refuse(request, 500, "Internal error")
