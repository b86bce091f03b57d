"""Commits changes. Each one is accepted, committed, applied, and published.

All changes that are accepted while a commit is in progress are committed together in the next one, across streams.
So this is group commit without a timer and without an added delay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.model.catalog import AcceptedCatalog, AnyCatalog, Catalog
from dstreams.model.changes import Append, Change, Create
from dstreams.protocol.problems import InsufficientStorage, ProtocolError, Unavailable
from dstreams.runtime.pending import PendingCommit
from dstreams.storage.interface import Storage, StorageFull
from dstreams.telemetry.histograms import CommitTimes

_log = Logger()


@define(eq=False)
class Commit:
    """A group: the changes that are committed together, and the results that wait for the commit (an ``Awaited``).

    :param cost: the bytes that they add to the streams' usage.
    """

    changes: list[Change] = field(factory=list)
    cost: int = 0
    waiting: list[PendingCommit[object]] = field(factory=list)
    over: bool = False
    error: Exception | None = None
    started_at: float = 0.0
    """The time at which the commit began; set only if commits are timed."""


@define(eq=False)
class Commits:
    """Commits changes in the order in which they were accepted.

    :param published: called with the changes of a commit after they have been applied.
    :param lost: called with the cost of accepted changes that could not be committed and have been undone.
    """

    _storage: Storage
    _published: Callable[[Sequence[Change]], None]
    _lost: Callable[[int], None]
    durable: Catalog = field(factory=Catalog, init=False)
    accepted: AnyCatalog = field(init=False)
    """The catalog for validating writers; ``durable`` itself while immediate storage has nothing pending."""
    _immediate: bool = field(init=False)
    _overlay: AcceptedCatalog = field(init=False)
    under_way: Commit | None = field(default=None, init=False)
    """The commit in progress; ``None`` if all accepted changes are durable."""
    _next: Commit = field(factory=Commit, init=False)
    # Whether the last commit failed because the storage was full.
    _full: bool = field(default=False, init=False)
    # Why the storage takes no more changes, once that has been logged.
    _final: str | None = field(default=None, init=False)
    times: CommitTimes | None = field(default=None, init=False)
    """Counts and times the commits of groups; ``None`` to measure nothing."""

    def __attrs_post_init__(self) -> None:
        self._immediate = self._storage.immediate
        self._overlay = AcceptedCatalog(self.durable)
        # With storage that commits immediately the two catalogs are the same while no commit is in progress.
        self.accepted = self.durable if self._immediate else self._overlay

    def waiting(self) -> tuple[int, int]:
        """Return the number of changes that are accepted but not durable yet, and the number of bytes in them."""
        commits = [self._next] if self.under_way is None else [self.under_way, self._next]
        changes = [change for commit in commits for change in commit.changes]
        size = sum(len(change.data) for change in changes if isinstance(change, Append | Create))
        return len(changes), size

    def submit(self, cost: int, *changes: Change) -> Commit | None:
        """Accept changes and commit them, all or none.

        :param cost: the bytes that they add to the streams' usage.
        :return: ``None`` if they are committed, applied and published already; otherwise the commit that they are part
            of. If it fails, the waiting results get :class:`Unavailable` or :class:`InsufficientStorage`.
        :raise ProtocolError: one of these two, if the commit fails immediately.
        """
        if self._immediate and self.under_way is None:
            try:
                done = self._storage.commit(changes)
            except Exception:  # whatever the error is, the changes are not stored
                self._lost(cost)
                problem = self._as_problem(Failure())
                raise problem from problem.__cause__
            if done is None:
                self._full = False
                for change in changes:
                    self.durable.apply(change)
                self._published(changes)
                return None
            self.accepted = self._overlay
        else:
            done = None
        commit = self._next
        for change in changes:
            self._overlay.apply(change)
        commit.changes.extend(changes)
        commit.cost += cost
        if self.under_way is None:
            self._start(done)
        return commit

    def settled(self) -> Commit | None:
        """Return the commit after which everything accepted so far is durable, or ``None`` if it is already.

        A response that depends on pending changes (an acknowledged duplicate, a rejection) must not be sent before
        they are durable.
        """
        return self._next if self._next.changes else self.under_way

    def _start(self, begun: Deferred[None] | None = None) -> None:
        """Commit the next group, then the one after it, until none is left.

        :param begun: the Deferred of the group's commit, if the storage has started it already.
        """
        commit = self.under_way = self._next
        self._next = Commit()
        if self.times is not None:
            commit.started_at = time.perf_counter()
        try:
            done = begun or self._storage.commit(commit.changes)
        except Exception:  # whatever the error is, it must end this commit, because all later ones wait for that
            done = fail()
        if done is None:
            done = succeed(None)
        done.addCallbacks(self._done, self._failed)
        done.addErrback(lambda failure: _log.failure("publishing a commit failed", failure))

    def _done(self, _: None) -> None:
        commit, overlay = self.under_way, self._overlay
        assert commit is not None
        if self.times is not None:
            self.times.committed(len(commit.changes), time.perf_counter() - commit.started_at)
        self._full = False
        try:
            for change in commit.changes:
                self.durable.apply(change)
                overlay.settle(change)
            self._published(commit.changes)
        finally:
            # Even if applying or publishing raises, waiting requests must be answered.
            self.under_way, commit.over = None, True
            if self._next.changes:
                self._start()
            elif self._immediate:
                self.accepted = self.durable
            # Cleared because the results refer to the commit: otherwise each commit would be cyclic garbage.
            waiting, commit.waiting = commit.waiting, []
            for result in waiting:
                try:
                    result.committed()
                except Exception:
                    _log.failure("answering after a commit failed")

    def _failed(self, failure: Failure) -> None:
        """Undo all pending changes, because later ones depend on the failed ones."""
        first, second = self.under_way, self._next
        assert first is not None
        self.under_way, self._next = None, Commit()
        self._overlay.reset()
        if self._immediate:
            self.accepted = self.durable
        self._lost(first.cost + second.cost)
        problem = first.error = second.error = self._as_problem(failure)
        first.over = second.over = True
        waiting, first.waiting, second.waiting = first.waiting + second.waiting, [], []
        for result in waiting:
            try:
                result.failed(problem)
            except Exception:
                _log.failure("answering after a failed commit failed")

    def _as_problem(self, failure: Failure) -> ProtocolError:
        """Log a failed commit and return the error for clients; the cause itself is only logged.

        Full storage is logged once, and again only after a commit has succeeded in between, because the log may be on
        the same disk. That the storage takes no more changes is also logged once, not for each rejected change.
        """
        if self.times is not None:
            self.times.failures += 1
        problem: ProtocolError
        if not failure.check(StorageFull):
            final = self._storage.failure
            if final is None or final != self._final:
                self._final = final
                _log.failure("a commit failed; nothing of it was acknowledged", failure)
            problem = Unavailable()
        else:
            if not self._full:
                self._full = True
                _log.error("the storage is full, changes are refused: {why}", why=failure.getErrorMessage())
            problem = InsufficientStorage()
        problem.__cause__ = failure.value
        return problem
