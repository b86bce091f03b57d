"""Observes requests: counts and times all of them, and logs and traces them if that is configured.

The transports call the observer when a response is about to be written. For an ordinary response only a slot of a
histogram is incremented; everything else is computed when it is needed.
"""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter
from typing import Final, Protocol

from attrs import define, field
from twisted.logger import Logger

from dstreams.http.messages import ObservedConnection, Refusal, Request, Response
from dstreams.http.routes import OTHER
from dstreams.telemetry.histograms import SECONDS, Histogram

_log = Logger()

ABANDONED: Final = 0
"""The status that stands for a client that disconnected before the response was ready."""


class Reporter(Protocol):
    """Receives the details of some requests, and writes a log event or a span."""

    least_status: int
    """The lowest status of the requests that it receives; 0 for all requests."""

    def report(
        self,
        request: Request | None,
        response: Response | None,
        operation: str,
        elapsed: float | None,
        connection: ObservedConnection,
    ) -> None:
        """Handle a request that is over.

        :param request: ``None`` if its head could not be read.
        :param response: ``None`` if the client disconnected before the response was ready.
        :param elapsed: the seconds since its head was complete, or ``None`` if unknown.
        """


@define(eq=False)
class Observed:
    """Cached data about requests with one head, because most of them get the same kind of response.

    :param status: the status of the last ordinary response; ``times`` is the histogram for such responses.
    :param is_told: whether reporters receive these requests.
    :param description: cached by reporters.
    """

    status: int
    times: Histogram
    operation: str
    is_reported: bool
    description: object = None


@define(eq=False)
class RequestObserver:
    """Counts requests, and passes them to reporters (an ``Observer``)."""

    _reporters: tuple[Reporter, ...] = ()
    _least_status: int = field(init=False)
    times: dict[tuple[str, int], Histogram] = field(factory=dict, init=False)
    """The durations of requests, by operation and status."""
    errors: dict[str, int] = field(factory=dict, init=False)
    """The number of error responses, by problem code."""

    def __attrs_post_init__(self) -> None:
        self._least_status = min((reporter.least_status for reporter in self._reporters), default=1000)

    def answered(
        self, request: Request | None, response: Response, asked_at: float, connection: ObservedConnection
    ) -> None:
        """Count a request whose response is ready: 0.4 us without logging, and 0.1 us to take the time before."""
        elapsed = perf_counter() - asked_at
        if request is None:
            self._unreadable(response, connection)
            return
        observed: Observed | None = request.facts.observed
        # Only ordinary responses are cached, and error responses have other statuses.
        if observed is None or observed.status != response.status:
            observed = self._observe(request, response)
        # Histogram.observe, inlined: saves 0.06 us.
        times = observed.times
        times.counts[bisect_left(SECONDS, elapsed)] += 1
        times.total += elapsed
        if observed.is_reported:
            self._report(request, response, observed.operation, elapsed, connection)

    def abandoned(self, request: Request, asked_at: float, connection: ObservedConnection) -> None:
        """Count a request whose client has disconnected."""
        elapsed = perf_counter() - asked_at
        operation = _operation(request)
        self._times(operation, ABANDONED).observe(elapsed)
        self._report(request, None, operation, elapsed, connection)

    def _unreadable(self, response: Response, connection: ObservedConnection) -> None:
        """Count a request that could not be read. Its duration is unknown."""
        self._times(OTHER, response.status).observe(0.0)
        self._note_error(response)
        self._report(None, response, OTHER, None, connection)

    def _observe(self, request: Request, response: Response) -> Observed:
        """Determine how a response is counted, and cache this for an ordinary response."""
        operation, status = _operation(request), response.status
        observed = Observed(status, self._times(operation, status), operation, status >= self._least_status)
        if type(response) is Response and status < 400:
            request.facts.observed = observed
        self._note_error(response)
        return observed

    def _note_error(self, response: Response) -> None:
        if isinstance(response, Refusal) and response.error is not None:
            code = response.error.code
            self.errors[code] = self.errors.get(code, 0) + 1

    def _times(self, operation: str, status: int) -> Histogram:
        times = self.times.get((operation, status))
        if times is None:
            times = self.times[operation, status] = Histogram()
        return times

    def _report(
        self,
        request: Request | None,
        response: Response | None,
        operation: str,
        elapsed: float | None,
        connection: ObservedConnection,
    ) -> None:
        status = ABANDONED if response is None else response.status
        for reporter in self._reporters:
            if status >= reporter.least_status:
                try:
                    reporter.report(request, response, operation, elapsed, connection)
                except Exception:
                    _log.failure("telling of a request failed")


def _operation(request: Request) -> str:
    """Return the name of the operation that has answered a request."""
    route = request.facts.route
    return OTHER if route is None else route.name
