"""The process's limit on file descriptors, and the number of connections that it allows."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from contextlib import suppress

from twisted.application.service import Service
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import Logger

from dstreams.config import Config
from dstreams.services.admission import Admission
from dstreams.storage.acid.readers import MAX_IDLE
from dstreams.storage.disk import open_files_for

_log = Logger()

ADMIN_CONNECTIONS = 32
"""Maximum connections to the admin listener: a few scrapers, probes and people, and some connections left open."""

OWN_DESCRIPTORS = 64
"""Descriptors that the process needs besides connections and the storage's files: 15 at rest (the event loop, the log,
the listeners, the journal, the catalog), one for each of up to ten threads, and a reserve."""

_HIGHEST = 1 << 20
"""The highest limit to request: Linux's ``fs.nr_open``. Some containers allow a thousand times as many."""

_MACOS_HIGHEST = 10_240
"""What macOS allows although it reports that there is no limit (``OPEN_MAX``)."""

WATCHED_BY_SELECT = 1024
"""``select`` can watch only descriptors below this (``FD_SETSIZE``); Twisted closes connections with higher ones."""


def watchable(reactor: object) -> int:
    """Return how many descriptors a reactor can watch. Twisted's default on macOS uses ``select``."""
    return WATCHED_BY_SELECT if isinstance(reactor, SelectReactor) else sys.maxsize


def raise_limit() -> int:
    """Raise the soft limit on file descriptors as far as possible.

    The soft limit is usually 1,024, for the sake of programs that use ``select``, which fails beyond that. Programs
    that do not use it are expected to raise the limit themselves, as systemd's documentation says; Go's runtime,
    HAProxy and Java do.

    :return: the number of descriptors that the process may have now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_HIGHEST, _MACOS_HIGHEST):
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)  # noqa: PLW2901
        if soft != resource.RLIM_INFINITY and wanted > soft:
            # A sandbox may forbid it, and macOS has limits that it does not report.
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return wanted
    return _HIGHEST if soft == resource.RLIM_INFINITY else soft


def connections_for(config: Config, descriptors: int) -> int:
    """Return the maximum number of concurrent client connections for a limit on file descriptors.

    Descriptors are reserved for the storage's files, the admin listener and the process's other needs, but clients
    get at least a quarter.
    """
    storage = config.storage
    needed = OWN_DESCRIPTORS
    if config.admin.endpoint is not None:
        needed += ADMIN_CONNECTIONS
    if storage.mode == "acid" and storage.acid_backend == "file":
        # A database has a write-ahead log and an index file as well; each idle reader has the first two again.
        needed += 3 * storage.acid_shard_count + 2 * MAX_IDLE
    elif storage.mode in ("file-fast", "file-durable"):
        needed += open_files_for(descriptors)
    return max(descriptors - needed, descriptors // 4, 1)


class DescriptorService(Service):
    """Determines the maximum number of client connections at startup and logs it.

    :param admission: its limit is set.
    :param raise_limit: raises the limit on file descriptors and returns it.
    :param watchable: the number of descriptors that the reactor can watch.
    """

    name: str | None = "descriptors"

    def __init__(
        self,
        config: Config,
        admission: Admission,
        raise_limit: Callable[[], int] = raise_limit,
        watchable: int = sys.maxsize,
    ) -> None:
        self._config = config
        self._admission = admission
        self._raise_limit = raise_limit
        self._watchable = watchable

    def startService(self) -> None:
        """Set the limit. This runs before the storage opens, which uses the same limit on descriptors."""
        super().startService()
        allowed = self._raise_limit()
        descriptors = min(allowed, self._watchable)
        wanted, possible = self._config.server.max_connections, connections_for(self._config, descriptors)
        most = self._admission.most = min(wanted or possible, possible)
        _log.info(
            "up to {most} connections at a time: the {who} {descriptors} file descriptors",
            most=most,
            who="process may have" if descriptors == allowed else "reactor on select can watch",
            descriptors=descriptors,
        )
        if wanted > possible:
            self._warn(wanted, wanted + descriptors - possible)

    def _warn(self, wanted: int, needed: int) -> None:
        """Log that the configured limit cannot be reached."""
        remedy = f"raise the hard limit on file descriptors to {needed} (LimitNOFILE, ulimit -Hn)"
        if needed > self._watchable:
            remedy = "choose a reactor that does not use select (twistd --reactor=)"
        _log.warn(
            "server.max_connections = {wanted} cannot be reached; {remedy}, or lower the key",
            wanted=wanted,
            remedy=remedy,
        )
