"""Builds the service tree of a server."""

from __future__ import annotations

import os
from collections.abc import Sequence

from twisted.application.service import Service

from dstreams.config import Config
from dstreams.runtime.shutdown import ShutdownDeadline
from dstreams.runtime.threads import in_threads
from dstreams.server import assemble, build_storage
from dstreams.services.admin import AdminService
from dstreams.services.admission import admit
from dstreams.services.configuration import ConfigService
from dstreams.services.descriptors import ADMIN_CONNECTIONS, DescriptorService, watchable
from dstreams.services.ending import end_process
from dstreams.services.garbage import GarbageService
from dstreams.services.listeners import Listener, resolve_admin_listener, resolve_listeners
from dstreams.services.notify import Notifier, NotifyService
from dstreams.services.parts import AdminParts, Reactor, Readiness, SiteParts
from dstreams.services.reload import ReloadService
from dstreams.services.signals import SignalService
from dstreams.services.site import SiteService
from dstreams.services.storage import StorageService
from dstreams.services.telemetry import TelemetryService
from dstreams.services.tree import ServerService
from dstreams.telemetry.histograms import Histogram


def build_server(
    config: Config, reactor: Reactor, *, foreground: bool = True, warnings: Sequence[str] = ()
) -> ServerService:
    """Build the whole server as one service. Nothing is opened yet, except that the TLS files are read.

    :param foreground: false for a daemon, where another process waits until this one has started.
    :param warnings: warnings about the configuration, to be logged at startup.
    :raise StartupError: in the phases ``resolve_transport``, ``check_tls_files`` and ``build_tls_context``.
    """
    listeners, admin_listener = resolve_listeners(config, reactor), resolve_admin_listener(config, reactor)
    readiness, shutdown = Readiness(), ShutdownDeadline(reactor)
    notifier = Notifier.take(os.environ)
    parts = build_site_parts(config, reactor, readiness)
    waits = config.server.drain_delay_secs + config.server.shutdown_grace_secs
    children: list[Service] = [
        TelemetryService(parts.lag, parts.traces, in_threads(reactor)),
        SignalService(reactor, shutdown, lambda: readiness.ready),
        ConfigService(reactor, warnings),
        *(
            []
            if parts.admission is None
            else [DescriptorService(config, parts.admission, watchable=watchable(reactor))]
        ),
        # Started early, and so stopped late: SIGHUP is handled until everything else has stopped.
        ReloadService([listener.reload for listener in listeners if listener.tls is not None], reactor, notifier),
        StorageService(config, parts.engine, notifier),
        GarbageService(reactor),
        *_admin_services(admin_listener, parts.admin, shutdown),
        SiteService(config, parts, listeners, readiness, shutdown, reactor),
        NotifyService(notifier, reactor, lambda: parts.engine.failure, waits),
    ]
    return ServerService(children, end_process(reactor, notifier), raises=not foreground)


def _admin_services(listener: Listener | None, admin: AdminParts | None, shutdown: ShutdownDeadline) -> list[Service]:
    """Return the admin service, if an admin listener is configured."""
    if listener is None or admin is None:
        return []
    return [AdminService(listener, admin, shutdown)]


def build_site_parts(config: Config, reactor: Reactor, readiness: Readiness) -> SiteParts:
    """Build the engine, the application and the protocol factories."""
    syncs = Histogram() if config.observability.metrics and config.storage.mode == "file-durable" else None
    server = assemble(build_storage(config, reactor, syncs), config, reactor, readiness, syncs=syncs)
    site, instruments = server.site, server.instruments
    admission = admit(site.connections, reactor, "server.max_connections")
    if instruments.sources is not None:
        instruments.sources.admission = admission
    admin = None
    if server.admin is not None and server.admin_hosts is not None:
        admin_admission = admit(server.admin.connections, reactor, "on the admin listener", ADMIN_CONNECTIONS)
        admin = AdminParts(server.admin.http1, server.admin, admin_admission, server.admin_hosts.bound)
    return SiteParts(
        server.streams,
        site.http1,
        site,
        site.over_tls,
        instruments.lag,
        instruments.traces,
        admin,
        admission,
    )
