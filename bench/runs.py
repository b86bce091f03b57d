"""The runs of a benchmark: which server gets which load in which round, one by one, and how far it is.

Every run has a server of its own, freshly started on an empty directory.
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
"""A run may take so many seconds, and so many times what was expected; then its server is taken to hang."""


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


@frozen
class Turn:
    """One run that is to be made."""

    round: int
    workload: Workload
    target: Target

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"round {self.round}: {self.workload.group}: {self.workload.title}: {self.target.title}"


Suits = Callable[[Workload, Target], bool]
"""Whether a target gets a workload."""


def suits(workload: Workload, target: Target) -> bool:
    """Whether a target gets a workload, unless a benchmark has rules of its own."""
    if target.server.apart and not workload.log_levels:
        return False
    return any(mode in workload.modes for mode in target.mode.promises)


def turns(
    targets: Sequence[Target], workloads: Sequence[Workload], rounds: int, suits: Suits = suits
) -> Iterator[Turn]:
    """All runs of a benchmark in their order: round, workload, target.

    All targets come one after the other with each workload, and in every second round backwards, so that none
    of them always follows the same one. A workload goes to our modes that it names, to the peers' that promise
    the same, and to ours at its default log level where that is asked for.
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
    """Tells on the terminal what is running, and how much is left.

    :param expected: about how many seconds each run will take, in their order.
    """

    expected: Sequence[float]
    _clock: Callable[[], float] = time.monotonic
    _done: int = field(default=0, init=False)
    _spent: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)
    _current: str = field(default="", init=False)
    _shown: str = field(default="", init=False)

    def begin(self, title: str) -> None:
        """The next run begins."""
        self._current = f"[{self._done + 1}/{len(self.expected)}, {duration_text(self.left())} left] {title}"
        self._began, self._shown = self._clock(), ""
        self.step("starting")

    def step(self, what: str) -> None:
        """Say what the run is doing; only a terminal shows it."""
        if what != self._shown and sys.stderr.isatty():
            self._shown = what
            sys.stderr.write(f"\r\x1b[K{self._current}: {what} ")
            sys.stderr.flush()

    def end(self, outcome: str) -> None:
        """The run is over."""
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{start}{self._current}: {outcome}\n")
        sys.stderr.flush()
        self._spent += self._clock() - self._began
        self._done += 1

    def left(self) -> float:
        """About how many seconds are left: what was expected, corrected by what it took so far."""
        expected = sum(self.expected[: self._done])
        # The estimate alone at first; a few runs say little.
        factor = (self._spent + 60) / (expected + 60)
        return sum(self.expected[self._done :]) * factor


def run_all(
    todo: Sequence[Turn],
    schedule: Schedule,
    results: Results,
    keep: Callable[[], object],
) -> None:
    """Make the runs, and note what comes of them.

    A target that doesn't start is left out from then on.

    :param keep: called after each run, to save what there is.
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
    """An outcome in a few words."""
    if isinstance(outcome, Void):
        return f"void: {outcome.reason}"
    found = ((outcome.figures.get(measure.key), measure.unit) for measure in workload.measures)
    return "; ".join(f"{figure_text(value)} {unit}" for value, unit in found if value is not None)


def run_once(turn: Turn, schedule: Schedule, step: Callable[[str], object]) -> Outcome:
    """Make one run.

    :raise StartFailure: when the server doesn't start.
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
    """Break off what takes longer, wherever it waits; only in the main thread.

    :raise LoadFailure: it was broken off.
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
    """A fresh folder below ``parent``, removed at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
