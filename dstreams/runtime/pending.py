"""Values that are usually available immediately, and ways to continue when they are not.

Most responses of this server need no waiting, and a Deferred costs more than computing the response. So a function
that may have to wait returns one of three things, and :func:`then` and :func:`then_now` continue from them:

- the value itself;
- a :class:`Decided` value: the result is known, but counts only once a commit is durable. Every write to durable
  storage returns one. All results of a commit are delivered in one loop, which costs 3 us less for each than a
  Deferred with its callbacks, out of 21 (``bench/application.py``);
- a Deferred of the value, if bytes have to be fetched first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")
U = TypeVar("U")


class Awaited(Protocol):
    """A commit in progress, on which results depend."""

    waiting: list[Decided[object]]
    """The results to deliver when the commit ends, in this order."""
    over: bool
    """Whether the commit has ended."""
    error: Exception | None
    """Why the commit failed, or ``None``."""


@define(eq=False)
class Decided(Generic[T]):
    """A result that is known but counts only once a commit is durable.

    :param value: the result; ``None`` if the result is an error.
    :param commit: the commit that it depends on.
    :param refusal: the error, if the result is one. It too is delivered only after the commit is durable.
    :param rescue: converts the error of a failed commit to a result.
    """

    value: T
    commit: Awaited
    refusal: Exception | None = None
    rescue: Callable[[Exception], T] | None = None
    told: Callable[[T], object] | None = None
    failed: Callable[[Exception], object] | None = None

    def when(self, told: Callable[[T], object], failed: Callable[[Exception], object] | None = None) -> None:
        """Set the callbacks for the result. There can be only one pair of them.

        :param told: called with the result, or with what ``rescue`` makes of an error.
        :param failed: called with the error if there is no ``rescue``; without it such an error is discarded.
        """
        self.told, self.failed = told, failed
        commit = self.commit
        if not commit.over:
            commit.waiting.append(cast("Decided[object]", self))
        elif commit.error is None:
            self.succeeded()
        else:
            self.broke(commit.error)

    def succeeded(self) -> None:
        """Deliver the result, because the commit is durable."""
        if self.refusal is not None:
            self.broke(self.refusal)
        elif self.told is not None:
            self.told(self.value)

    def broke(self, error: Exception) -> None:
        """Deliver an error in place of the result."""
        if self.rescue is not None and self.told is not None:
            self.told(self.rescue(error))
        elif self.failed is not None:
            self.failed(error)


Eventually: TypeAlias = T | Decided[T] | Deferred[T]
"""A value in one of the three forms."""


def then(value: T | Deferred[T], function: Callable[[T], U | Deferred[U]]) -> U | Deferred[U]:
    """Call ``function`` with ``value``, immediately if it is available, else when it arrives.

    :return: what ``function`` returns, or a Deferred of it. Exceptions raised by ``function`` propagate.
    """
    if isinstance(value, Deferred):
        return cast("Deferred[U]", value.addCallback(function))
    return function(value)


def then_now(value: Eventually[T], function: Callable[[T], U]) -> Eventually[U]:
    """Do the same as :func:`then`, also while a commit is pending; so ``function`` must have no side effects."""
    if isinstance(value, Decided):
        decided = cast("Decided[U]", value)
        if value.refusal is None:
            decided.value = function(value.value)
        return decided
    return then(value, function)


def as_deferred(value: Eventually[T]) -> Deferred[T]:
    """Return the value as a Deferred, for callers that do not need the faster forms."""
    if isinstance(value, Deferred):
        return value
    done: Deferred[T] = Deferred()
    if isinstance(value, Decided):

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


def at_once(value: Eventually[T]) -> T:
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
