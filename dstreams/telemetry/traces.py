"""Traces for OpenTelemetry, where its packages are installed.

Nothing of it is imported unless ``observability.traces`` asks for it. The variables of OpenTelemetry's own
specification (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_RESOURCE_ATTRIBUTES`` and the others)
say where spans go and which of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from attrs import define, field

from dstreams.startup import StartupError, StartupPhase
from dstreams.telemetry.ecs import SERVICE_NAME

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_NEEDED: Final = ("opentelemetry.trace", "opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def check_installed() -> None:
    """See whether traces can be made.

    :raise StartupError: when the packages aren't there.
    """
    for name in _NEEDED:
        if not _is_installed(name):
            raise StartupError(
                StartupPhase.VALIDATE_CONFIG,
                f"observability.traces is true, but {name} isn't installed: install dstreams[otel], or set it to false",
            )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def otlp_provider(version: str) -> TracerProvider:
    """Exports spans by OTLP over HTTP, from a thread of its own: not to be made before twistd has forked."""
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
    """Makes spans of requests that are over.

    Until it is started spans go to whatever provider the process has set up for itself, if any: that is how an
    application gets them that mounts the server.

    :param version: the server's version.
    :param make_provider: makes what exports the spans of a server of its own.
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
        """Export what is left; waits for that, so call it in a thread."""
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
        """Make a span.

        :param name: what was done.
        :param attributes: strings and numbers.
        :param carrier: the request's ``traceparent`` and ``tracestate``, as far as it has them.
        :param times: begin and end, in nanoseconds since 1970.
        :param failed: whether that was the server's fault.
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
