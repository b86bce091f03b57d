"""The way of a change: accepted, committed, applied, published.

All changes that are accepted while a commit is under way go out together in the next one, across streams:
group commit without a timer and without a delay of its own.
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
from dstreams.telemetry.commits import CommitTimes

_log = Logger()


@define(eq=False)
class Commit:
    """The changes that are committed together, and who waits for that (an ``Awaited``).

    :param cost: what they add to the streams' usage, in bytes.
    """

    changes: list[Change] = field(factory=list)
    cost: int = 0
    waiting: list[PendingCommit[object]] = field(factory=list)
    over: bool = False
    error: Exception | None = None
    started_at: float = 0.0
    """When its commit began; only where commits are timed."""


@define(eq=False)
class Commits:
    """Commits accepted changes in the order of their acceptance.

    :param published: called with the changes of a commit after they have been applied.
    :param lost: called with the cost of accepted changes that could not be committed and have been undone.
    """

    _storage: Storage
    _published: Callable[[Sequence[Change]], None]
    _lost: Callable[[int], None]
    durable: Catalog = field(factory=Catalog, init=False)
    accepted: AnyCatalog = field(init=False)
    """What writers are validated against; ``durable`` itself while nothing is under way in immediate storage."""
    _immediate: bool = field(init=False)
    _overlay: AcceptedCatalog = field(init=False)
    under_way: Commit | None = field(default=None, init=False)
    """What is being committed, ``None`` when all that was accepted is durable."""
    _next: Commit = field(factory=Commit, init=False)
    # Whether the last commit found no room.
    _full: bool = field(default=False, init=False)
    # Why the store takes no more changes, once that has been said.
    _final: str | None = field(default=None, init=False)
    times: CommitTimes | None = field(default=None, init=False)
    """Counts and times the commits of groups; ``None`` when nobody wants to know."""

    def __attrs_post_init__(self) -> None:
        self._immediate = self._storage.immediate
        self._overlay = AcceptedCatalog(self.durable)
        # Storage that commits at once leaves nothing between accepted and durable, while nothing is under way.
        self.accepted = self.durable if self._immediate else self._overlay

    def waiting(self) -> tuple[int, int]:
        """How many changes have been accepted and aren't durable yet, and how many bytes are in them."""
        commits = [self._next] if self.under_way is None else [self.under_way, self._next]
        changes = [change for commit in commits for change in commit.changes]
        size = sum(len(change.data) for change in changes if isinstance(change, Append | Create))
        return len(changes), size

    def submit(self, cost: int, *changes: Change) -> Commit | None:
        """Accept changes and commit them, all or none.

        :param cost: what they add to the streams' usage.
        :return: ``None`` when they are committed, applied and published; else what they are committed with. If that
            fails, those who wait get :class:`Unavailable` or :class:`InsufficientStorage`.
        :raise ProtocolError: the same, at once.
        """
        if self._immediate and self.under_way is None:
            try:
                done = self._storage.commit(changes)
            except Exception:  # whatever it is, what was accepted isn't there
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
        """What has been accepted so far is settled when this commit is; ``None``: it is already.

        An answer that rests on changes in flight (a duplicate's, a refusal) must not be given before they
        are durable.
        """
        return self._next if self._next.changes else self.under_way

    def _start(self, begun: Deferred[None] | None = None) -> None:
        """Commit the next group, and the one after it, until none is left.

        :param begun: the group's commit, where storage has begun it already.
        """
        commit = self.under_way = self._next
        self._next = Commit()
        if self.times is not None:
            commit.started_at = time.perf_counter()
        try:
            done = begun or self._storage.commit(commit.changes)
        except Exception:  # whatever it is, all later commits wait for this one's end
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
            # Even a fault of ours must not leave everybody waiting for ever.
            self.under_way, commit.over = None, True
            if self._next.changes:
                self._start()
            elif self._immediate:
                self.accepted = self.durable
            # Let go, since they refer to the commit: else each commit would be garbage in a cycle.
            waiting, commit.waiting = commit.waiting, []
            for result in waiting:
                try:
                    result.committed()
                except Exception:
                    _log.failure("answering after a commit failed")

    def _failed(self, failure: Failure) -> None:
        """Undo everything accepted and not committed: later changes rest on the failed ones."""
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
        """What clients are told of a failed commit; the cause itself is for the log.

        A full store is said once, and again when it has been otherwise meanwhile: the log may lie on the same disk.
        Nor is it said for each refused change that the store takes no more.
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
