"""Values that are usually there at once, and those that aren't yet.

Most answers of this server need no waiting, and a Deferred costs more than the answer. So a function that
may have to wait returns one of three things, and :func:`then` and :func:`then_now` continue from them:

- the value itself;
- a :class:`Decided` value: it is known already, and counts as soon as a commit succeeds. This is what every write
  to durable storage gives, and a group of them is told with one loop: 3 us less for each than a Deferred and its
  callbacks, of 21 (``bench/application.py``);
- a Deferred of the value, where bytes have to be fetched first.
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
    """What decided values wait for: a commit under way."""

    waiting: list[Decided[object]]
    """Who is told of its end, in this order."""
    over: bool
    """Whether it has ended."""
    error: Exception | None
    """Why it failed, if it did."""


@define(eq=False)
class Decided(Generic[T]):
    """A result that is known, and counts when a commit has succeeded.

    :param value: the result; ``None`` beside a refusal.
    :param commit: what it rests on.
    :param refusal: the error that is the result. It must not be told before what it rests on is durable, either.
    :param rescue: makes a result from the error of a commit that failed.
    """

    value: T
    commit: Awaited
    refusal: Exception | None = None
    rescue: Callable[[Exception], T] | None = None
    told: Callable[[T], object] | None = None
    failed: Callable[[Exception], object] | None = None

    def when(self, told: Callable[[T], object], failed: Callable[[Exception], object] | None = None) -> None:
        """Be told when the result counts; for one listener.

        :param told: is given the result, or what ``rescue`` made of an error.
        :param failed: is given the error where there is no ``rescue``; without it nobody is.
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
        """The commit has succeeded: tell the result."""
        if self.refusal is not None:
            self.broke(self.refusal)
        elif self.told is not None:
            self.told(self.value)

    def broke(self, error: Exception) -> None:
        """There is no result but this error: tell it."""
        if self.rescue is not None and self.told is not None:
            self.told(self.rescue(error))
        elif self.failed is not None:
            self.failed(error)


Eventually: TypeAlias = T | Decided[T] | Deferred[T]
"""A value in one of the three forms."""


def then(value: T | Deferred[T], function: Callable[[T], U | Deferred[U]]) -> U | Deferred[U]:
    """Call ``function`` with ``value``: now when it is there, else when it comes.

    :return: what ``function`` returns, or a Deferred of that. Exceptions of ``function`` pass through.
    """
    if isinstance(value, Deferred):
        return cast("Deferred[U]", value.addCallback(function))
    return function(value)


def then_now(value: Eventually[T], function: Callable[[T], U]) -> Eventually[U]:
    """As :func:`then`, also where ``value`` is decided and doesn't count yet: so ``function`` must change nothing."""
    if isinstance(value, Decided):
        decided = cast("Decided[U]", value)
        if value.refusal is None:
            decided.value = function(value.value)
        return decided
    return then(value, function)


def as_deferred(value: Eventually[T]) -> Deferred[T]:
    """The value as a Deferred, for callers to whom it is all the same."""
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
    """The value of what can't have waited for anything, such as storage that runs its work inline.

    Its failure is raised.
    """
    failures: list[Failure] = []
    results: list[T] = []
    as_deferred(value).addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "this can't wait"
    return results[0]
