"""What the benchmarks' tests share: made-up servers, and a workload that isn't run."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field

from bench.servers import Launch, Mode, Server, Target
from bench.workload import CPU, RATE, Figures, LoadFailure, Measure, Run


def target(key: str, mode: str = "memory", promises: tuple[str, ...] = (), **more: object) -> Target:
    """A server that can't be started."""

    def launch(mode: str, directory: Path) -> Launch:
        raise NotImplementedError

    return Target(Server(key, f"{key} 1.0", "/", (), launch, **more), Mode(mode, promises or (mode,)))  # type: ignore[arg-type]


@define(eq=False)
class FakeWorkload:
    """Gives figures without asking anybody (a ``Workload``).

    :param outcomes: what the next runs give: a rate, or why they are void.
    """

    key: str = "append"
    outcomes: list[float | str] = field(factory=list)
    title: str = "256 B"
    group: str = "append"
    modes: tuple[str, ...] = ("memory",)
    measures: tuple[Measure, ...] = (RATE, CPU)
    rounds: int = 99
    log_levels: bool = False
    runs: list[Run] = field(factory=list)

    def estimate(self, warm: int, seconds: int) -> float:
        return float(warm + seconds)

    def measure(self, run: Run) -> Figures:
        self.runs.append(run)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, str):
            raise LoadFailure(outcome)
        return {RATE.key: outcome, CPU.key: 1e6 / outcome}
