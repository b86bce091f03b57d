"""Formats figures and tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def figure_text(value: float) -> str:
    """Format a number with about three significant digits: ``12,345``, ``123``, ``12.3``, ``1.23``."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def duration_text(seconds: float) -> str:
    """Format a duration: ``40 s``, ``12 min``."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns: the first one to the left, figures to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = ["-" * max(3, widths[0]), *(f"{'-' * max(2, width - 1)}:" for width in widths[1:])]
    widths = [len(mark) for mark in rule]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]
        return f"| {' | '.join(aligned)} |"

    return "\n".join([line(head), f"| {' | '.join(rule)} |", *map(line, rows)])
