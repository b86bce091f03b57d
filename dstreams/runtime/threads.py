"""Runs functions in threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool

Run = Callable[..., Deferred[Any]]
"""Runs a function outside the reactor thread, and returns a Deferred of its result."""


def in_threads(reactor: Any) -> Run:
    """Return a function that runs work in the reactor's thread pool."""
    return partial(deferToThreadPool, reactor, reactor.getThreadPool())


def run_inline(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Run a function immediately, for tests and for code without a running reactor."""
    return maybeDeferred(function, *args)
