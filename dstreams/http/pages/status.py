"""Health, readiness and metrics: pages for load balancers, orchestrators and monitoring."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from dstreams.config.paths import METRICS_PATH
from dstreams.http.messages import Request, Response
from dstreams.http.pages.page import Page, json_response, text_response
from dstreams.protocol.problems import Unavailable
from dstreams.telemetry.metrics import Exposition


def health_pages(ready: Callable[[], bool], status: Callable[[], Mapping[str, object]]) -> dict[bytes, Page]:
    """Return the pages ``/healthz``, ``/readyz`` and ``/health``.

    ``/healthz`` is 200 as long as the process answers at all; ``/readyz`` is 200 while the server is ready for traffic,
    else 503; ``/health`` is 200 with a JSON document for people and dashboards.

    :param ready: returns whether the server is ready for traffic.
    :param status: returns more members of the document.
    """
    started = time.monotonic()

    def show_alive(_: Request) -> Response:
        return text_response(b"ok\n")

    def show_ready(_: Request) -> Response:
        if not ready():
            raise Unavailable("The server is not ready to accept traffic")
        return text_response(b"ready\n")

    def show_health(_: Request) -> Response:
        members = {"status": "ok" if ready() else "unavailable", "uptime_seconds": int(time.monotonic() - started)}
        return json_response(members | dict(status()))

    return {
        b"/healthz": Page(show_alive),
        b"/readyz": Page(show_ready),
        b"/health": Page(show_health),
    }


def metrics_pages(exposition: Exposition) -> dict[bytes, Page]:
    """Return the page with the server's metrics for Prometheus."""

    def show(request: Request) -> Response:
        accept = request.headers.get(b"accept", b"").decode("latin-1")
        return text_response(*exposition.render(accept))

    return {METRICS_PATH.encode(): Page(show)}
