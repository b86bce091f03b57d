"""Says loudly when the conformance suite was left out."""

from __future__ import annotations

import pytest

from tests.conformance.suite import missing


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add a banner above the closing line."""
    why = missing()
    if why is not None:
        terminalreporter.section("THE CONFORMANCE SUITE WAS LEFT OUT", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"Nothing was checked against the official suite: {why}.")
