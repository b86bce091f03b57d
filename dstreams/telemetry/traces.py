"""OpenTelemetry traces, if its packages are installed.

OpenTelemetry is imported only if ``observability.traces`` is set. The variables of its own specification
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_RESOURCE_ATTRIBUTES`` and others) determine where
spans are exported and which of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from attrs import define, field

from dstreams.runtime.startup import StartupError, StartupPhase
from dstreams.telemetry.ecs import SERVICE_NAME

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_NEEDED: Final = ("opentelemetry.trace", "opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def check_installed() -> None:
    """Check that the packages for traces are installed.

    :raise StartupError: if one is missing.
    """
    for name in _NEEDED:
        if not _is_installed(name):
            raise StartupError(
                StartupPhase.VALIDATE_CONFIG,
                f"observability.traces is true, but {name} is not installed: install dstreams[otel],"
                " or set it to false",
            )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent package is missing too
        return False


def otlp_provider(version: str) -> TracerProvider:
    """Create a provider that exports spans by OTLP over HTTP. It starts a thread, so call it only after the fork."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME as NAME
    from opentelemetry.sdk.resources import SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if "OTEL_SERVICE_NAME" in os.environ else {NAME: SERVICE_NAME}
    provider = TracerProvider(resource=Resource.create({**named, SERVICE_VERSION: version}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


@define(eq=False)
class Traces:
    """Records finished requests as spans.

    Until :meth:`start` is called, spans go to the provider that the process has set up, if any. That is how an
    application that embeds the server gets them.

    :param version: the server's version.
    :param make_provider: creates the provider that :meth:`start` uses.
    """

    _version: str
    _make_provider: Callable[[str], TracerProvider] = otlp_provider
    _tracer: Tracer = field(init=False)
    _propagator: TraceContextTextMapPropagator = field(init=False)
    _provider: TracerProvider | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        from opentelemetry.trace import get_tracer
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = get_tracer("dstreams", self._version)
        self._propagator = TraceContextTextMapPropagator()

    def start(self) -> None:
        """Export spans from now on."""
        self._provider = self._make_provider(self._version)
        self._tracer = self._provider.get_tracer("dstreams", self._version)

    def stop(self) -> None:
        """Export the remaining spans. This blocks, so call it in a thread."""
        if self._provider is not None:
            self._provider.shutdown()

    def record(
        self,
        name: str,
        attributes: Mapping[str, object],
        carrier: Mapping[str, str],
        times: tuple[int, int],
        failed: bool,
    ) -> None:
        """Record a span.

        :param name: the span's name.
        :param attributes: strings and numbers.
        :param carrier: the request's ``traceparent`` and ``tracestate`` headers, if it has them.
        :param times: start and end, in nanoseconds since 1970.
        :param failed: whether the request failed because of the server.
        """
        from opentelemetry.trace import SpanKind, StatusCode

        context = self._propagator.extract(carrier) if carrier else None
        begin, end = times
        span = self._tracer.start_span(name, context, SpanKind.SERVER, _of_otel(attributes), start_time=begin)
        if failed:
            span.set_status(StatusCode.ERROR, str(attributes.get("error.message", "")) or None)
        span.end(end)


def _of_otel(attributes: Mapping[str, object]) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in attributes.items() if isinstance(value, str | int | float | bool)}
