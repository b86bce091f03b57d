"""The reactor on uvloop passes Twisted's own tests of reactors, which run under trial in a process of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT, child_environment

pytest.importorskip("uvloop")

MODULE = Path(__file__).with_name("trial_reactor.py")

AT_LEAST = 275
"""How many tests pass; with Twisted 26.10 there are 278. Fewer mean that some were no longer found."""

SECONDS = 240


@pytest.mark.slow
def test_twisteds_own_tests(tmp_path: Path) -> None:
    """Nothing fails but what is named in ``trial_reactor``, and nothing that is named there passes."""
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "twisted.trial",
            "--reporter=verbose",
            f"--temp-directory={tmp_path / 'trial'}",
            str(MODULE),
        ],
        cwd=ROOT,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    output = finished.stdout + finished.stderr
    summary = output.rstrip().rpartition("\n")[2]
    assert summary.startswith("PASSED"), output
    counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", summary)}
    assert counts["successes"] >= AT_LEAST
    assert counts.get("unexpectedSuccesses", 0) == 0, output
    assert counts["expectedFailures"] == len(named("EXPECTED_FAILURES"))


def named(table: str) -> list[str]:
    """The entries of a table in ``trial_reactor``, which can't be imported here: it replaces Twisted's reactors."""
    _, _, rest = MODULE.read_text().partition(f"{table} = {{\n")
    return re.findall(r'^    "(\w+\.\w+)":', rest.partition("\n}")[0], re.MULTILINE)
