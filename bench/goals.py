"""The goals of this server, as ratios of its figures to a peer's in one run, and the results."""

from __future__ import annotations

from attrs import frozen

from bench.results import Results
from bench.texts import figure_text, markdown_table
from bench.workload import BYTES_EACH, CPU_EVENT, MEGABYTES, P50, RATE, Measure

ELECTRIC, RUST = "electric", "rust"


@frozen
class Aim:
    """A goal in comparison with one peer.

    :param theirs: the key of the peer in a mode.
    :param bound: the ratio of this server's figure to the peer's, or this server's figure if ``absolute``; a minimum or
        a maximum, depending on the measure.
    """

    theirs: str
    bound: float
    absolute: bool = False


@frozen
class Goal:
    """A row of the table of goals.

    :param ours: the key of this server in a mode.
    :param electric: the goal in comparison with Electric's Rust server; ``rust``: with ``durable-streams-server``.
    """

    title: str
    workload: str
    measure: Measure
    ours: str
    electric: Aim | None
    rust: Aim | None


def _appends(mode: str, workload: str, title: str, electric: Aim | None, rust: Aim) -> Goal:
    return Goal(f"append, {mode}, {title}", workload, RATE, f"dstreams:{mode}", electric, rust)


def _goals() -> list[Goal]:
    memory, wal = "electric:memory", "electric:wal"
    c32, c128 = "append-100-c32-s1", "append-100-c128-s1"
    return [
        _appends("memory", c32, "32 connections", Aim(memory, 1.3), Aim("rust:memory", 2.0)),
        _appends("memory", c128, "128 connections", Aim(memory, 1.3), Aim("rust:memory", 2.0)),
        _appends("file-durable", c32, "32 connections", Aim(wal, 0.9), Aim("rust:file-durable", 7)),
        _appends("file-durable", c128, "128 connections", Aim(wal, 0.85), Aim("rust:file-durable", 10)),
        _appends(
            "file-durable",
            "append-256-c64-s100",
            "100 streams, 64 connections",
            Aim(wal, 1.3),
            Aim("rust:file-durable", 4),
        ),
        _appends("acid", c32, "32 connections", None, Aim("rust:acid", 6)),
        Goal(
            "create, file-durable",
            "create-c64",
            RATE,
            "dstreams:file-durable",
            Aim(wal, 5),
            Aim("rust:file-durable", 7),
        ),
        Goal(
            "catch-up 10 KB, 32 connections, file-fast",
            "catch-up-10240-c32",
            RATE,
            "dstreams:file-fast",
            Aim(memory, 1.2),
            Aim("rust:file-fast", 1.0),
        ),
        Goal(
            "catch-up 8 MB, bytes/s, file-durable",
            "catch-up-8388608-c8",
            MEGABYTES,
            "dstreams:file-durable",
            Aim(wal, 0.8),
            Aim("rust:file-durable", 1.2),
        ),
        *(
            Goal(
                f"fan-out to {count:,}, processor time per event",
                f"fan-out-{count}",
                CPU_EVENT,
                "dstreams:memory",
                Aim(memory, electric),
                Aim("rust:memory", rust),
            )
            for count, electric, rust in ((1000, 0.85, 0.6), (10_000, 1.0, 0.75))
        ),
        Goal(
            "append to SSE delivery, median, idle server",
            "fan-out-1",
            P50,
            "dstreams:memory",
            Aim(memory, 1.0),
            Aim("rust:memory", 0.8),
        ),
        Goal(
            "memory per idle SSE reader",
            "idle-readers-10000",
            BYTES_EACH,
            "dstreams:memory",
            Aim(memory, 4096, absolute=True),
            Aim("rust:memory", 0.25),
        ),
        Goal(
            "memory per idle stream",
            "idle-streams-10000",
            BYTES_EACH,
            "dstreams:memory",
            Aim(memory, 1536, absolute=True),
            None,
        ),
    ]


GOALS = _goals()


def table(results: Results) -> str:
    """Return a table of the ratios and the goals."""
    rows = [[goal.title, _cell(results, goal, goal.electric), _cell(results, goal, goal.rust)] for goal in GOALS]
    titles = {each.server: each.title for each in results.subjects.values()}
    return markdown_table(["ours by theirs", titles.get(ELECTRIC, ELECTRIC), titles.get(RUST, RUST)], rows)


def _cell(results: Results, goal: Goal, aim: Aim | None) -> str:
    if aim is None:
        return ""
    if aim.absolute:
        value = results.median(goal.workload, goal.ours, goal.measure)
        unit = " B"
    else:
        value = results.ratio(goal.workload, goal.ours, aim.theirs, goal.measure)
        unit = ""
    sign = "≤" if goal.measure.less_is_better else "≥"
    bound = f"aim {sign} {aim.bound:,g}{unit}"
    if value is None:
        return f"- ({bound})"
    reached = value <= aim.bound if goal.measure.less_is_better else value >= aim.bound
    return f"{figure_text(value)}{unit} ({bound}{'' if reached else ': missed'})"
