"""The composition root: builds the parts of a server and connects them.

The services of ``twistd``, the embedding in other programs and the benchmarks all use it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import frozen

from dstreams.config.schema import Config
from dstreams.http.application import StreamApplication
from dstreams.http.context import Context, HttpSettings
from dstreams.http.forwarding.application import ForwardingApplication
from dstreams.http.instruments import Instruments, build_instruments
from dstreams.http.messages import Application
from dstreams.http.pages.application import AllowedHosts, PagesApplication
from dstreams.http.pages.listing import listing_pages
from dstreams.http.pages.status import health_pages, metrics_pages
from dstreams.http.site import HttpSite
from dstreams.http.transport.limits import HttpLimits
from dstreams.protocol.names import NameLimits
from dstreams.runtime.threads import Run, in_threads
from dstreams.runtime.timers import Clocks, Scheduler, TimerWheel
from dstreams.storage.acid import AcidStorage
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import Storage
from dstreams.storage.memory import MemoryStorage
from dstreams.storage.sync import Syncer, TimedSyncer, choose_syncer
from dstreams.streams.limits import StoreLimits
from dstreams.streams.streams import Streams
from dstreams.telemetry.histograms import Histogram


@frozen(eq=False)
class Server:
    """The parts of one server.

    :param streams: the engine, to be opened before the first request and closed after the last.
    :param application: answers the transports' requests.
    :param wheel: the timers that all parts share.
    :param instruments: the observers of the server's work.
    :param site: the connections of clients, and the factories that make them.
    :param admin: the same for the admin listener, if there is one.
    :param admin_hosts: the host names under which the admin listener answers.
    """

    streams: Streams
    application: Application
    wheel: TimerWheel
    instruments: Instruments
    site: HttpSite
    admin: HttpSite | None = None
    admin_hosts: AllowedHosts | None = None


def build_storage(config: Config, reactor: Any, syncs: Histogram | None = None) -> Storage:
    """Create the storage backend of ``storage.mode``, not opened yet.

    :param reactor: watches descriptors and runs threads for the modes that use files.
    :param syncs: records the durations of syncs, if wanted.
    """
    chosen = config.storage
    if chosen.mode == "memory":
        return MemoryStorage()
    run = in_threads(reactor)
    if chosen.mode == "acid":
        in_memory = chosen.acid_backend == "in-memory"
        return AcidStorage(chosen.data_dir, chosen.acid_shard_count, run, in_memory=in_memory)
    make_syncer = partial(_make_syncer, reactor, run, syncs) if chosen.mode == "file-durable" else None
    return FileStorage(chosen.data_dir, make_syncer, run, chosen.checkpoint_bytes, call_later=reactor.callLater)


def _make_syncer(reactor: Any, run: Run, syncs: Histogram | None) -> Syncer:
    chosen = choose_syncer(reactor, run)
    return chosen if syncs is None else TimedSyncer(chosen, syncs)


def store_limits(config: Config) -> StoreLimits:
    """Return the limits on what is stored. One key limits memory, another limits disks and may be 0 for no limit."""
    limits, chosen = config.limits, config.storage
    in_memory = chosen.mode == "memory" or (chosen.mode == "acid" and chosen.acid_backend == "in-memory")
    total = limits.max_memory_bytes if in_memory else limits.max_disk_bytes or sys.maxsize
    return StoreLimits(total, limits.max_stream_bytes, limits.max_fork_depth, limits.max_streams, limits.max_producers)


def http_limits(config: Config) -> HttpLimits:
    """Return the part of the configuration that HTTP transports need."""
    return HttpLimits(max_buffered_bytes=config.limits.max_buffered_bytes)


def http_settings(config: Config) -> HttpSettings:
    """Return the part of the configuration that HTTP operations need."""
    connection = config.transport.connection
    return HttpSettings(
        base_path=config.http.stream_base_path.encode(),
        name_limits=NameLimits(config.limits.max_stream_name_bytes, config.limits.max_stream_name_segments),
        cache=config.http.cache,
        cors_origins=config.http.origins,
        cors_credentials=config.http.cors_credentials,
        cors_allow_headers=config.http.cors_allow_headers,
        long_poll_timeout=float(connection.long_poll_timeout_secs),
        sse_lifetime=float(connection.sse_reconnect_interval_secs),
        max_body_bytes=min(config.limits.max_stream_bytes, config.limits.max_buffered_bytes),
    )


def assemble(
    storage: Storage,
    config: Config,
    scheduler: Scheduler,
    ready: Callable[[], bool],
    clocks: Clocks | None = None,
    syncs: Histogram | None = None,
    *,
    wheel: TimerWheel | None = None,
) -> Server:
    """Build a server over ``storage``. Nothing is opened and nothing runs yet.

    :param scheduler: the reactor, or a Clock in tests.
    :param ready: whether the server is ready for traffic, for ``/readyz``, which is also 503 if the storage has failed.
    :param syncs: the durations of the storage's syncs, for ``/metrics``.
    :param wheel: the timers; by default new ones that use the scheduler.
    """
    clocks = clocks or Clocks()
    wheel = wheel or TimerWheel(scheduler)
    streams = Streams(storage, wheel, store_limits(config), clocks, config.storage.scrub_bytes_per_second)
    context = Context(streams, http_settings(config), wheel, clocks)

    def is_ready() -> bool:
        return ready() and streams.failure is None

    instruments = build_instruments(config, storage, streams, scheduler, is_ready, syncs)

    def status() -> dict[str, object]:
        counted = streams.statistics()
        return {
            "storage": storage.name,
            "streams": counted.streams,
            "used_bytes": counted.used_bytes,
            "live_readers": counted.live_readers,
        }

    health = health_pages(is_ready, status)
    metrics = {} if instruments.exposition is None else metrics_pages(instruments.exposition)
    admin = admin_hosts = None
    if config.admin.endpoint is not None:
        pages = health | metrics | listing_pages(config.admin.base_path, streams)
        metrics = {}
        admin_hosts = AllowedHosts(config.admin.allowed_hosts)
        admin = HttpSite(PagesApplication(pages, admin_hosts), wheel, observer=instruments.observer)
    application: Application = StreamApplication(context, health | metrics)
    if config.proxy.enabled:
        mutual_tls = config.transport.mode == "mtls"
        application = ForwardingApplication(application, config.proxy, mutual_tls, wheel.seconds)
    site = HttpSite(application, wheel, http_limits(config), instruments.observer)
    if instruments.sources is not None:
        instruments.sources.connections.append(site.statistics)
    return Server(streams, application, wheel, instruments, site, admin, admin_hosts)
