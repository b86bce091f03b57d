"""What is noted of every request: counted and timed always, logged and traced where that is wanted.

The transports tell of a request when its answer is about to be written. Of an ordinary answer only a histogram's slot
is counted up; everything else waits until somebody asks for it.
"""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter
from typing import Final, Protocol

from attrs import define, field
from twisted.logger import Logger

from dstreams.config.paths import HEALTH_PATHS, METRICS_PATH
from dstreams.http.messages import Refusal, Request, Response, Speaker
from dstreams.protocol.problems import ProtocolError
from dstreams.protocol.queries import Live, parse_read_query
from dstreams.telemetry.histograms import SECONDS, Histogram

_log = Logger()

METHODS: Final = {b"GET": "read", b"HEAD": "head", b"PUT": "create", b"POST": "append", b"DELETE": "delete"}
"""What a method does to a stream."""

LIVE: Final = {Live.LONG_POLL: "poll", Live.SSE: "subscribe"}
"""What a GET does that waits."""

_PAGES: Final = {path.encode(): "health" for path in HEALTH_PATHS} | {
    b"/readyz": "readiness",
    METRICS_PATH.encode(): "metrics",
}

OPERATIONS: Final = (*METHODS.values(), *LIVE.values(), "preflight", "health", "readiness", "metrics", "request")
"""All of them; ``request`` is whatever is nothing else."""

ABANDONED: Final = 0
"""The status of a request whose client has gone before there was an answer."""


class Witness(Protocol):
    """Wants to know all about some requests: writes a log event, or a span."""

    least_status: int
    """From which status on; 0 for every request."""

    def tell(
        self,
        request: Request | None,
        response: Response | None,
        operation: str,
        elapsed: float | None,
        speaker: Speaker,
    ) -> None:
        """A request is over.

        :param request: ``None`` when its head could not be read.
        :param response: ``None`` when the client has gone before there was one.
        :param elapsed: the seconds since its head was complete, ``None`` when that is unknown.
        """


@define(eq=False)
class Observed:
    """What is remembered of requests with one head: most of them are answered alike.

    :param status: the status of the last ordinary answer, and where such answers are timed.
    :param is_told: whether witnesses are told of these.
    :param description: what witnesses remember.
    """

    status: int
    times: Histogram
    operation: str
    is_told: bool
    description: object = None


@define(eq=False)
class RequestObserver:
    """Counts requests, and tells witnesses of them (an ``Observer``).

    :param prefix: what a stream's path begins with.
    """

    _prefix: bytes
    _witnesses: tuple[Witness, ...] = ()
    _least_status: int = field(init=False)
    times: dict[tuple[str, int], Histogram] = field(factory=dict, init=False)
    """How long requests took, by operation and status."""
    errors: dict[str, int] = field(factory=dict, init=False)
    """How many problems clients were told of, by code."""

    def __attrs_post_init__(self) -> None:
        self._least_status = min((witness.least_status for witness in self._witnesses), default=1000)

    def answered(self, request: Request | None, response: Response, asked_at: float, speaker: Speaker) -> None:
        """Count a request whose answer is ready: 0.4 us where nothing is logged, and 0.1 to note the time before."""
        elapsed = perf_counter() - asked_at
        if request is None:
            self._unreadable(response, speaker)
            return
        observed: Observed | None = request.facts.observed
        # Only ordinary answers are remembered, and those have other statuses than errors.
        if observed is None or observed.status != response.status:
            observed = self._observe(request, response)
        # Histogram.observe, written out: 0.06 us.
        times = observed.times
        times.counts[bisect_left(SECONDS, elapsed)] += 1
        times.total += elapsed
        if observed.is_told:
            self._tell(request, response, observed.operation, elapsed, speaker)

    def abandoned(self, request: Request, asked_at: float, speaker: Speaker) -> None:
        """Count a request whose client has gone."""
        elapsed = perf_counter() - asked_at
        operation = self._operation(request)
        self._times(operation, ABANDONED).observe(elapsed)
        self._tell(request, None, operation, elapsed, speaker)

    def _unreadable(self, response: Response, speaker: Speaker) -> None:
        """Count what was no request; nobody knows since when it was one."""
        self._times("request", response.status).observe(0.0)
        self._note_error(response)
        self._tell(None, response, "request", None, speaker)

    def _observe(self, request: Request, response: Response) -> Observed:
        """How an answer is counted; remembered if it is an ordinary one."""
        operation, status = self._operation(request), response.status
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

    def _operation(self, request: Request) -> str:
        path, method = request.path, request.method
        if method == b"OPTIONS":
            return "preflight"
        if path in _PAGES:
            return _PAGES[path]
        if not path.startswith(self._prefix) or method not in METHODS:
            return "request"
        if method == b"GET" and request.query:
            try:
                live = parse_read_query(request.query).live
            except ProtocolError:
                live = None
            if live is not None:
                return LIVE[live]
        return METHODS[method]

    def _tell(
        self,
        request: Request | None,
        response: Response | None,
        operation: str,
        elapsed: float | None,
        speaker: Speaker,
    ) -> None:
        status = ABANDONED if response is None else response.status
        for witness in self._witnesses:
            if status >= witness.least_status:
                try:
                    witness.tell(request, response, operation, elapsed, speaker)
                except Exception:
                    _log.failure("telling of a request failed")
