"""What Prometheus is told."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from attrs import define, evolve, field
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.internet.task import Clock

from dstreams import server
from dstreams.config import Config
from dstreams.http.http1.channel import HttpFactory
from dstreams.runtime.timers import Clocks
from dstreams.server import assemble
from dstreams.services.admission import Admission
from dstreams.storage.memory import MemoryStorage
from dstreams.telemetry.histograms import Histogram
from tests.http.fakes import Connected, read_answers
from tests.support.engine import WALL, DelayedStorage
from tests.support.servers import ROOT

pytestmark = pytest.mark.usefixtures("failures")

REFERENCE = ROOT / "docs" / "reference" / "metrics.md"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@define(eq=False)
class Server:
    """An assembled server without sockets."""

    storage: MemoryStorage | DelayedStorage = field(factory=MemoryStorage)
    config: Config = field(factory=Config)
    clock: Clock = field(factory=Clock)
    assembly: server.Server = field(init=False)
    factory: HttpFactory = field(init=False)

    def __attrs_post_init__(self) -> None:
        clocks = Clocks(self.clock.seconds, lambda: self.clock.seconds() + WALL)
        self.assembly = assemble(self.storage, self.config, self.clock, lambda: True, clocks, Histogram())
        self.assembly.streams.open()
        instruments = self.assembly.instruments
        self.factory = self.assembly.site.http1
        if instruments.sources is not None:
            instruments.sources.admission = Admission(int, self.clock.seconds, "a key", 500)

    def ask(self, method: str, target: str, body: bytes = b"") -> Connected:
        connected = Connected(factory=self.factory)
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connected.send(head.encode() + body)
        return connected

    def metrics(self, accept: str = "text/plain") -> tuple[str, str]:
        """The exposition, and its type."""
        exposition = self.assembly.instruments.exposition
        assert exposition is not None
        body, content_type = exposition.render(accept)
        return body.decode(), content_type.decode()

    def samples(self) -> Samples:
        """All samples by name and labels."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse_text(self.metrics()[0])
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[(name, tuple(sorted(labels.items())))]


