"""The access log and the traces: one log event and one span for each request, as configured.

``docs/reference/logs.md`` lists the fields. They are those of the Rust server, except where the Rust server is wrong.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from attrs import define, field
from twisted.logger import LogEvent, LogLevel

from dstreams.http.messages import ObservedConnection, Refusal, Request, Response, Via
from dstreams.http.routes import LONG_POLL, OTHER, PAGES, SUBSCRIBE
from dstreams.telemetry.fields import REQUESTS, Common, Fields
from dstreams.telemetry.logs import LevelFilter
from dstreams.telemetry.traces import Traces

NEVER: Final = 1000
"""A status above all others, so that nothing is logged."""

_LEAST_STATUS: Final = (("info", 0), ("warn", 400), ("error", 500))

_ERROR_CLASSES: Final = {500: "internal", 503: "unavailable", 507: "insufficient_storage"}

_CLIENTS_FAULTS: Final = {501, 505}
"""Statuses for unknown methods and versions, which are not failures: any port scanner could cause them."""

_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
"""W3C Trace Context, section 3.2.2."""


def least_status(levels: LevelFilter) -> int:
    """Return the lowest status of requests that are logged: 0, 400, 500, or :data:`NEVER`."""
    return next((status for level, status in _LEAST_STATUS if levels.logs(REQUESTS, level)), NEVER)


@define(eq=False)
class RequestFields:
    """Describes requests, for logs and traces.

    :param prefix: the first part of a stream's path.
    :param storage: the value of ``storage.mode``.
    """

    _prefix: bytes
    _storage: str
    _route: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._route = self._prefix.decode("latin-1") + "{name}"

    def describe(
        self,
        request: Request | None,
        response: Response | None,
        operation: str,
        elapsed: float | None,
        connection: ObservedConnection,
    ) -> Mapping[str, object]:
        """Return everything that is known about a request; unknown values have no field."""
        if request is None:
            common = Common({"ds.operation": operation, "ds.storage.backend": self._storage})
        else:
            common = self._of_head(request, operation, connection)
        fields: dict[str, object] = {}
        # The address is also logged for requests that cannot be read.
        address = connection.peer if request is None else request.peer
        if address:
            fields["client.address"] = address
        if request is not None and request.via is not None:
            _describe_via(request.via, fields)
        if elapsed is not None:
            fields["event.duration"] = int(elapsed * 1e9)
        if response is None:
            fields["error.type"] = "client_gone"
            fields["error.message"] = "the client disconnected before the response was ready"
        else:
            fields["http.response.status_code"] = response.status
            if response.status >= 400:
                _describe_error(response, fields)
        return Fields(common, fields)

    def _of_head(self, request: Request, operation: str, connection: ObservedConnection) -> Common:
        """Return the fields that requests with the same head share, cached for a head that is repeated."""
        observed = request.facts.observed
        if observed is not None and observed.description is not None:
            common: Common = observed.description
            return common
        common = Common(self._describe_head(request, operation, connection.http_version))
        if observed is not None:
            observed.description = common
        return common

    def _describe_head(self, request: Request, operation: str, version: str) -> dict[str, object]:
        path, headers = request.path, request.headers
        fields: dict[str, object] = {"ds.operation": operation, "ds.storage.backend": self._storage}
        if operation == LONG_POLL.name:
            fields["ds.live_mode"] = "long-poll"
        elif operation == SUBSCRIBE.name:
            fields["ds.live_mode"] = "sse"
        fields["http.request.method"] = request.method.decode("latin-1")
        if path.startswith(self._prefix) and path not in PAGES:
            fields["http.route"] = self._route
            if request.facts.name:
                fields["ds.stream_id"] = request.facts.name
        elif operation != OTHER:
            fields["http.route"] = path.decode("latin-1")
        fields["url.path"] = (request.root + path).decode("latin-1")
        if request.query:
            fields["url.query"] = request.query.decode("latin-1")
        if b"host" in headers:
            fields["server.address"] = headers[b"host"].decode("latin-1")
        if b"user-agent" in headers:
            fields["user_agent.original"] = headers[b"user-agent"].decode("latin-1")
        fields["network.protocol.version"] = version
        parent = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
        if parent is not None:
            fields["trace.id"] = parent[1].decode("ascii")
        return fields


def _describe_via(via: Via, fields: dict[str, object]) -> None:
    if via.peer:
        fields["ds.proxy.peer_ip"] = via.peer
    fields["ds.proxy.trusted"] = via.trusted
    if via.identity is not None:
        fields["user.id"] = via.identity


def _describe_error(response: Response, fields: dict[str, object]) -> None:
    status = response.status
    error = response.error if isinstance(response, Refusal) else None
    if error is None:
        fields["error.type"] = "server_error" if status >= 500 else "client_error"
    else:
        fields["error.type"] = "/errors/" + error.slug
        fields["ds.error_code"] = error.code
        fields["error.message"] = error.detail or error.title
        if b"Retry-After: " in error.headers:
            fields["http.response.header.retry_after"] = (
                error.headers.partition(b"Retry-After: ")[2].split()[0].decode()
            )
    if _is_failure(status):
        fields["ds.error_class"] = _ERROR_CLASSES.get(status, "internal")
    cause = response.cause if isinstance(response, Refusal) else None
    if cause is not None:
        fields["error.message"] = f"{type(cause).__name__}: {cause}"


def _is_failure(status: int) -> bool:
    """Whether the server, rather than the client, caused the error."""
    return status >= 500 and status not in _CLIENTS_FAULTS


@define(eq=False)
class RequestEvents:
    """Logs requests (a ``Reporter``).

    Events go directly to the publisher, because a ``Logger`` would double the cost.

    :param fields: describes a request.
    :param least_status: the lowest status of requests that are logged.
    :param publish: receives the events: ``twisted.logger.globalLogPublisher``.
    """

    _fields: RequestFields
    least_status: int
    _publish: Callable[[LogEvent], object]
    _now: Callable[[], float] = time.time

    def report(
        self,
        request: Request | None,
        response: Response | None,
        operation: str,
        elapsed: float | None,
        connection: ObservedConnection,
    ) -> None:
        """Log a request."""
        status = 0 if response is None else response.status
        level, message = LogLevel.info, "request completed"
        if _is_failure(status):
            level, message = LogLevel.error, "request failed"
        elif status >= 400:
            level, message = LogLevel.warn, "request completed with client error"
        elif not status:
            message = "request abandoned"
        self._publish(
            {
                "log_level": level,
                "log_namespace": REQUESTS,
                "log_source": None,
                "log_time": self._now(),
                "log_format": message,
                "log_fields": self._fields.describe(request, response, operation, elapsed, connection),
            }
        )


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

    def report(
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
