"""The table of budgets, and how what was counted is compared with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import frozen

from bench.house import House, house, request
from tests.cost.counting import TURNS, WARM, Work, count_calls, count_lines, measure_kept, measure_peak
from tests.cost.scenarios import SCENARIOS

TABLE = Path(__file__).with_name("budgets.json")

REMEDY = "make cost-budgets"

Cost = dict[str, float]


@frozen
class Tolerance:
    """How far a count may be from its budget.

    :param share: of the budget; ``least`` is allowed in any case.
    :param gain: the share below the budget from which on the budget must be lowered.
    """

    share: float
    least: float
    gain: float


TOLERANCES = {
    "calls": Tolerance(0.01, 0.5, 0.05),
    "lines": Tolerance(0.02, 4, 0.05),
    # Other versions of Twisted and of the standard library need more or fewer of them.
    "others": Tolerance(0.15, 2, 0.5),
    # Objects have other sizes in other versions of Python.
    "peak_bytes": Tolerance(0.15, 512, 0.3),
    "kept_bytes": Tolerance(0.2, 32, 0.3),
    "writes": Tolerance(0, 0, 0.01),
    "written": Tolerance(0, 0, 0.01),
}


def measure(at: House, work: Work) -> Cost:
    """All that one turn costs."""
    for _ in range(WARM):
        work()
    before = at.written
    for _ in range(TURNS):
        work()
    after = at.written
    calls, others = count_calls(work)
    return {
        "calls": calls,
        "lines": count_lines(work),
        "others": others,
        "peak_bytes": measure_peak(work),
        "writes": (after[0] - before[0]) / TURNS,
        "written": (after[1] - before[1]) / TURNS,
    }


def _idle_stream(at: House) -> Callable[[int], object]:
    connection = at.connect()
    return lambda number: connection.ask(request(b"PUT", f"idle-{number}"), 201)


def _idle_reader(at: House) -> Callable[[int], object]:
    at.connect().ask(request(b"PUT", "idle"), 201)
    return lambda _: at.listen("idle")


def measurements() -> dict[str, Callable[[], Cost]]:
    """Everything that has a budget, by its name in the table."""
    found: dict[str, Callable[[], Cost]] = {}
    for scenario in SCENARIOS:
        for mode in scenario.modes:

            def count(mode: str = mode, prepare: Callable[[House], Work] = scenario.prepare) -> Cost:
                with house(mode) as at:
                    return measure(at, prepare(at))

            found[f"{scenario.title}, {mode}"] = count
    for what, prepare in (("idle stream", _idle_stream), ("idle SSE reader", _idle_reader)):

        def keep(prepare: Callable[[House], Callable[[int], object]] = prepare) -> Cost:
            with house("memory") as at:
                return {"kept_bytes": measure_kept(prepare(at))}

        found[what] = keep
    return found


def load() -> dict[str, Cost]:
    """The table."""
    table: dict[str, Cost] = json.loads(TABLE.read_text())
    return table


def save(table: Mapping[str, Cost]) -> None:
    """Write the table."""
    rounded = {name: {key: round(value, 2) for key, value in cost.items()} for name, cost in table.items()}
    lines = [f" {json.dumps(name)}: {json.dumps(cost)}" for name, cost in rounded.items()]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def complaints(name: str, cost: Cost, budget: Cost) -> Iterator[str]:
    """What is wrong with a cost, a sentence for each; nothing when it keeps to its budget."""
    if set(cost) != set(budget):
        yield f"{name}: {sorted(cost)} is counted, and the table has {sorted(budget)}: run {REMEDY}"
        return
    for key, value in cost.items():
        allowed, tolerance = budget[key], TOLERANCES[key]
        if value > allowed + max(allowed * tolerance.share, tolerance.least):
            yield (
                f"{name}: {key} has grown from {allowed:,.10g} to {value:,.10g}."
                f" If that must be, {REMEDY} makes it the new budget."
            )
        elif value < allowed - max(allowed * tolerance.gain, tolerance.least):
            yield f"{name}: {key} has shrunk from {allowed:,.10g} to {value:,.10g}. Keep it that way: run {REMEDY}"
