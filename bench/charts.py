"""Draws charts of results as SVG files; the same results give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from bench.results import Results, Subject
from bench.texts import figure_text
from bench.workload import BYTES_EACH, CPU_EVENT, MEGABYTES, P50, RATE, Measure

_COLOURS = {"dstreams": "#0072b2", "electric": "#e69f00", "rust": "#d55e00", "node": "#999999"}
"""One colour for each server, also distinguishable for colour-blind people (Okabe and Ito)."""

_STYLE = {
    "svg.hashsalt": "dstreams",
    # Keep text as text: it is smaller, and accessible to screen readers and searches.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@frozen
class Group:
    """A group of bars, one for each server.

    :param mode: this server's mode; for peers, the mode with the same promise is used.
    """

    label: str
    workload: str
    mode: str


@frozen
class Panel:
    """Groups of bars on one scale."""

    title: str
    measure: Measure
    groups: tuple[Group, ...]


@frozen
class Chart:
    """Panels next to each other in one file.

    :param name: the file's name without ``.svg``.
    :param title: what it shows, for people who cannot see it.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]


def _over_connections(mode: str) -> Panel:
    groups = (Group(str(count), f"append-100-c{count}-s1", mode) for count in (1, 32, 128, 512))
    return Panel(f"appends/s by connections, {mode}", RATE, tuple(groups))


CHARTS = (
    Chart(
        "append",
        "Appends of 100 bytes per second over 32 connections, in each mode",
        (
            Panel(
                "appends of 100 B per second, 32 connections",
                RATE,
                tuple(
                    Group(mode, "append-100-c32-s1", mode) for mode in ("memory", "file-fast", "file-durable", "acid")
                ),
            ),
        ),
    ),
    Chart(
        "connections",
        "Appends of 100 bytes per second, by the number of connections",
        (_over_connections("memory"), _over_connections("file-durable")),
    ),
    Chart(
        "read",
        "Reads: small ones per second, large ones and replay in megabytes per second",
        (
            Panel("reads of 10 KB per second", RATE, (Group("file-durable", "catch-up-10240-c32", "file-durable"),)),
            Panel(
                "MB/s",
                MEGABYTES,
                (
                    Group("catch-up 8 MB", "catch-up-8388608-c8", "file-durable"),
                    Group("replay", "replay-1000", "file-durable"),
                ),
            ),
        ),
    ),
    Chart(
        "fan-out",
        "Fan-out: processor time per delivered event, and the time until delivery",
        (
            Panel(
                "µs of processor time per event, by readers",
                CPU_EVENT,
                tuple(Group(f"{count:,}", f"fan-out-{count}", "memory") for count in (100, 1000, 10_000)),
            ),
            Panel("µs until delivery to 1 reader, median", P50, (Group("memory", "fan-out-1", "memory"),)),
        ),
    ),
    Chart(
        "idle",
        "Memory of an idle reader and of an idle stream",
        (
            Panel("bytes per idle SSE reader", BYTES_EACH, (Group("10,000 readers", "idle-readers-10000", "memory"),)),
            Panel("bytes per idle stream", BYTES_EACH, (Group("10,000 streams", "idle-streams-10000", "memory"),)),
        ),
    ),
)


def subject_of(results: Results, server: str, mode: str) -> Subject | None:
    """Return a server in the mode that makes the same promise as this server's ``mode``."""
    found = (each for each in results.subjects.values() if each.server == server and mode in each.promises)
    return next((each for each in found if not each.apart), None)


def values(results: Results, panel: Panel, server: str) -> list[float | None]:
    """Return a server's figure for each group."""
    subjects = [(group, subject_of(results, server, group.mode)) for group in panel.groups]
    return [
        None if subject is None else results.median(group.workload, subject.key, panel.measure)
        for group, subject in subjects
    ]


def has_figures(results: Results, chart: Chart) -> bool:
    """Whether there is anything to draw."""
    return any(
        value is not None for panel in chart.panels for server in _COLOURS for value in values(results, panel, server)
    )


def draw(results: Results, chart: Chart, path: Path) -> None:
    """Draw a chart into a file.

    :raise ImportError: if matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    titles = {each.server: each.title for each in results.subjects.values()}
    with mpl.rc_context(_STYLE):
        widths = [max(2, len(panel.groups)) for panel in chart.panels]
        figure = Figure(figsize=(8.5, 3.2), layout="constrained")
        panels = figure.subplots(1, len(chart.panels), squeeze=False, width_ratios=widths)[0]
        for axes, panel in zip(panels, chart.panels, strict=True):
            _draw_panel(axes, results, panel, [server for server in _COLOURS if server in titles])
        handles = [mpl.patches.Patch(color=_COLOURS[server]) for server in _COLOURS if server in titles]
        labels = [titles[server] for server in _COLOURS if server in titles]
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Title": chart.title})


def _draw_panel(axes: Any, results: Results, panel: Panel, servers: Sequence[str]) -> None:
    width = 0.84 / len(servers)
    for index, server in enumerate(servers):
        for number, value in enumerate(values(results, panel, server)):
            place = number + (index - (len(servers) - 1) / 2) * width
            if value is None:
                continue
            axes.bar(place, value, width * 0.92, color=_COLOURS[server])
            axes.annotate(_short(value), (place, value), (0, 2), textcoords="offset points", ha="center", fontsize=6.5)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_xticks(range(len(panel.groups)), [group.label for group in panel.groups])
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)


def _short(value: float) -> str:
    """Format a figure briefly enough to fit above a bar: ``124 k``."""
    return f"{value / 1000:.0f} k" if value >= 10_000 else figure_text(value)
