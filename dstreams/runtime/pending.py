"""Values that are usually available immediately, and ways to continue when they are not.

Most responses of this server need no waiting, and a Deferred costs more than computing the response. So a function
that may have to wait returns one of three things, and :func:`then` and :func:`map_result` continue from them:

- the value itself;
- a :class:`PendingCommit` value: the result is known, but counts only once a commit is durable. Every write to durable
  storage returns one. All results of a commit are delivered in one loop, which costs 3 us less for each than a
  Deferred with its callbacks, out of 21 (``bench/application.py``);
- a Deferred of the value, if bytes have to be fetched first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")
U = TypeVar("U")


class Awaited(Protocol):
    """A commit in progress, on which results depend."""

    waiting: list[PendingCommit[object]]
    """The results to deliver when the commit ends, in this order."""
    over: bool
    """Whether the commit has ended."""
    error: Exception | None
    """Why the commit failed, or ``None``."""


@define(eq=False)
class PendingCommit(Generic[T]):
    """A result that is known but counts only once a commit is durable.

    :param value: the result; ``None`` if the result is an error.
    :param commit: the commit that it depends on.
    :param error: the error, if the result is one. It too is delivered only after the commit is durable.
    :param error_response: converts the error of a failed commit to a result.
    """

    value: T
    commit: Awaited
    error: Exception | None = None
    error_response: Callable[[Exception], T] | None = None
    on_done: Callable[[T], object] | None = None
    on_error: Callable[[Exception], object] | None = None

    def when(self, on_done: Callable[[T], object], on_error: Callable[[Exception], object] | None = None) -> None:
        """Set the callbacks for the result. There can be only one pair of them.

        :param on_done: called with the result, or with what ``error_response`` makes of an error.
        :param on_error: called with the error if there is no ``error_response``; without it such an error is discarded.
        """
        self.on_done, self.on_error = on_done, on_error
        commit = self.commit
        if not commit.over:
            commit.waiting.append(cast("PendingCommit[object]", self))
        elif commit.error is None:
            self.committed()
        else:
            self.failed(commit.error)

    def committed(self) -> None:
        """Deliver the result, because the commit is durable."""
        if self.error is not None:
            self.failed(self.error)
        elif self.on_done is not None:
            self.on_done(self.value)

    def failed(self, error: Exception) -> None:
        """Deliver an error in place of the result."""
        if self.error_response is not None and self.on_done is not None:
            self.on_done(self.error_response(error))
        elif self.on_error is not None:
            self.on_error(error)


Pending: TypeAlias = T | PendingCommit[T] | Deferred[T]
"""A value in one of the three forms."""


def then(value: T | Deferred[T], function: Callable[[T], U | Deferred[U]]) -> U | Deferred[U]:
    """Call ``function`` with ``value``, immediately if it is available, else when it arrives.

    :return: what ``function`` returns, or a Deferred of it. Exceptions raised by ``function`` propagate.
    """
    if isinstance(value, Deferred):
        return cast("Deferred[U]", value.addCallback(function))
    return function(value)


def map_result(value: Pending[T], function: Callable[[T], U]) -> Pending[U]:
    """Do the same as :func:`then`, also while a commit is pending; so ``function`` must have no side effects."""
    if isinstance(value, PendingCommit):
        pending = cast("PendingCommit[U]", value)
        if value.error is None:
            pending.value = function(value.value)
        return pending
    return then(value, function)


def as_deferred(value: Pending[T]) -> Deferred[T]:
    """Return the value as a Deferred, for callers that do not need the faster forms."""
    if isinstance(value, Deferred):
        return value
    done: Deferred[T] = Deferred()
    if isinstance(value, PendingCommit):

        def told(result: T) -> None:
            if not done.called:
                done.callback(result)

        def failed(error: Exception) -> None:
            if not done.called:
                done.errback(error)

        value.when(told, failed)
    else:
        done.callback(value)
    return done


def at_once(value: Pending[T]) -> T:
    """Return a value that is known to need no waiting, for example from storage that does its work inline.

    If it is a failure, raise it.
    """
    failures: list[Failure] = []
    results: list[T] = []
    as_deferred(value).addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "this can't wait"
    return results[0]


@define(eq=False)
class Waiters:
    """Deferreds that wait for the same event. Cancelling one does not affect the others."""

    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires at the next :meth:`notify`."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        return done

    def notify(self) -> None:
        """Fire all Deferreds that wait now. Those returned from here on wait for the next call."""
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)
