"""Formats the results of a benchmark as Markdown tables, one for each measure and mode."""

from __future__ import annotations

from collections.abc import Sequence

from bench import facts, goals
from bench.results import Results, Subject, Topic
from bench.texts import figure_text, markdown_table
from bench.workload import CPU, MEASURES, RATE, Measure

MODES = ("memory", "file-fast", "file-durable", "acid")


def render(results: Results) -> str:
    """Return the whole report."""
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
    """Return a sentence or two about how it was measured."""
    schedule = results.schedule
    how = (
        f"Medians of {schedule['rounds']} round(s) of {schedule['seconds']} s,"
        f" each after {schedule['warm']} s of the same load."
    )
    return f"{how} A ratio is ours by theirs, the median of those within the rounds; bold where ours wins."


def section(results: Results, measure: Measure, level: str) -> list[str]:
    """Return a heading and the tables of one measure; empty if there are no figures."""
    parts = []
    for mode in MODES:
        table = mode_table(results, measure, mode)
        if table:
            parts += [f"{level}# {mode}", table]
    return [f"{level} {measure.title}", *parts] if parts else []


def mode_table(results: Results, measure: Measure, mode: str) -> str:
    """Return the table that compares one of this server's modes with peers, or an empty string without figures."""
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
    """Return the peers' modes that make the same promise as this server's ``mode``."""
    return [each for each in results.subjects.values() if mode in each.promises and not each.ours]


def _row(results: Results, topic: Topic, ours: Subject, theirs: Sequence[Subject], measure: Measure) -> list[str]:
    row = [label(topic), cell(results, topic.key, ours.key, measure)]
    for subject in theirs:
        ratio = results.ratio(topic.key, ours.key, subject.key, measure)
        row += [cell(results, topic.key, subject.key, measure), ratio_text(ratio, measure)]
    return row


def label(topic: Topic) -> str:
    """Return the name of a workload in a table of several groups."""
    return f"{topic.group}: {topic.title}"


def cell(results: Results, workload: str, target: str, measure: Measure) -> str:
    """Format a figure, ``void``, or ``-``."""
    if results.is_void(workload, target):
        return "void"
    value = results.median(workload, target, measure)
    return "-" if value is None else figure_text(value)


def ratio_text(ratio: float | None, measure: Measure) -> str:
    """Format a ratio; bold (``**12.3**``) if this server wins."""
    if ratio is None:
        return ""
    text = figure_text(ratio)
    return f"**{text}**" if measure.wins(ratio) else text


def logs_section(results: Results, level: str) -> list[str]:
    """Return the section about the cost of logs: the same workloads at both log levels."""
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
    """Return a list of what was left out and of void runs."""
    notes = [f"- {key} was left out: {why}" for key, why in results.absent.items()]
    notes += [f"- void: {text}" for text in results.voids()]
    return "\n".join(notes)
