"""Fails tests in which a turn of a reactor takes too long: ``tests/conftest.py`` applies it to every test.

Three kinds of turns are measured, in processor time (``bench/turns.py``):

- of the reactor in this process, where a test runs it;
- of reactors in child processes that are started with ``tests.support.servers.child_environment``;
- in tests on a ``Clock``: each call that the clock makes, and each ``dataReceived`` of a transport protocol. A turn
  consists of such calls, so that one which takes too long is a turn that does.

A test that can't bear it has the marker ``long_turns`` with its reason.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.task import Clock

from bench.turns import LongTurn, Turns, measured_environment, read_report
from dstreams.http.http1.channel import HttpChannel
from dstreams.http.http2.connection import Http2Connection

LIMIT_MS = float(os.environ.get("TURN_LIMIT_MS", "50"))
"""A turn that takes longer fails the test."""

_ENTRANCES: tuple[tuple[type, str], ...] = ((HttpChannel, "dataReceived"), (Http2Connection, "dataReceived"))
"""Methods that a transport calls, each at most a turn."""


@define(eq=False)
class TurnGuard:
    """Collects the long turns of this process and of its children."""

    _folder: tempfile.TemporaryDirectory[str] = field(factory=tempfile.TemporaryDirectory)
    _reports: dict[Path, int] = field(factory=dict, init=False)
    """Each child's report, and how many turns of it are known."""

    _found: list[LongTurn] = field(factory=list, init=False)
    _turns: Turns | None = field(default=None, init=False)
    _reactor_counts: bool = field(default=False, init=False)

    def environment(self) -> dict[str, str]:
        """The environment variables of a child whose turns are to be measured."""
        report = Path(self._folder.name, f"{len(self._reports)}.jsonl")
        self._reports[report] = 0
        return measured_environment(report, LIMIT_MS)

    def collect(self) -> list[LongTurn]:
        """The long turns since the last call."""
        found, self._found = self._found, []
        for name in os.listdir(self._folder.name):
            report = Path(self._folder.name, name)
            turns = read_report(report)
            found += turns[self._reports[report] :]
            self._reports[report] = len(turns)
        return found

    @contextmanager
    def measuring(self, *, reactor: bool) -> Iterator[None]:
        """Measure this process's own turns.

        :param reactor: whether the reactor's count: pytest-twisted runs every test in a turn, needed or not.
        """
        # What other tests have left in memory isn't this one's to collect.
        gc.freeze()
        changed = [self._measure(owner, name) for owner, name in _ENTRANCES]
        call_later = Clock.callLater
        Clock.callLater = _measured_call_later(call_later, self._timed)  # type: ignore[method-assign]
        if reactor:
            self._begin_turn()
        try:
            yield
        finally:
            self._reactor_counts = False
            Clock.callLater = call_later  # type: ignore[method-assign]
            for owner, name, method in changed:
                setattr(owner, name, method)
            gc.unfreeze()

    def close(self) -> None:
        """Measure no more."""
        if self._turns is not None:
            self._turns.stop()
        self._folder.cleanup()

    def _begin_turn(self) -> None:
        """Measure the reactor's turns from now on: at the start of a test it is in the middle of one."""
        if self._turns is None:
            # A thread that samples stacks would disturb tests that count allocations.
            self._turns = Turns(self._note, LIMIT_MS, samples=False)
            self._turns.start(sys.modules["twisted.internet.reactor"])
        self._turns.restart()
        self._reactor_counts = True

    def _note(self, turn: LongTurn) -> None:
        if self._reactor_counts:
            self._found.append(turn)

    def _measure(self, owner: type, name: str) -> tuple[type, str, Callable[..., Any]]:
        method = owner.__dict__[name]
        setattr(owner, name, self._timed(method))
        return owner, name, method

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time is measured."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = (time.thread_time() - began) * 1000
                if spent > LIMIT_MS:
                    self._found.append(LongTurn(spent, (f"    in {function!r}",)))

        return timed


def _measured_call_later(call_later: Callable[..., Any], timed: Callable[[Any], Any]) -> Callable[..., Any]:
    def measured(self: Clock, when: float, what: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return call_later(self, when, timed(what), *args, **kwargs)

    return measured


GUARD = TurnGuard()
"""The one of this process."""
