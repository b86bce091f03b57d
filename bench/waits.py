"""The tables of ``make bench-fairness``: a row for each load, the waits and costs of each server beside each other."""

from __future__ import annotations

from bench import facts
from bench.report import cell, notes_of
from bench.results import Results, Subject, Topic
from bench.texts import figure_text, markdown_table
from bench.workload import PEAK_MB, PING_MAX, PING_P50, PING_P99, TURN

MOST_MS = 50.0
"""No ping should wait longer on a quiet machine."""

MODES = {
    "memory": "memory",
    "file-durable": "file-durable",
    "acid": "acid",
    "epoll": "memory, Twisted's reactor on epoll",
    "http2": "memory, TLS with HTTP/2",
}
"""The tables and their headings: a storage mode on the fastest reactor over HTTP/1.1, or ``memory`` otherwise."""

_OURS = (
    (PING_MAX, "worst wait, ms"),
    (PING_P99, "p99"),
    (PING_P50, "p50"),
    (TURN, "longest turn, ms"),
    (PEAK_MB, "peak, MB"),
)
_THEIRS = ((PING_MAX, "worst wait"), (PING_P99, "p99"), (PEAK_MB, "peak, MB"))


def render(results: Results) -> str:
    """The whole report."""
    parts = ["# Fairness", facts.described(results.facts), tables(results, "##")]
    notes = notes_of(results)
    if notes:
        parts += ["## What didn't work", notes]
    return "\n\n".join(parts) + "\n"


def tables(results: Results, level: str) -> str:
    """A heading and a table for each mode."""
    found = [(title, mode_table(results, mode)) for mode, title in MODES.items()]
    return "\n\n".join(f"{level} {title}\n\n{table}" for title, table in found if table)


def mode_table(results: Results, mode: str) -> str:
    """One of our modes beside its peers; empty when there is nothing to show."""
    subjects = [each for each in results.subjects.values() if mode in each.promises]
    ours = next((each for each in subjects if each.ours), None)
    if ours is None:
        return ""
    topics = [each for each in results.topics.values() if results.ran(each.key, ours.key)]
    theirs = [each for each in subjects if not each.ours]
    head = ["", *(title for _, title in _OURS)]
    for subject in theirs:
        first, *others = (title for _, title in _THEIRS)
        head += [f"{subject.title}, {subject.mode}: {first}", *others]
    return markdown_table(head, [_row(results, topic, ours, theirs) for topic in topics])


def _row(results: Results, topic: Topic, ours: Subject, theirs: list[Subject]) -> list[str]:
    row = [topic.title, *(cell(results, topic.key, ours.key, measure) for measure, _ in _OURS)]
    wait = results.median(topic.key, ours.key, PING_MAX)
    if wait is not None and wait > MOST_MS:
        row[1] = f"**{row[1]}**"
    for subject in theirs:
        row += [cell(results, topic.key, subject.key, measure) for measure, _ in _THEIRS]
    return row


def verdict(results: Results) -> list[str]:
    """Which rows of ours are above the bound, in words."""
    lines = []
    for topic in results.topics.values():
        for subject in (each for each in results.subjects.values() if each.ours):
            wait = results.median(topic.key, subject.key, PING_MAX)
            if wait is not None and wait > MOST_MS:
                turn = results.median(topic.key, subject.key, TURN) or 0.0
                lines.append(
                    f"above {MOST_MS:.0f} ms: {topic.key} ({subject.key}): the pinger waited {figure_text(wait)} ms,"
                    f" the longest turn took {figure_text(turn)} ms of processor time"
                )
    return lines
