"""The metrics that Prometheus reads.

Nothing is computed before somebody asks: the server counts in plain integers, and a :class:`Collector` makes samples of
them at every scrape. Labels are bounded: operations, classes of status, error codes, kinds of reader; never the name of
a stream or anything else that a client makes up. ``docs/reference/metrics.md`` lists the metrics.
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

from dstreams.telemetry.commits import CommitTimes
from dstreams.telemetry.histograms import Histogram

TIMED = ("create", "append", "head", "delete", "read")
"""The operations whose duration says something of the server: others wait for news, or for a page."""


_FROM_THE_START = [
    (operation, status_class) for operation in (*TIMED, "poll", "subscribe") for status_class in ("2xx", "4xx", "5xx")
]
"""What is told before there is any: the growth from nothing to one shows only where there was a zero before."""


class StreamNumbers(Protocol):
    """How much is stored, and who waits for it."""

    @property
    def streams(self) -> int: ...
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
    """What a listener's connections do."""

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


class AdmissionNumbers(Protocol):
    """How many connections are let in."""

    @property
    def most(self) -> int: ...
    @property
    def full(self) -> int: ...


class RequestNumbers(Protocol):
    """How requests were answered."""

    errors: dict[str, int]
    """How many problems were told, by code."""
    times: dict[tuple[str, int], Histogram]
    """How long they took, by operation and status; status 0: their clients had gone."""


@define(eq=False)
class Sources:
    """Where the numbers come from.

    :param storage: the storage's name.
    :param build: what runs: ``version`` and the like.
    :param connections: one for each listener; listeners are added when there are any.
    :param admission: how many connections there may be, ``None`` where others decide that.
    :param syncs: the durations of the journal's syncs, ``None`` where there are none.
    :param lag: how late the reactor was.
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
    """Makes samples of the numbers (prometheus_client's interface)."""

    _sources: Sources

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: what is collected tells."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        yield from self._server()
        yield from self._requests()
        yield from self._commits()
        yield from self._streams()

    def _server(self) -> Iterator[Metric]:
        sources = self._sources
        yield InfoMetricFamily("dstreams_build", "What runs.", dict(sources.build) | {"storage": sources.storage})
        yield _gauge("dstreams_ready", "Whether the server wants traffic, as /readyz says.", sources.ready())
        yield _gauge("dstreams_storage_failed", "Whether the storage takes no more changes.", sources.failed())
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
            "From a request's complete head to its answer's.",
            labels=["operation"],
        )
        for operation, histogram in by_operation.items():
            durations.add_metric([operation], histogram.cumulative(), histogram.total)
        yield durations
        errors = CounterMetricFamily("dstreams_errors", "Problems that clients were told of.", labels=["code"])
        for code, count in sorted(self._sources.requests.errors.items()):
            errors.add_metric([code], count)
        yield errors

    def _commits(self) -> Iterator[Metric]:
        sources = self._sources
        commits = sources.commits
        yield _histogram(
            "dstreams_commit_duration_seconds",
            "From a group's hand-over to the storage to its promise.",
            commits.seconds,
        )
        yield _histogram("dstreams_commit_changes", "Changes in a commit's group.", commits.changes)
        yield _counter("dstreams_commit_failures", "Commits that failed.", commits.failures)
        if sources.syncs is not None:
            yield _histogram("dstreams_sync_duration_seconds", "Syncs of the journal.", sources.syncs)

    def _streams(self) -> Iterator[Metric]:
        numbers, listeners = self._sources.streams(), [each() for each in self._sources.connections]
        yield _gauge("dstreams_streams", "Streams, those kept for their forks included.", numbers.streams)
        yield _gauge("dstreams_stored_bytes", "What counts against the limit.", numbers.used_bytes)
        yield _gauge("dstreams_stored_bytes_limit", "The limit.", numbers.used_bytes_limit)
        yield _counter("dstreams_expired_streams", "Streams removed because their time was over.", numbers.expired)
        yield _gauge(
            "dstreams_commit_waiting_changes", "Changes accepted and not committed yet.", numbers.waiting_changes
        )
        yield _gauge("dstreams_commit_waiting_bytes", "The payload of these.", numbers.waiting_bytes)
        yield _counter("dstreams_damaged_places", "Damage found in what is stored.", numbers.damaged_places)
        yield _gauge("dstreams_damaged_streams", "Streams with damage that was found.", numbers.damaged_streams)
        yield _counter("dstreams_scrub_bytes", "Bytes that the scrub has read.", numbers.scrubbed_bytes)
        yield _gauge("dstreams_scrub_pass_bytes", "How many of them in its newest pass.", numbers.scrub_pass_bytes)
        yield _counter("dstreams_scrub_passes", "Passes over everything that is stored.", numbers.scrub_passes)
        streaming = sum(each.streaming for each in listeners)
        sse = numbers.readers.get("sse", 0)
        readers = GaugeMetricFamily("dstreams_readers", "Readers that wait or are being sent much.", labels=["kind"])
        # Readers over HTTP/2 are no connections of their own.
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
            yield _gauge("dstreams_http_connections_limit", "Connections that there may be.", admission.most)
            yield _counter("dstreams_http_connections_full", "Times that the limit was reached.", admission.full)
        yield _gauge("dstreams_http_stalled_clients", "Clients that take less than they are sent.", total("stalled"))
        yield _gauge("dstreams_http_unsent_bytes", "Written, and not taken by the system yet.", total("unsent_bytes"))
        yield _gauge("dstreams_http_body_bytes", "What has come of large request bodies.", total("body_bytes"))
        yield _counter("dstreams_http_refused_bodies", "Bodies there was no room for.", total("refused_bodies"))
        yield _counter("dstreams_http_cut_clients", "Clients cut because they took nothing.", total("cut_stalled"))
        yield _counter("dstreams_http_timed_out_requests", "Requests that came too slowly.", total("timed_out"))
        yield _counter("dstreams_http_refused_requests", "Requests that HTTP doesn't allow.", total("refused"))


@frozen(eq=False)
class Exposition:
    """What ``/metrics`` answers."""

    _registry: CollectorRegistry

    @classmethod
    def of(cls, sources: Sources) -> Exposition:
        """The server's metrics, and those of its process where the system tells them."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector(sources))
        ProcessCollector(registry=registry)
        return cls(registry)

    def render(self, accept: str) -> tuple[bytes, bytes]:
        """The metrics in the form that a scraper prefers.

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
