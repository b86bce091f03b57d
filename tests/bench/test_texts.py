"""Figures and tables as text."""

from __future__ import annotations

import pytest

from bench.texts import duration_text, figure_text, markdown_table


class TextTests:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (1234567.8, "1,234,568"),
            (100.4, "100"),
            (99.96, "100.0"),
            (12.34, "12.3"),
            (1.005, "1.00"),
            (-500.2, "-500"),
        ],
    )
    def test_digits(self, value: float, text: str) -> None:
        """Figures have about three digits, and all before the point."""
        assert figure_text(value) == text

    def test_durations(self) -> None:
        """Short times are told in seconds, long ones in minutes."""
        assert duration_text(40.4) == "40 s"
        assert duration_text(725) == "12 min"

    def test_alignment(self) -> None:
        """A table is Markdown, and its columns stand below each other."""
        table = markdown_table(["", "rate"], [["append", "1,000"], ["create", "9"]])
        assert table.splitlines() == [
            "|        |  rate |",
            "| ------ | ----: |",
            "| append | 1,000 |",
            "| create |     9 |",
        ]
