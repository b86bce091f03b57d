"""Executes the runs of a benchmark one by one: each server gets each load in each round. It reports the progress.

Every run has its own server, freshly started on an empty directory.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field, frozen

from bench.results import Results
from bench.servers import EndedFailure, StartFailure, Target
from bench.texts import duration_text, figure_text
from bench.workload import LoadFailure, Measured, Outcome, Run, Void, Workload

_PATIENCE, _PATIENCE_FACTOR = 60, 5
"""The maximum duration of a run: these seconds plus this multiple of the expected duration. Then the server counts as
hung."""


@frozen
class Schedule:
    """How long and how often each workload is measured.

    :param warm: seconds under load before the measured ones.
    :param directory: the directory of the servers' data; each run creates its own folder there, and removes it.
    """

    rounds: int
    warm: int
    seconds: int
    directory: Path


@frozen
class Turn:
    """One run to execute."""

    round: int
    workload: Workload
    target: Target

    @property
    def title(self) -> str:
        """The run's name for people."""
        return f"round {self.round}: {self.workload.group}: {self.workload.title}: {self.target.title}"


Suits = Callable[[Workload, Target], bool]
"""Whether a workload is run on a target."""


def suits(workload: Workload, target: Target) -> bool:
    """Whether a target gets a workload, unless a benchmark has rules of its own."""
    if target.server.apart and not workload.log_levels:
        return False
    return any(mode in workload.modes for mode in target.mode.promises)


def turns(
    targets: Sequence[Target], workloads: Sequence[Workload], rounds: int, suits: Suits = suits
) -> Iterator[Turn]:
    """Yield all runs of a benchmark in order: by round, workload, target.

    For each workload the targets follow each other, in reverse order in every second round, so that none of them always
    follows the same one. A workload is run in the modes of this server that it names, in the peers' modes with the same
    promise, and if requested also on this server at its default log level.
    """
    for number in range(1, rounds + 1):
        for workload in workloads:
            if number > workload.rounds:
                continue
            for target in targets if number % 2 else reversed(targets):
                if suits(workload, target):
                    yield Turn(number, workload, target)


@define(eq=False)
class Progress:
    """Shows on the terminal what is running, and how much time is left.

    :param expected: the estimated seconds of each run, in order.
    """

    expected: Sequence[float]
    _clock: Callable[[], float] = time.monotonic
    _done: int = field(default=0, init=False)
    _spent: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)
    _current: str = field(default="", init=False)
    _shown: str = field(default="", init=False)

    def begin(self, title: str) -> None:
        """Show that the next run begins."""
        self._current = f"[{self._done + 1}/{len(self.expected)}, {duration_text(self.left())} left] {title}"
        self._began, self._shown = self._clock(), ""
        self.step("starting")

    def step(self, what: str) -> None:
        """Show the current step of the run, if this is a terminal."""
        if what != self._shown and sys.stderr.isatty():
            self._shown = what
            sys.stderr.write(f"\r\x1b[K{self._current}: {what} ")
            sys.stderr.flush()

    def end(self, outcome: str) -> None:
        """Show that the run has ended."""
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{start}{self._current}: {outcome}\n")
        sys.stderr.flush()
        self._spent += self._clock() - self._began
        self._done += 1

    def left(self) -> float:
        """Return the estimated seconds left, corrected by the durations so far."""
        expected = sum(self.expected[: self._done])
        # At first use only the estimate, because a few runs say little.
        factor = (self._spent + 60) / (expected + 60)
        return sum(self.expected[self._done :]) * factor


def run_all(
    todo: Sequence[Turn],
    schedule: Schedule,
    results: Results,
    keep: Callable[[], object],
) -> None:
    """Execute the runs, and record their outcomes.

    A target that does not start is left out from then on.

    :param keep: called after each run to save the results so far.
    """
    progress = Progress([turn.workload.estimate(schedule.warm, schedule.seconds) for turn in todo])
    for turn in todo:
        workload, target = turn.workload, turn.target
        results.know(workload, target)
        progress.begin(turn.title)
        if target.key in results.absent:
            progress.end("left out")
            continue
        try:
            outcome = run_once(turn, schedule, progress.step)
        except StartFailure as failure:
            results.absent[target.key] = str(failure)
            progress.end(f"left out: {failure}")
        else:
            results.add(workload.key, target.key, turn.round, outcome)
            progress.end(told(workload, outcome))
        keep()


def told(workload: Workload, outcome: Outcome) -> str:
    """Return an outcome in a few words."""
    if isinstance(outcome, Void):
        return f"void: {outcome.reason}"
    found = ((outcome.figures.get(measure.key), measure.unit) for measure in workload.measures)
    return "; ".join(f"{figure_text(value)} {unit}" for value, unit in found if value is not None)


def run_once(turn: Turn, schedule: Schedule, step: Callable[[str], object]) -> Outcome:
    """Execute one run.

    :raise StartFailure: if the server does not start.
    """
    most = _PATIENCE + _PATIENCE_FACTOR * turn.workload.estimate(schedule.warm, schedule.seconds)
    with folder(schedule.directory) as directory:
        run = Run(turn.target, directory, schedule.warm, schedule.seconds, step)
        try:
            with limited(most):
                return Measured(turn.workload.measure(run))
        except (LoadFailure, EndedFailure) as failure:
            return Void(str(failure))


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Abort a block that takes longer than ``seconds``, wherever it waits; only in the main thread.

    :raise LoadFailure: if it was aborted.
    """

    def break_off(number: int, frame: object) -> None:  # noqa: ARG001 (a signal's)
        raise LoadFailure(f"it took longer than {duration_text(seconds)}")

    former = signal.signal(signal.SIGALRM, break_off)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """Create an empty folder below ``parent``, and remove it at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
