"""The report: every figure of a benchmark in Markdown tables, one for each measure and mode."""

from __future__ import annotations

from collections.abc import Sequence

from bench import facts, goals
from bench.results import Results, Subject, Topic
from bench.texts import figure_text, markdown_table
from bench.workload import CPU, MEASURES, RATE, Measure

MODES = ("memory", "file-fast", "file-durable", "acid")


def render(results: Results) -> str:
    """The whole report."""
    parts = ["# Benchmark", introduction(results), facts.described(results.facts)]
    if any(not each.ours for each in results.subjects.values()):
        parts += ["## Aims", goals.table(results)]
    for measure in MEASURES.values():
        parts += section(results, measure, "##")
    parts += logs_section(results, "##")
    notes = notes_of(results)
    if notes:
        parts += ["## What didn't work", notes]
    return "\n\n".join(parts) + "\n"


def introduction(results: Results) -> str:
    """How it was measured, in a sentence or two."""
    schedule = results.schedule
    how = (
        f"Medians of {schedule['rounds']} round(s) of {schedule['seconds']} s,"
        f" each after {schedule['warm']} s of the same load."
    )
    return f"{how} A ratio is ours by theirs, the median of those within the rounds; bold where ours wins."


def section(results: Results, measure: Measure, level: str) -> list[str]:
    """A heading and the tables of one measure; nothing when there is no figure."""
    parts = []
    for mode in MODES:
        table = mode_table(results, measure, mode)
        if table:
            parts += [f"{level}# {mode}", table]
    return [f"{level} {measure.title}", *parts] if parts else []


def mode_table(results: Results, measure: Measure, mode: str) -> str:
    """One of our modes beside its peers: a row for each workload; empty when there is nothing to show."""
    ours = next(
        (each for each in results.subjects.values() if each.ours and not each.apart and each.mode == mode), None
    )
    topics = [each for each in results.topics.values() if measure.key in each.measures and mode in each.modes]
    if ours is None:
        return ""
    topics = [each for each in topics if results.ran(each.key, ours.key)]
    theirs = [each for each in peers_of(results, mode) if any(results.ran(topic.key, each.key) for topic in topics)]
    if not topics:
        return ""
    head = ["", ours.title]
    for subject in theirs:
        head += [f"{subject.title}, {subject.mode}", "ratio"]
    return markdown_table(head, [_row(results, topic, ours, theirs, measure) for topic in topics])


def peers_of(results: Results, mode: str) -> list[Subject]:
    """The peers' modes that promise what one of ours does."""
    return [each for each in results.subjects.values() if mode in each.promises and not each.ours]


def _row(results: Results, topic: Topic, ours: Subject, theirs: Sequence[Subject], measure: Measure) -> list[str]:
    row = [label(topic), cell(results, topic.key, ours.key, measure)]
    for subject in theirs:
        ratio = results.ratio(topic.key, ours.key, subject.key, measure)
        row += [cell(results, topic.key, subject.key, measure), ratio_text(ratio, measure)]
    return row


def label(topic: Topic) -> str:
    """A workload in a table of several groups."""
    return f"{topic.group}: {topic.title}"


def cell(results: Results, workload: str, target: str, measure: Measure) -> str:
    """A figure, ``void``, or ``-``."""
    if results.is_void(workload, target):
        return "void"
    value = results.median(workload, target, measure)
    return "-" if value is None else figure_text(value)


def ratio_text(ratio: float | None, measure: Measure) -> str:
    """A ratio: ``**12.3**`` where ours wins."""
    if ratio is None:
        return ""
    text = figure_text(ratio)
    return f"**{text}**" if measure.wins(ratio) else text


def logs_section(results: Results, level: str) -> list[str]:
    """What our own logs cost: the same workloads at both log levels."""
    rows = []
    for apart in (each for each in results.subjects.values() if each.apart):
        plain = apart.key.replace(apart.server, "dstreams", 1)
        for topic in results.topics.values():
            if results.ran(topic.key, apart.key) and results.ran(topic.key, plain):
                row = [f"{label(topic)}, {apart.mode}"]
                for measure in (RATE, CPU):
                    ratio = results.ratio(topic.key, apart.key, plain, measure)
                    row += [cell(results, topic.key, key, measure) for key in (plain, apart.key)]
                    row.append("" if ratio is None else figure_text(ratio))
                rows.append(row)
    if not rows:
        return []
    head = ["", "requests/s", "with logs", "ratio", "CPU, µs", "with logs", "ratio"]
    return [f"{level} Logs of warnings only, and the default", markdown_table(head, rows)]


def notes_of(results: Results) -> str:
    """What was left out, and what is void, as a list."""
    notes = [f"- {key} was left out: {why}" for key, why in results.absent.items()]
    notes += [f"- void: {text}" for text in results.voids()]
    return "\n".join(notes)
