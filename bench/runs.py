"""The runs of a benchmark: which server gets which load in which round, one by one, and how far it is.

Every run has a server of its own, freshly started on an empty directory.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field, frozen

from bench.load import CELL_BYTES, LoadFailure, Workload, append_once, create_streams, drive
from bench.results import Outcome, Results, Void, figure_text, judge, rate
from bench.servers import RunningServer, StartFailure, Target, last_words, running

_WARM_FIRST, _FIRST = 1, 50_000_000
"""The first numbers of streams that a run creates while it warms up, and while it is measured."""


@frozen
class Schedule:
    """How long and how often.

    :param warm: seconds under load before the measured ones.
    :param directory: where the servers' data is kept; each run has a folder of its own there, and removes it.
    """

    rounds: int
    warm: int
    seconds: int
    directory: Path


@define(eq=False)
class Progress:
    """Tells on the terminal what is running, and how much is left.

    :param total: how many runs there will be.
    """

    total: int
    _done: int = field(default=0, init=False)
    _began: float = field(factory=time.monotonic, init=False)
    _current: str = field(default="", init=False)

    def begin(self, title: str) -> None:
        """The next run begins."""
        self._current = f"[{self._done + 1}/{self.total}{self._left()}] {title}"
        self.step("starting")

    def step(self, what: str) -> None:
        """Say what the run is doing; only a terminal shows it."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{self._current}: {what} ")
            sys.stderr.flush()

    def end(self, outcome: str) -> None:
        """The run is over."""
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{start}{self._current}: {outcome}\n")
        sys.stderr.flush()
        self._done += 1

    def skip(self) -> None:
        """The next run is left out."""
        self._done += 1

    def _left(self) -> str:
        if not self._done:
            return ""
        seconds = (time.monotonic() - self._began) / self._done * (self.total - self._done)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"


def order(
    targets: Sequence[Target], workloads: Sequence[Workload], rounds: int
) -> Iterator[tuple[int, Workload, Target]]:
    """All runs of a benchmark in their order: round, workload, target.

    All targets come one after the other with each workload, and in every second round backwards, so that none
    of them always follows the same one.
    """
    for number in range(1, rounds + 1):
        for workload in workloads:
            for target in targets if number % 2 else reversed(targets):
                yield number, workload, target


def run_all(
    targets: Sequence[Target], workloads: Sequence[Workload], schedule: Schedule, progress: Progress
) -> Results:
    """Measure every target with every workload, in several rounds.

    A target that doesn't start is left out from then on.
    """
    results = Results()
    for number, workload, target in order(targets, workloads, schedule.rounds):
        if target.key in results.absent:
            progress.skip()
            continue
        progress.begin(f"round {number}: {workload.title}: {target.title}")
        try:
            outcome = run_once(target, workload, schedule, progress.step)
        except StartFailure as failure:
            results.absent[target.key] = str(failure)
            progress.end(f"left out: {failure}")
            continue
        results.add(workload, target, outcome)
        progress.end(_told(outcome))
    return results


def _told(outcome: Outcome) -> str:
    return f"void: {outcome.reason}" if isinstance(outcome, Void) else f"{figure_text(rate(outcome))}/s"


def run_once(target: Target, workload: Workload, schedule: Schedule, step: Callable[[str], object]) -> Outcome:
    """Start a server with nothing in it, warm it up, measure it, and stop it.

    :raise StartFailure: when it doesn't start.
    """
    with folder(schedule.directory) as directory, running(target, directory) as server:
        try:
            prepare(server, workload, step)
            step("warming up")
            drive(server, workload, schedule.warm, _WARM_FIRST, CELL_BYTES // 4)
            step("measuring")
            outcome = measure(server, workload, schedule.seconds)
        except LoadFailure as failure:
            outcome = Void(str(failure))
        if server.process.poll() is not None:
            outcome = Void(f"the server ended by itself: {last_words(server.log)}")
        return outcome


def prepare(server: RunningServer, workload: Workload, step: Callable[[str], object]) -> None:
    """Create the streams that are appended to, and see that requests are answered as they should be.

    :raise LoadFailure:
    """
    count = max(1, workload.streams)
    create_streams(server, count, progress=lambda number: step(f"creating streams, {number:,} of {count:,}"))
    append_once(server)
    # What was written for this, and what the server before left behind, isn't this run's to write.
    step("waiting for the disk")
    os.sync()


def measure(server: RunningServer, workload: Workload, seconds: int) -> Outcome:
    """One measured run against a warm server.

    :raise LoadFailure:
    """
    cpu_before = server.cpu_seconds()
    load = drive(server, workload, seconds, _FIRST, CELL_BYTES * 3 // 4)
    return judge(load, server.cpu_seconds() - cpu_before)


@contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """A fresh folder below ``parent``, removed at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
