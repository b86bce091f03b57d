"""Syncs a file without blocking the reactor.

On Linux the kernel can run an fdatasync and report on an eventfd that the reactor watches. A thread works everywhere,
but the interpreter's lock is handed over in both directions: 43,000 appends a second over 32 connections, against
53,000 with Linux AIO. The method is chosen at start and logged.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from zope.interface import implementer

from dstreams.runtime.threads import Run
from dstreams.storage.disk import File
from dstreams.storage.kernel_queues import KernelQueue, open_kernel_queue
from dstreams.telemetry.histograms import Histogram


class Syncer(Protocol):
    """Makes the data written to a file durable."""

    name: str

    def sync(self, file: File) -> Deferred[None]:
        """Begin to sync a file. The Deferred may fail with OSError, which is final for the file."""

    def close(self) -> None:
        """Release everything. No sync may be in progress."""


@define(eq=False)
class ThreadSyncer:
    """Syncs in a thread (a ``Syncer``)."""

    _run: Run
    name: str = field(default="thread", init=False)

    def sync(self, file: File) -> Deferred[None]:
        """Sync in a thread."""
        return self._run(file.sync)

    def close(self) -> None:
        """Do nothing, because the threads belong to the caller."""


def choose_syncer(reactor: IReactorFDSet, run: Run) -> Syncer:
    """Return a syncer that uses the kernel, or one that uses threads if the kernel cannot sync asynchronously.

    :param run: runs a sync in a thread.
    """
    try:
        return KernelSyncer(reactor)
    except OSError:
        return ThreadSyncer(run)


_NOT_TRIED = frozenset((errno.EAGAIN, errno.ECANCELED))
"""Errors of the kernel if it had no thread or no memory to begin. A sync that was attempted never fails with these."""


@implementer(IReadDescriptor)
class KernelSyncer:
    """Lets the kernel sync (a ``Syncer``).

    Open it in the process that uses it, because the kernel's queue does not survive a fork.

    :param reactor: watches the eventfd.
    :param open_queue: opens the kernel's queue for an eventfd.
    :raise OSError: if the kernel or a sandbox refuses.
    """

    def __init__(self, reactor: IReactorFDSet, open_queue: Callable[[int], KernelQueue] = open_kernel_queue) -> None:
        if not hasattr(os, "eventfd"):
            raise OSError(errno.ENOSYS, "no eventfd on this system")
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._queue = open_queue(self._eventfd)
        except OSError:
            os.close(self._eventfd)
            raise
        self.name = self._queue.name
        self._file: File | None = None
        self._done: Deferred[None] = Deferred()
        self._reactor = reactor
        reactor.addReader(cast("Any", self))

    def sync(self, file: File) -> Deferred[None]:
        """Submit an fdatasync. No other may be in progress."""
        assert self._file is None
        done: Deferred[None] = Deferred()
        self._file, self._done = file, done
        try:
            self._queue.submit(file.fileno())
        except OSError as error:
            self._ended(error.errno or errno.EIO)
        return done

    def fileno(self) -> int:
        """Return the eventfd, for the reactor."""
        return self._eventfd

    def doRead(self) -> None:  # noqa: N802 (Twisted's name)
        """Process the result, because the kernel has written to the eventfd."""
        try:
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return
        result = self._queue.result()
        if result is not None:
            self._ended(-result)

    def _ended(self, code: int) -> None:
        """Fire the Deferred of the sync.

        :param code: the error number; 0 or less if the sync succeeded.
        """
        file, self._file = self._file, None
        assert file is not None
        done = self._done
        if code in _NOT_TRIED:
            try:
                file.sync()  # this blocks the reactor, but nothing is lost
            except OSError as error:
                done.errback(error)
                return
        elif code > 0:
            done.errback(OSError(code, os.strerror(code)))
            return
        done.callback(None)

    def connectionLost(self, reason: object) -> None:
        """Do nothing when the reactor stops."""

    def logPrefix(self) -> str:  # noqa: N802 (Twisted's name)
        """Return the prefix for the reactor's log."""
        return "journal sync"

    def close(self) -> None:
        self._reactor.removeReader(cast("Any", self))
        self._queue.close()
        os.close(self._eventfd)


@define(eq=False)
class TimedSyncer:
    """Records how long syncs take, including failed ones (a ``Syncer``).

    This costs 2 us for each sync, which itself takes at least 50 us.

    :param syncer: runs the syncs.
    :param seconds: records the durations.
    """

    _syncer: Syncer
    _seconds: Histogram
    name: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self._syncer.name

    def sync(self, file: File) -> Deferred[None]:
        """Begin to sync a file."""
        return self._syncer.sync(file).addBoth(self._note, perf_counter())

    def close(self) -> None:
        """Close the syncer."""
        self._syncer.close()

    def _note(self, result: None, started: float) -> None:
        self._seconds.observe(perf_counter() - started)
        return result
