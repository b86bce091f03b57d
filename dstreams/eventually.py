"""Values that are usually there at once.

Most answers of this server need no waiting, and a Deferred costs more than the answer. So a function that
may have to wait returns the value itself or a Deferred of it, and :func:`then` continues from either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from twisted.internet.defer import Deferred

T = TypeVar("T")
U = TypeVar("U")


def then(value: T | Deferred[T], function: Callable[[T], U | Deferred[U]]) -> U | Deferred[U]:
    """Call ``function`` with ``value``: now when it is there, else when it comes.

    :return: what ``function`` returns, or a Deferred of that. Exceptions of ``function`` pass through.
    """
    if isinstance(value, Deferred):
        return cast("Deferred[U]", value.addCallback(function))
    return function(value)
