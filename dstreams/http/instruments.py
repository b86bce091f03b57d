"""Builds the observers of a server's work: metrics, access log, traces and lag, as configured."""

from __future__ import annotations

import platform
from collections.abc import Callable

from attrs import frozen
from twisted import __version__ as twisted_version
from twisted.logger import globalLogPublisher

from dstreams import __version__
from dstreams.config.schema import Config
from dstreams.http.access_log import NEVER, RequestEvents, RequestFields, RequestSpans, least_status
from dstreams.http.context import prefix_of
from dstreams.http.observing import Reporter, RequestObserver
from dstreams.runtime.timers import Scheduler
from dstreams.storage.interface import Storage
from dstreams.streams.streams import Streams
from dstreams.telemetry.histograms import Histogram
from dstreams.telemetry.lag import ReactorLag
from dstreams.telemetry.logs import LevelFilter
from dstreams.telemetry.metrics import Exposition, Sources
from dstreams.telemetry.traces import Traces, check_installed


@frozen(eq=False)
class Instruments:
    """The observers of one server. Those that are not wanted are ``None`` and cost nothing.

    :param observer: called by the transports for every request.
    :param sources: the sources of the metrics; listeners add their connections.
    :param exposition: the metrics as a page.
    :param lag: measures the reactor's lag while the server runs.
    :param traces: exports the spans of requests; started with the server.
    """

    observer: RequestObserver | None = None
    sources: Sources | None = None
    exposition: Exposition | None = None
    lag: ReactorLag | None = None
    traces: Traces | None = None


def build_instruments(
    config: Config,
    storage: Storage,
    streams: Streams,
    scheduler: Scheduler,
    ready: Callable[[], bool],
    syncs: Histogram | None = None,
) -> Instruments:
    """Build the configured observers, and connect the engine to those that measure it.

    :param syncs: the durations of the storage's syncs.
    :raise StartupError: if traces are configured but their packages are not installed.
    """
    prefix = prefix_of(config.http.stream_base_path.encode())
    traces = _traces(config)
    reporters = _reporters(config, RequestFields(prefix, storage.name), traces)
    if not config.observability.metrics:
        return Instruments(RequestObserver(reporters) if reporters else None, traces=traces)
    observer = RequestObserver(reporters)
    sources = Sources(
        storage=storage.name,
        build={
            "version": __version__,
            "python": platform.python_version(),
            "twisted": twisted_version,
            "reactor": type(scheduler).__name__,
        },
        streams=streams.statistics,
        requests=observer,
        ready=ready,
        failed=lambda: streams.failure is not None,
        syncs=syncs,
    )
    streams.time_commits(sources.commits)
    return Instruments(observer, sources, Exposition.of(sources), ReactorLag(scheduler, sources.lag), traces)


def _traces(config: Config) -> Traces | None:
    if not config.observability.traces:
        return None
    check_installed()
    return Traces(__version__)


def _reporters(config: Config, fields: RequestFields, traces: Traces | None) -> tuple[Reporter, ...]:
    """Return the observers that receive all details of a request."""
    reporters: list[Reporter] = []
    logged = least_status(LevelFilter(config.observability.log_filter))
    if logged < NEVER:
        reporters.append(RequestEvents(fields, logged, globalLogPublisher))
    if traces is not None:
        reporters.append(RequestSpans(fields, traces))
    return tuple(reporters)