class ExpositionTests:
    """The form."""

    def busy(self) -> Server:
        """A server with something in every metric."""
        server = Server()
        server.ask("PUT", "/v1/stream/s", b"hello")
        server.ask("GET", "/v1/stream/none")
        return server

    def test_parses(self) -> None:
        """Prometheus's own parsers read it, in both forms, and find no name twice."""
        server = self.busy()
        text, content_type = server.metrics()
        assert content_type.startswith("text/plain; version=")
        names = [family.name for family in parse_text(text)]
        assert names
        assert len(set(names)) == len(names)
        text, content_type = server.metrics("application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        assert len(list(parse_openmetrics(text))) == len(names)

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) isn't installed")
    def test_promtool(self) -> None:
        """Promtool accepts it and finds nothing to complain of."""
        checked = subprocess.run(
            ["promtool", "check", "metrics"],
            input=self.busy().metrics()[0],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) isn't installed")
    def test_alerts(self, tmp_path: Path) -> None:
        """Promtool accepts the alerts and the scrape configuration of the guide."""
        guide = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
        scrape, rules = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
        (tmp_path / "rules.yml").write_text(rules)
        (tmp_path / "prometheus.yml").write_text(scrape)
        for what in (["rules", "rules.yml"], ["config", "prometheus.yml"]):
            checked = subprocess.run(
                ["promtool", "check", *what], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert checked.returncode == 0, checked.stdout + checked.stderr

    def test_reference(self) -> None:
        """The reference lists what there is, with its type and labels, and nothing else."""
        listed = {}
        for line in REFERENCE.read_text().splitlines():
            match = re.fullmatch(r"\| `(\w+)` \| (\w+) \| ([^|]*)\| [^|]+ \|", line)
            if match is not None:
                listed[match[1]] = (match[2], frozenset(re.findall(r"`(\w+)`", match[3])))
        found = {}
        for family in parse_text(self.busy().metrics()[0]):
            name = family.name + "_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = (family.type, frozenset(labels))
        assert listed == found

    def test_conventions(self) -> None:
        """Names begin with ours and end with their unit; every metric has its help."""
        for family in parse_text(self.busy().metrics()[0]):
            assert family.documentation
            if not family.name.startswith("process_"):
                assert family.name.startswith("dstreams_")
            if family.type == "histogram":
                assert family.name.endswith(("_seconds", "_changes"))

    def test_no_names(self) -> None:
        """No stream's name, and nothing else that a client makes up, is in it."""
        server = Server()
        server.ask("PUT", "/v1/stream/secret-name", b"x")
        server.ask("SECRET", "/v1/stream/secret-name")
        server.ask("GET", "/secret-path?secret-query")
        server.ask("GET", "/v1/stream/secret-name?offset=secret&live=secret")
        assert "secret" not in server.metrics()[0].lower()

    def test_size_is_bounded(self) -> None:
        """However many streams and requests there are, there are no more samples."""
        server = Server()
        server.ask("PUT", "/v1/stream/s0")
        before = len(server.samples())
        for number in range(1, 50):
            server.ask("PUT", f"/v1/stream/s{number}")
        assert len(server.samples()) == before


class ValueTests:
    """The numbers."""

    def test_requests(self) -> None:
        """Requests are counted by operation and class of status."""
        server = Server()
        for _ in range(3):
            server.ask("PUT", "/v1/stream/s")
        server.ask("POST", "/v1/stream/none", b"x")
        server.ask("GET", "/v1/stream/s?offset=now&live=long-poll").lose()
        counted = {
            labels: value
            for (name, labels), value in server.samples().items()
            if name == "dstreams_http_requests_total" and value
        }
        assert counted == {
            (("operation", "create"), ("status_class", "2xx")): 3,
            (("operation", "append"), ("status_class", "4xx")): 1,
            (("operation", "poll"), ("status_class", "abandoned")): 1,
        }
        assert server.value("dstreams_errors_total", code="NOT_FOUND") == 1
        assert server.value("dstreams_http_request_duration_seconds_count", operation="create") == 3
        assert server.value("dstreams_http_request_duration_seconds_bucket", operation="create", le="+Inf") == 3
        assert server.value("dstreams_http_request_duration_seconds_sum", operation="create") > 0

    def test_zeros(self) -> None:
        """What may go wrong is counted as nothing before it happens, so that the first time shows."""
        server = Server()
        assert server.value("dstreams_http_requests_total", operation="append", status_class="5xx") == 0

    def test_streams(self) -> None:
        """Streams, bytes and the limit."""
        server = Server()
        server.ask("PUT", "/v1/stream/s", b"hello")
        assert server.value("dstreams_streams") == 1
        assert server.value("dstreams_streams_limit") == 10_000_000
        assert server.value("dstreams_stored_bytes") == server.assembly.streams.statistics().used_bytes
        assert server.value("dstreams_stored_bytes_limit") == 104_857_600

    def test_expired(self) -> None:
        """Streams whose time was over are counted."""
        server = Server()
        server.ask("PUT", "/v1/stream/kept")
        connected = Connected(factory=server.factory)
        connected.send(b"PUT /v1/stream/brief HTTP/1.1\r\nHost: a\r\nStream-TTL: 5\r\nContent-Length: 0\r\n\r\n")
        assert server.value("dstreams_expired_streams_total") == 0
        server.clock.pump([1.0] * 10)
        assert server.value("dstreams_expired_streams_total") == 1
        assert server.value("dstreams_streams") == 1

    def test_readers(self) -> None:
        """Readers are counted by kind while they are there."""
        server = Server()
        server.ask("PUT", "/v1/stream/s")
        server.ask("PUT", "/v1/stream/large", bytes(1 << 20))
        readers = [server.ask("GET", "/v1/stream/s?offset=now&live=sse") for _ in range(3)]
        readers += [server.ask("GET", "/v1/stream/s?offset=now&live=long-poll") for _ in range(2)]
        slow = Connected(factory=server.factory)
        slow.transport.full = True
        slow.send(b"GET /v1/stream/large HTTP/1.1\r\nHost: a\r\n\r\n")
        kinds = {kind: server.value("dstreams_readers", kind=kind) for kind in ("sse", "long-poll", "catch-up")}
        assert kinds == {"sse": 3, "long-poll": 2, "catch-up": 1}
        assert server.value("dstreams_http_stalled_clients") == 1
        assert server.value("dstreams_http_connections", state="streaming") == 4
        assert server.value("dstreams_http_connections", state="responding") == 2
        assert server.value("dstreams_http_connections", state="idle") == 2
        for reader in [*readers, slow]:
            reader.lose()
        assert server.value("dstreams_readers", kind="sse") == 0
        assert server.value("dstreams_http_connections", state="streaming") == 0

    def test_cut(self) -> None:
        """A client that takes nothing for too long is cut, and counted."""
        server = Server()
        server.ask("PUT", "/v1/stream/large", bytes(1 << 20))
        slow = Connected(factory=server.factory)
        slow.transport.full = True
        slow.send(b"GET /v1/stream/large HTTP/1.1\r\nHost: a\r\n\r\n")
        server.clock.pump([1.0] * 300)
        assert server.value("dstreams_http_cut_clients_total") == 1

    def test_refused(self) -> None:
        """What HTTP doesn't allow is counted apart."""
        server = Server()
        Connected(factory=server.factory).send(b"\x00")
        assert server.value("dstreams_http_refused_requests_total") == 1
        assert server.value("dstreams_http_requests_total", operation="request", status_class="4xx") == 1

    def test_postponed(self) -> None:
        """A connection that has more to do than its share of a turn is counted."""
        server = Server()
        flood = Connected(factory=server.factory)
        flood.send(b"HEAD /v1/stream/s HTTP/1.1\r\nHost: a\r\n\r\n" * 5000)
        assert server.value("dstreams_http_postponed_turns_total") == 1
        assert server.value("dstreams_http_calmed_connections_total") == 0

    def test_commits(self) -> None:
        """Groups are timed and measured; what waits is told while it waits."""
        storage = DelayedStorage()
        server = Server(storage)
        for number in range(4):
            server.ask("PUT", f"/v1/stream/s{number}", b"12345")
        assert server.value("dstreams_commit_waiting_changes") == 4
        assert server.value("dstreams_commit_waiting_bytes") == 20
        storage.finish_all()
        assert server.value("dstreams_commit_waiting_changes") == 0
        assert server.value("dstreams_commit_changes_count") == 2
        assert server.value("dstreams_commit_changes_sum") == 4
        assert server.value("dstreams_commit_changes_bucket", le="1.0") == 1
        assert server.value("dstreams_commit_duration_seconds_count") == 2
        assert server.value("dstreams_commit_failures_total") == 0

    def test_failed_commit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Commits that fail are counted."""
        monkeypatch.setattr("dstreams.streams.commits._log.failure", lambda *_: None)
        storage = DelayedStorage()
        server = Server(storage)
        server.ask("PUT", "/v1/stream/s")
        storage.fail()
        assert server.value("dstreams_commit_failures_total") == 1
        assert server.value("dstreams_http_requests_total", operation="create", status_class="5xx") == 1

    def test_state(self) -> None:
        """Readiness and what runs."""
        server = Server()
        assert server.value("dstreams_ready") == 1
        assert server.value("dstreams_storage_failed") == 0
        (info,) = [labels for name, labels in server.samples() if name == "dstreams_build_info"]
        assert dict(info)["storage"] == "memory"

    def test_lag(self) -> None:
        """The reactor's lag is measured while it is asked to."""
        server = Server()
        lag = server.assembly.instruments.lag
        assert lag is not None
        lag.start()
        server.clock.advance(1.5)
        assert server.value("dstreams_reactor_lag_seconds_sum") == 0.5
        lag.stop()


class PlaceTests:
    """Where the metrics are."""

    def statuses(self, config: Config) -> tuple[int, int | None]:
        """The status of ``/metrics`` on the main port, and on the admin listener if there is one."""
        server = Server(config=config)
        main = self.ask(server, server.factory)
        if server.assembly.admin is None:
            return main, None
        return main, self.ask(server, server.assembly.admin.http1)

    def ask(self, server: Server, factory: HttpFactory) -> int:
        (answer,) = read_answers(Connected(factory=factory).send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"))
        return answer.status

    def test_main_port(self) -> None:
        """Without an admin listener they are on the main port."""
        assert self.statuses(Config()) == (200, None)

    def test_admin_listener(self) -> None:
        """With an admin listener they are there, and only there."""
        admin = evolve(Config().admin, endpoint="127.0.0.1:0")
        assert self.statuses(evolve(Config(), admin=admin)) == (404, 200)

    @pytest.mark.parametrize("endpoint", [None, "127.0.0.1:0"])
    def test_off(self, endpoint: str | None) -> None:
        """Where they aren't wanted they are nowhere, and nothing is counted."""
        admin = evolve(Config().admin, endpoint=endpoint)
        observability = evolve(Config().observability, metrics=False, log_level="off", rust_log="off")
        config = evolve(Config(), admin=admin, observability=observability)
        assert self.statuses(config) == (404, None if endpoint is None else 404)
        server = Server(config=config)
        assert server.assembly.instruments.observer is None
        assert server.assembly.instruments.lag is None

    @pytest.mark.parametrize("endpoint", [None, "127.0.0.1:0"])
    def test_never_a_stream(self, endpoint: str | None) -> None:
        """With streams at the root no stream can take the path."""
        http, admin = evolve(Config().http, stream_base_path="/"), evolve(Config().admin, endpoint=endpoint)
        server = Server(config=evolve(Config(), http=http, admin=admin))
        for method in ("PUT", "POST", "DELETE"):
            server.ask(method, "/metrics", b"x")
        assert server.assembly.streams.statistics().streams == 0
        counted = {
            labels: value
            for (name, labels), value in server.samples().items()
            if name == "dstreams_http_requests_total" and value
        }
        assert counted == {(("operation", "metrics"), ("status_class", "4xx")): 3}
