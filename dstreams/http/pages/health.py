"""The health and readiness pages, for load balancers, orchestrators and people."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dstreams.http.pages.site import READ, Page, answer_json, answer_problem, answer_text, unready

if TYPE_CHECKING:
    from klein import Klein
    from twisted.web.iweb import IRequest

Status = Callable[[], Mapping[str, object]]
"""Returns additional members of ``/health``, which the server provides."""


def health(ready: Callable[[], bool], status: Status) -> Page:
    """Return the pages ``/healthz``, ``/readyz`` and ``/health``.

    ``/healthz`` is 200 as long as the process answers at all; ``/readyz`` is 200 while the server is ready for traffic,
    else 503; ``/health`` is 200 with a JSON document for people and dashboards.

    :param ready: returns whether the server is ready for traffic.
    """
    started = time.monotonic()

    def add(app: Klein) -> None:
        @app.route("/healthz", methods=READ)
        def healthz(request: IRequest) -> bytes:
            return answer_text(request, b"ok\n")

        @app.route("/readyz", methods=READ)
        def readyz(request: IRequest) -> bytes:
            return answer_text(request, b"ready\n") if ready() else answer_problem(request, unready())

        @app.route("/health", methods=READ)
        def health(request: IRequest) -> bytes:
            members = {"status": "ok" if ready() else "unavailable", "uptime_seconds": int(time.monotonic() - started)}
            return answer_json(request, members | dict(status()))

    return add
