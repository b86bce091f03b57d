"""How many descriptors the process may have, and how many connections that allows."""

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
"""How many connections the admin listener takes: a few scrapers, probes and people, and some that were forgotten."""

OWN_DESCRIPTORS = 64
"""What the process has besides connections and the storage's files: 15 at rest (the event loop, the log, the
listeners, the journal, the catalog), one for each of up to ten threads, and some to spare."""

_HIGHEST = 1 << 20
"""The highest limit that is asked for, Linux' own ``fs.nr_open``. Some containers allow a thousand times as many."""

_MACOS_HIGHEST = 10_240
"""What macOS allows where it says that there is no limit (``OPEN_MAX``)."""

WATCHED_BY_SELECT = 1024
"""``select`` watches descriptors below this only (``FD_SETSIZE``); Twisted cuts connections that have higher ones."""


def watchable(reactor: object) -> int:
    """How many descriptors a reactor can watch. Twisted's choice for macOS is the one on ``select``."""
    return WATCHED_BY_SELECT if isinstance(reactor, SelectReactor) else sys.maxsize


def raise_limit() -> int:
    """Raise the soft limit on descriptors as far as the process may.

    The soft limit is mostly 1,024 still, for the sake of programs that use ``select``, which fails beyond that.
    Programs that don't use it are expected to raise it by themselves, as systemd's documentation says; Go's runtime,
    HAProxy and Java do.

    :return: how many descriptors the process may have now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_HIGHEST, _MACOS_HIGHEST):
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)  # noqa: PLW2901
        if soft != resource.RLIM_INFINITY and wanted > soft:
            # A sandbox may forbid it, and macOS has limits that it doesn't tell.
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return wanted
    return _HIGHEST if soft == resource.RLIM_INFINITY else soft


def connections_for(config: Config, descriptors: int) -> int:
    """How many clients may be connected at a time when the process may have so many descriptors.

    Room is kept for the storage's files, the admin listener, and what the process has besides; but at least a quarter
    of the descriptors are the clients'.
    """
    storage = config.storage
    needed = OWN_DESCRIPTORS
    if config.admin.endpoint is not None:
        needed += ADMIN_CONNECTIONS
    if storage.mode == "acid" and storage.acid_backend == "file":
        # A database has a log and an index beside it; one that is read has the first two once more.
        needed += 3 * storage.acid_shard_count + 2 * MAX_IDLE
    elif storage.mode in ("file-fast", "file-durable"):
        needed += open_files_for(descriptors)
    return max(descriptors - needed, descriptors // 4, 1)


class DescriptorService(Service):
    """Settles at the start how many clients may be connected at a time, and says so.

    :param admission: told how many.
    :param raise_limit: gives the number of descriptors that the process may have.
    :param watchable: how many the reactor can watch.
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
        """Before the storage opens, which asks for the same limit."""
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
        """What is configured can't be had."""
        remedy = f"raise the hard limit on file descriptors to {needed} (LimitNOFILE, ulimit -Hn)"
        if needed > self._watchable:
            remedy = "choose a reactor that isn't on select (twistd --reactor=)"
        _log.warn(
            "server.max_connections = {wanted} can't be reached; {remedy}, or lower the key",
            wanted=wanted,
            remedy=remedy,
        )
