"""The results of a benchmark: a file of figures, and medians and ratios computed from them.

Servers take turns within a round, so the figures of one are compared with those of the others in the same round, at
most minutes apart. A ratio is the median of the rounds' ratios, not a ratio of medians, because that is less
sensitive to a machine that is slower in some rounds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from attrs import asdict, define, field, frozen

from bench.servers import Target
from bench.workload import Measure, Measured, Outcome, Void, Workload

FORMAT = 1
"""The version of the file format."""


@frozen
class Subject:
    """A server in one of its modes, for a report.

    :param server: the server's short name; ``ours`` is true for this project's server.
    :param title: the server's name and version.
    :param promises: this server's modes that it is compared with.
    :param apart: why it is not compared with the others; empty if it is.
    """

    key: str
    server: str
    title: str
    mode: str
    promises: tuple[str, ...]
    ours: bool
    apart: str = ""


@frozen
class Topic:
    """A workload, for a report."""

    key: str
    title: str
    group: str
    modes: tuple[str, ...]
    measures: tuple[str, ...]


@define(eq=False)
class Results:
    """The outcomes of all runs.

    :param facts: facts about the machine.
    :param schedule: how often and how long each workload was measured.
    :param absent: the targets that could not run, with the reasons.
    """

    facts: dict[str, str] = field(factory=dict)
    schedule: dict[str, int] = field(factory=dict)
    subjects: dict[str, Subject] = field(factory=dict, init=False)
    topics: dict[str, Topic] = field(factory=dict, init=False)
    absent: dict[str, str] = field(factory=dict, init=False)
    _rounds: dict[tuple[str, str], dict[int, Outcome]] = field(factory=dict, init=False)

    def know(self, workload: Workload, target: Target) -> None:
        """Record the names of a workload and a target."""
        server, mode = target.server, target.mode
        self.subjects[target.key] = Subject(
            target.key, server.key, server.title, mode.name, mode.promises, server.ours, server.apart
        )
        measures = tuple(measure.key for measure in workload.measures)
        self.topics[workload.key] = Topic(workload.key, workload.title, workload.group, workload.modes, measures)

    def add(self, workload: str, target: str, number: int, outcome: Outcome) -> None:
        """Record the outcome of a round; it replaces an earlier one."""
        self._rounds.setdefault((workload, target), {})[number] = outcome

    def has(self, workload: str, target: str, number: int) -> bool:
        """Whether a round has been measured and is not void."""
        return isinstance(self._rounds.get((workload, target), {}).get(number), Measured)

    def ran(self, workload: str, target: str) -> bool:
        """Whether there is an outcome of any round."""
        return bool(self._rounds.get((workload, target)))

    def values(self, workload: str, target: str, measure: Measure) -> dict[int, float]:
        """Return a figure of each round; empty if one of them is void, because then the others mean little."""
        rounds = self._rounds.get((workload, target), {})
        found = {number: each.figures for number, each in rounds.items() if isinstance(each, Measured)}
        if len(found) < len(rounds):
            return {}
        return {number: figures[measure.key] for number, figures in sorted(found.items()) if measure.key in figures}

    def median(self, workload: str, target: str, measure: Measure) -> float | None:
        """Return the median of all rounds, or ``None`` if a round is void or there is none."""
        values = self.values(workload, target, measure)
        return median(values.values()) if values else None

    def ratio(self, workload: str, ours: str, theirs: str, measure: Measure) -> float | None:
        """Return the median ratio of ours to theirs over the rounds that both have; ``None`` as in :meth:`median`."""
        mine, others = self.values(workload, ours, measure), self.values(workload, theirs, measure)
        ratios = [mine[number] / other for number, other in others.items() if other > 0 and number in mine]
        return median(ratios) if ratios else None

    def is_void(self, workload: str, target: str) -> bool:
        """Whether a round is void."""
        return any(isinstance(each, Void) for each in self._rounds.get((workload, target), {}).values())

    def voids(self) -> list[str]:
        """Return a line for people about each void run."""
        return [
            f"{self.topics[workload].group}: {self.topics[workload].title}, {target}, round {number}: {outcome.reason}"
            for workload, target, number, outcome in self
            if isinstance(outcome, Void)
        ]

    def __iter__(self) -> Iterator[tuple[str, str, int, Outcome]]:
        for (workload, target), rounds in self._rounds.items():
            for number, outcome in sorted(rounds.items()):
                yield workload, target, number, outcome

    # -- the file

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        return {
            "format": FORMAT,
            "machine": self.facts,
            "schedule": self.schedule,
            "subjects": [asdict(each) for each in self.subjects.values()],
            "workloads": [asdict(each) for each in self.topics.values()],
            "absent": self.absent,
            "runs": [
                {"workload": workload, "target": target, "round": number, **_outcome_json(outcome)}
                for workload, target, number, outcome in self
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Results:
        """Restore results from the data of :meth:`as_json`.

        :raise ValueError: if the format has another version.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"results of format {data.get('format')!r} can't be read, only of {FORMAT}")
        results = cls(dict(data["machine"]), dict(data["schedule"]))
        for each in data["subjects"]:
            results.subjects[each["key"]] = Subject(**each | {"promises": tuple(each["promises"])})
        for each in data["workloads"]:
            tuples = {key: tuple(each[key]) for key in ("modes", "measures")}
            results.topics[each["key"]] = Topic(**each | tuples)
        results.absent.update(data["absent"])
        for run in data["runs"]:
            outcome = Void(run["void"]) if "void" in run else Measured(run["figures"])
            results.add(run["workload"], run["target"], run["round"], outcome)
        return results

    def save(self, path: Path) -> None:
        """Write the file. If the write is interrupted, the old file remains."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")
        os.replace(fresh, path)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read the file.

        :raise ValueError: if it is not a file of results.
        """
        return cls.from_json(json.loads(path.read_text()))


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Void):
        return {"void": outcome.reason}
    # Six digits are more than precise enough, and keep the file readable.
    return {"figures": {key: float(f"{value:.6g}") for key, value in outcome.figures.items()}}
