"""``/metrics``: the server's metrics for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstreams.config.paths import METRICS_PATH
from dstreams.http.pages.site import READ, Page, answer_text
from dstreams.telemetry.metrics import Exposition

if TYPE_CHECKING:
    from klein import Klein
    from twisted.web.iweb import IRequest


def metrics(exposition: Exposition) -> Page:
    """Return the page."""

    def add(app: Klein) -> None:
        @app.route(METRICS_PATH, methods=READ)
        def expose(request: IRequest) -> bytes:
            body, content_type = exposition.render(request.getHeader("accept") or "")
            return answer_text(request, body, content_type)

    return add
