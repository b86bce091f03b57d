"""Records requests as spans of traces."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field

from dstreams.http.events import RequestFields
from dstreams.http.messages import ObservedConnection, Request, Response
from dstreams.telemetry.traces import Traces

_CARRIED = ("traceparent", "tracestate")


@define(eq=False)
class RequestSpans:
    """Records every request as a span (a ``Reporter``). If the request is part of a trace, the span continues it.

    :param fields: describes a request.
    :param traces: receives the spans.
    """

    _fields: RequestFields
    _traces: Traces
    _now_ns: Callable[[], int] = time.time_ns
    least_status: int = field(default=0, init=False)

    def tell(
        self,
        request: Request | None,
        response: Response | None,
        operation: str,
        elapsed: float | None,
        connection: ObservedConnection,
    ) -> None:
        """Record a request as a span."""
        attributes = dict(self._fields.describe(request, response, operation, elapsed, connection))
        for name in ("event.duration", "trace.id"):  # spans have these by themselves
            attributes.pop(name, None)
        name = str(attributes.get("http.request.method", "HTTP"))
        if "http.route" in attributes:
            name = f"{name} {attributes['http.route']}"
        end = self._now_ns()
        failed = response is not None and response.status >= 500
        self._traces.record(name, attributes, _carrier(request), (end - int((elapsed or 0) * 1e9), end), failed)


def _carrier(request: Request | None) -> dict[str, str]:
    if request is None:
        return {}
    return {
        name: request.headers[name.encode()].decode("latin-1") for name in _CARRIED if name.encode() in request.headers
    }
