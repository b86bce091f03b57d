"""The server's metrics for Prometheus.

The server only counts in plain integers; a :class:`Collector` makes samples of them at each scrape. The number of
label values is bounded: operations, classes of status, error codes and kinds of readers, but never stream names or
anything else that clients choose. ``docs/reference/metrics.md`` lists the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from attrs import define, field, frozen
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector as BaseCollector
from prometheus_client.registry import CollectorRegistry

from dstreams.telemetry.histograms import CommitTimes, Histogram

TIMED = ("create", "append", "head", "delete", "read")
"""Operations whose duration describes the server. The others wait for new data, or serve pages."""


_FROM_THE_START = [
    (operation, status_class) for operation in (*TIMED, "poll", "subscribe") for status_class in ("2xx", "4xx", "5xx")
]
"""Counters that are exported as 0 from the start, because an increase is visible only if there was a sample before."""


class StreamNumbers(Protocol):
    """Figures about streams and live readers."""

    @property
    def streams(self) -> int: ...
    @property
    def streams_limit(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def used_bytes_limit(self) -> int: ...
    @property
    def readers(self) -> Mapping[str, int]: ...
    @property
    def expired(self) -> int: ...
    @property
    def waiting_changes(self) -> int: ...
    @property
    def waiting_bytes(self) -> int: ...
    @property
    def damaged_places(self) -> int: ...
    @property
    def damaged_streams(self) -> int: ...
    @property
    def scrubbed_bytes(self) -> int: ...
    @property
    def scrub_pass_bytes(self) -> int: ...
    @property
    def scrub_passes(self) -> int: ...


class ConnectionNumbers(Protocol):
    """Figures about a listener's connections."""

    @property
    def connections(self) -> int: ...
    @property
    def reading(self) -> int: ...
    @property
    def responding(self) -> int: ...
    @property
    def streaming(self) -> int: ...
    @property
    def stalled(self) -> int: ...
    @property
    def unsent_bytes(self) -> int: ...
    @property
    def cut_stalled(self) -> int: ...
    @property
    def timed_out(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def body_bytes(self) -> int: ...
    @property
    def refused_bodies(self) -> int: ...
    @property
    def postponed(self) -> int: ...
    @property
    def calmed(self) -> int: ...


class AdmissionNumbers(Protocol):
    """Figures about the limit on connections."""

    @property
    def most(self) -> int: ...
    @property
    def full(self) -> int: ...


class RequestNumbers(Protocol):
    """Figures about requests and their responses."""

    errors: dict[str, int]
    """The number of error responses, by problem code."""
    times: dict[tuple[str, int], Histogram]
    """The durations of requests, by operation and status; status 0 means that the client had disconnected."""


@define(eq=False)
class Sources:
    """The objects that the figures come from.

    :param storage: the storage's name.
    :param build: facts about the running program, such as ``version``.
    :param connections: one function for each listener; listeners are added when they are created.
    :param admission: the limit on connections, or ``None`` if there is none.
    :param syncs: the durations of the journal's syncs, or ``None`` if there are none.
    :param lag: the reactor's lag.
    """

    storage: str
    build: Mapping[str, str]
    streams: Callable[[], StreamNumbers]
    requests: RequestNumbers
    ready: Callable[[], bool]
    failed: Callable[[], bool]
    commits: CommitTimes = field(factory=CommitTimes)
    syncs: Histogram | None = None
    lag: Histogram = field(factory=Histogram)
    connections: list[Callable[[], ConnectionNumbers]] = field(factory=list)
    admission: AdmissionNumbers | None = None


@frozen(eq=False)
class Collector(BaseCollector):
    """Makes samples of the figures (prometheus_client's interface)."""

    _sources: Sources

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the collected metrics describe themselves."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their current values."""
        yield from self._server()
        yield from self._requests()
        yield from self._commits()
        yield from self._streams()

    def _server(self) -> Iterator[Metric]:
        sources = self._sources
        yield InfoMetricFamily(
            "dstreams_build", "The running program.", dict(sources.build) | {"storage": sources.storage}
        )
        yield _gauge("dstreams_ready", "Whether the server is ready for traffic, as /readyz reports.", sources.ready())
        yield _gauge("dstreams_storage_failed", "Whether the storage accepts no more changes.", sources.failed())
        yield _histogram("dstreams_reactor_lag_seconds", "How late timers of the event loop were.", sources.lag)

    def _requests(self) -> Iterator[Metric]:
        times = self._sources.requests.times
        counted = dict.fromkeys(_FROM_THE_START, 0)
        by_operation = {operation: Histogram() for operation in TIMED}
        for (operation, status), histogram in times.items():
            key = (operation, _status_class(status))
            counted[key] = counted.get(key, 0) + histogram.count
            if operation in by_operation and status:
                by_operation[operation].add(histogram)
        requests = CounterMetricFamily(
            "dstreams_http_requests", "Requests answered.", labels=["operation", "status_class"]
        )
        for (operation, status_class), count in sorted(counted.items()):
            requests.add_metric([operation, status_class], count)
        yield requests
        durations = HistogramMetricFamily(
            "dstreams_http_request_duration_seconds",
            "From a request's complete head to its response's head.",
            labels=["operation"],
        )
        for operation, histogram in by_operation.items():
            durations.add_metric([operation], histogram.cumulative(), histogram.total)
        yield durations
        errors = CounterMetricFamily("dstreams_errors", "Problem responses sent to clients.", labels=["code"])
        for code, count in sorted(self._sources.requests.errors.items()):
            errors.add_metric([code], count)
        yield errors

    def _commits(self) -> Iterator[Metric]:
        sources = self._sources
        commits = sources.commits
        yield _histogram(
            "dstreams_commit_duration_seconds",
            "From passing a group to the storage until it is durable.",
            commits.seconds,
        )
        yield _histogram("dstreams_commit_changes", "Changes in one commit.", commits.changes)
        yield _counter("dstreams_commit_failures", "Commits that failed.", commits.failures)
        if sources.syncs is not None:
            yield _histogram("dstreams_sync_duration_seconds", "Syncs of the journal.", sources.syncs)

    def _streams(self) -> Iterator[Metric]:
        numbers, listeners = self._sources.streams(), [each() for each in self._sources.connections]
        yield _gauge("dstreams_streams", "Streams, including those kept for their forks.", numbers.streams)
        yield _gauge("dstreams_streams_limit", "The limit on streams.", numbers.streams_limit)
        yield _gauge("dstreams_stored_bytes", "Bytes that count against the limit.", numbers.used_bytes)
        yield _gauge("dstreams_stored_bytes_limit", "The limit on stored bytes.", numbers.used_bytes_limit)
        yield _counter("dstreams_expired_streams", "Streams removed because they had expired.", numbers.expired)
        yield _gauge(
            "dstreams_commit_waiting_changes", "Changes accepted but not committed yet.", numbers.waiting_changes
        )
        yield _gauge("dstreams_commit_waiting_bytes", "Payload bytes of these changes.", numbers.waiting_bytes)
        yield _counter("dstreams_damaged_places", "Damaged places found in stored data.", numbers.damaged_places)
        yield _gauge("dstreams_damaged_streams", "Streams in which damage was found.", numbers.damaged_streams)
        yield _counter("dstreams_scrub_bytes", "Bytes read by the scrub.", numbers.scrubbed_bytes)
        yield _gauge(
            "dstreams_scrub_pass_bytes", "Bytes read by the scrub in its latest pass.", numbers.scrub_pass_bytes
        )
        yield _counter("dstreams_scrub_passes", "Complete scrub passes over all stored data.", numbers.scrub_passes)
        streaming = sum(each.streaming for each in listeners)
        sse = numbers.readers.get("sse", 0)
        readers = GaugeMetricFamily(
            "dstreams_readers", "Readers that wait for data or receive large responses.", labels=["kind"]
        )
        # A reader over HTTP/2 has no connection of its own.
        readers.add_metric(["catch-up"], max(0, streaming - sse))
        readers.add_metric(["long-poll"], numbers.readers.get("long-poll", 0))
        readers.add_metric(["sse"], sse)
        yield readers
        yield from self._connections(listeners)

    def _connections(self, listeners: list[ConnectionNumbers]) -> Iterator[Metric]:
        def total(name: str) -> int:
            return sum(getattr(each, name) for each in listeners)

        states = GaugeMetricFamily("dstreams_http_connections", "Open connections.", labels=["state"])
        busy = {"reading": total("reading"), "responding": total("responding"), "streaming": total("streaming")}
        states.add_metric(["idle"], max(0, total("connections") - sum(busy.values())))
        for state, count in busy.items():
            states.add_metric([state], count)
        yield states
        admission = self._sources.admission
        if admission is not None:
            yield _gauge("dstreams_http_connections_limit", "Maximum number of connections.", admission.most)
            yield _counter("dstreams_http_connections_full", "Times that the limit was reached.", admission.full)
        yield _gauge(
            "dstreams_http_stalled_clients", "Clients that read more slowly than data is sent.", total("stalled")
        )
        yield _gauge(
            "dstreams_http_unsent_bytes", "Bytes written but not accepted by the system yet.", total("unsent_bytes")
        )
        yield _gauge("dstreams_http_body_bytes", "Bytes received of large request bodies.", total("body_bytes"))
        yield _counter(
            "dstreams_http_refused_bodies", "Request bodies rejected for lack of memory.", total("refused_bodies")
        )
        yield _counter(
            "dstreams_http_cut_clients", "Connections aborted because the client read nothing.", total("cut_stalled")
        )
        yield _counter("dstreams_http_timed_out_requests", "Requests that arrived too slowly.", total("timed_out"))
        yield _counter("dstreams_http_refused_requests", "Requests that violate HTTP.", total("refused"))
        yield _counter(
            "dstreams_http_postponed_turns",
            "Times that a connection had more to do than its share of a reactor turn.",
            total("postponed"),
        )
        yield _counter("dstreams_http_calmed_connections", "Connections ended with ENHANCE_YOUR_CALM.", total("calmed"))


@frozen(eq=False)
class Exposition:
    """The content of ``/metrics``."""

    _registry: CollectorRegistry

    @classmethod
    def of(cls, sources: Sources) -> Exposition:
        """Return the exposition of the server's metrics, and of its process's where the system provides them."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector(sources))
        ProcessCollector(registry=registry)
        return cls(registry)

    def render(self, accept: str) -> tuple[bytes, bytes]:
        """Return the metrics in the format that a scraper prefers.

        :param accept: its ``Accept`` header.
        :return: the body, and its content type.
        """
        encode: Callable[[Any], bytes]
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type.encode("ascii")


def _status_class(status: int) -> str:
    return f"{status // 100}xx" if status else "abandoned"


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(name, about, value=float(value))


def _histogram(name: str, about: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, about, buckets=histogram.cumulative(), sum_value=histogram.total)
