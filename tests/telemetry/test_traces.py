"""Spans: what is in them, whose trace they belong to, and what is missing without the packages."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, evolve, field, frozen
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dstreams.config import Config
from dstreams.http.access_log import RequestFields, RequestSpans
from dstreams.http.http1.channel import HttpFactory
from dstreams.http.messages import Response
from dstreams.http.transport.connections import Connections
from dstreams.runtime.startup import StartupError, StartupPhase
from dstreams.server import assemble
from dstreams.services.telemetry import TelemetryService
from dstreams.storage.memory import MemoryStorage
from dstreams.telemetry.traces import Traces, check_installed
from tests.http.fakes import Connected

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

pytestmark = pytest.mark.usefixtures("failures")

INSTALLED = importlib.util.find_spec("opentelemetry") is not None
needs_otel = pytest.mark.skipif(not INSTALLED, reason="OpenTelemetry isn't installed: pip install dstreams[otel]")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def configured(traces: bool) -> Config:
    observability = evolve(Config().observability, traces=traces, metrics=False, log_level="off", rust_log="off")
    return evolve(Config(), observability=observability)


@frozen
class FakeSpeaker:
    """A connection (a ``ObservedConnection``)."""

    http_version: str = "1.1"
    peer: str = "192.0.2.9"


@define(eq=False)
class Server:
    """An assembled server whose spans stay in memory."""

    exporter: Any = field(init=False)
    factory: HttpFactory = field(init=False)
    traces: Traces = field(init=False)

    def __attrs_post_init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        assembly = assemble(MemoryStorage(), configured(True), Clock(), lambda: True)
        assembly.streams.open()
        instruments = assembly.instruments
        assert instruments.traces is not None
        self.traces = instruments.traces
        self.traces._make_provider = lambda version: provider
        self.traces.start()
        self.factory = HttpFactory(assembly.application, assembly.wheel, connections=Connections(instruments.observer))

    def ask(self, method: str, target: str, **headers: str) -> Connected:
        connected = Connected(factory=self.factory)
        lines = [f"{method} {target} HTTP/1.1", "Host: a", "Content-Length: 0", "Content-Type: text/plain"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        connected.send("\r\n".join([*lines, "", ""]).encode())
        return connected

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@needs_otel
class SpanTests:
    """One span for each request."""

    @pytest.fixture
    def server(self) -> Iterator[Server]:
        server = Server()
        yield server
        server.traces.stop()

    def test_fields(self, server: Server) -> None:
        """A span has the name of what was asked, and the fields of the log event."""
        server.ask("PUT", "/v1/stream/a/b")
        (span,) = server.spans
        assert span.name == "PUT /v1/stream/{name}"
        assert span.kind.name == "SERVER"
        assert span.status.status_code.name == "UNSET"
        assert dict(span.attributes or {}) == {
            "ds.operation": "create",
            "ds.storage.backend": "memory",
            "ds.stream_id": "a/b",
            "http.request.method": "PUT",
            "http.route": "/v1/stream/{name}",
            "http.response.status_code": 201,
            "url.path": "/v1/stream/a/b",
            "server.address": "a",
            "client.address": "192.168.1.1",
            "network.protocol.version": "1.1",
        }

    def test_times(self, server: Server) -> None:
        """It begins with the request and ends with the answer."""
        server.ask("GET", "/v1/stream/none")
        (span,) = server.spans
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 < span.end_time - span.start_time < 1e9

    def test_parent(self, server: Server) -> None:
        """A request in the middle of a trace goes on with that; others begin one."""
        server.ask("GET", "/v1/stream/none", traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="a=1")
        server.ask("GET", "/v1/stream/none")
        with_parent, without = server.spans
        assert with_parent.parent is not None
        assert with_parent.context is not None
        assert without.context is not None
        assert f"{with_parent.parent.span_id:016x}" == SPAN
        assert f"{with_parent.context.trace_id:032x}" == TRACE
        assert with_parent.context.trace_state["a"] == "1"
        assert without.parent is None
        assert f"{without.context.trace_id:032x}" != TRACE

    @pytest.mark.parametrize("nonsense", ["", "00", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", "\x80"])
    def test_nonsense(self, server: Server, nonsense: str) -> None:
        """A header that names no trace is ignored."""
        server.ask("GET", "/v1/stream/none", traceparent=nonsense)
        (span,) = server.spans
        assert span.parent is None

    def test_unsampled(self, server: Server) -> None:
        """Whoever has begun a trace decides whether it is kept."""
        server.ask("GET", "/v1/stream/none", traceparent=f"00-{TRACE}-{SPAN}-00")
        assert server.spans == []

    def test_failure(self, server: Server) -> None:
        """What is the server's fault is an error; what is the client's isn't."""
        server.ask("GET", "/v1/stream/none")
        spans = RequestSpans(RequestFields(b"/v1/stream/", "memory"), server.traces)
        spans.report(None, Response(503), "request", None, FakeSpeaker())
        missing, failed = server.spans
        assert missing.status.status_code.name == "UNSET"
        assert failed.status.status_code.name == "ERROR"
        assert failed.name == "HTTP"

    def test_abandoned(self, server: Server) -> None:
        """A request whose client has gone is a span without a status code."""
        server.ask("PUT", "/v1/stream/s")
        server.ask("GET", "/v1/stream/s?offset=now&live=long-poll").lose()
        span = server.spans[-1]
        assert span.attributes is not None
        assert span.attributes["error.type"] == "client_gone"
        assert "http.response.status_code" not in span.attributes


class WithoutTests:
    """Traces that aren't wanted, or can't be had."""

    def test_not_wanted(self) -> None:
        """Where nobody wants them nothing is observed."""
        assembly = assemble(MemoryStorage(), configured(False), Clock(), lambda: True)
        assert assembly.instruments.traces is None
        assert assembly.instruments.observer is None

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the packages the server doesn't start, and says what to do."""
        monkeypatch.setattr("dstreams.telemetry.traces._NEEDED", ("no_such_package.trace",))
        with pytest.raises(StartupError, match=r"install dstreams\[otel\], or set it to false") as raised:
            check_installed()
        assert raised.value.phase is StartupPhase.VALIDATE_CONFIG

    def test_not_imported(self) -> None:
        """A server without traces doesn't import the packages."""
        program = "import sys, dstreams.tap, dstreams.server; print([m for m in sys.modules if 'opentel' in m])"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert ended.stdout == "[]\n"


@needs_otel
class TracingServiceTests(SynchronousTestCase):
    """Starting and stopping the export."""

    def test_lifetime(self) -> None:
        """The exporter is made when the server starts, never earlier, and has exported everything at the end."""
        made: list[Any] = []

        class FakeProvider:
            stopped = False

            def get_tracer(self, name: str, version: str) -> None:
                assert (name, version) == ("dstreams", "1.0")

            def shutdown(self) -> None:
                self.stopped = True

        def make(version: str) -> Any:
            made.append(FakeProvider())
            return made[0]

        service = TelemetryService(None, Traces("1.0", make))
        assert not made
        service.startService()
        assert not made[0].stopped
        stopping = service.stopService()
        assert stopping is not None
        self.successResultOf(stopping)
        assert made[0].stopped
