"""The way of a change: accepted, committed, applied, published.

All changes that are accepted while a commit is under way go out together in the next one, across streams:
group commit without a timer and without a delay of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dstreams.model.catalog import AcceptedCatalog, Catalog
from dstreams.model.changes import Change
from dstreams.protocol.problems import InsufficientStorage, ProtocolError, Unavailable
from dstreams.storage.interface import Storage, StorageFull

_log = Logger()


@define(eq=False)
class _Group:
    """The changes of one commit, and who waits for it."""

    changes: list[Change] = field(factory=list)
    waiting: list[Deferred[None]] = field(factory=list)


@define(eq=False)
class Commits:
    """Commits accepted changes in the order of their acceptance.

    :param published: called with every change after it has been applied.
    :param lost: called when accepted changes could not be committed and have been undone.
    """

    _storage: Storage
    _published: Callable[[Change], None]
    _lost: Callable[[], None]
    durable: Catalog = field(factory=Catalog, init=False)
    accepted: Catalog = field(init=False)
    _overlay: AcceptedCatalog | None = field(init=False)
    _committing: _Group | None = field(default=None, init=False)
    _next: _Group = field(factory=_Group, init=False)
    # Whether the last commit found no room.
    _full: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        # Storage that commits at once leaves nothing between accepted and durable.
        self._overlay = None if self._storage.immediate else AcceptedCatalog(self.durable)
        self.accepted = self._overlay or self.durable

    @property
    def in_flight(self) -> bool:
        """Whether accepted changes wait for their commit."""
        return self._committing is not None

    def submit(self, *changes: Change) -> Deferred[None] | None:
        """Accept changes and commit them, all or none.

        :return: ``None`` when they are committed, applied and published; else a Deferred that fires then. It
            fails with :class:`Unavailable` or :class:`InsufficientStorage` when the commit fails.
        :raise ProtocolError: the same, at once.
        """
        if self._overlay is None:
            self._commit_now(changes)
            return None
        for change in changes:
            self._overlay.apply(change)
        self._next.changes.extend(changes)
        return self._wait(self._next)

    def settled(self) -> Deferred[None] | None:
        """Wait for all that has been accepted so far.

        An answer that rests on changes in flight (a duplicate's, a refusal) must not be given before they
        are durable.

        :return: as :meth:`submit`.
        """
        if self._committing is None:
            return None
        return self._wait(self._next if self._next.changes else self._committing)

    def _wait(self, group: _Group) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        group.waiting.append(done)
        if self._committing is None:
            self._start()
        return done

    def _commit_now(self, changes: tuple[Change, ...]) -> None:
        try:
            self._storage.commit(changes)
        except Exception:  # whatever it is, what was accepted isn't there
            self._lost()
            raise self._as_problem(Failure()) from None
        self._full = False
        for change in changes:
            self.durable.apply(change)
            self._published(change)

    def _start(self) -> None:
        """Commit the next group, and the one after it, until none is left."""
        group = self._committing = self._next
        self._next = _Group()
        try:
            done = self._storage.commit(group.changes)
        except Exception:  # whatever it is, all later commits wait for this one's end
            self._failed(Failure())
            return
        if done is None:
            self._done(None)
        else:
            done.addCallbacks(self._done, self._failed)
            done.addErrback(lambda failure: _log.failure("publishing a commit failed", failure))

    def _done(self, _: None) -> None:
        group, overlay = self._committing, self._overlay
        assert group is not None
        assert overlay is not None
        self._full = False
        try:
            for change in group.changes:
                self.durable.apply(change)
                overlay.settle(change)
            for change in group.changes:
                self._published(change)
        finally:
            # Even a fault of ours must not leave everybody waiting for ever.
            self._committing = None
            if self._next.changes:
                self._start()
            for waiting in group.waiting:
                waiting.callback(None)

    def _failed(self, failure: Failure) -> None:
        """Undo everything accepted and not committed: later changes rest on the failed ones."""
        groups = (self._committing, self._next)
        self._committing, self._next = None, _Group()
        assert self._overlay is not None
        self._overlay.reset()
        self._lost()
        problem = self._as_problem(failure)
        for group in groups:
            for waiting in group.waiting if group is not None else ():
                waiting.errback(problem)

    def _as_problem(self, failure: Failure) -> ProtocolError:
        """What clients are told of a failed commit; the cause itself is for the log.

        A full store is said once, and again when it has been otherwise meanwhile: the log may lie on the same disk.
        """
        if not failure.check(StorageFull):
            _log.failure("a commit failed; nothing of it was acknowledged", failure)
            return Unavailable()
        if not self._full:
            self._full = True
            _log.error("the storage is full, changes are refused: {why}", why=failure.getErrorMessage())
        return InsufficientStorage()
