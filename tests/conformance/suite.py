"""Runs the official conformance suite, which is a Node package, and reads its report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

HERE = Path(__file__).resolve().parent

VITEST = HERE / "node_modules" / "vitest" / "vitest.mjs"

SUITE_SECONDS = 900
"""How long one run may take. It needs one to two minutes, most of them in its own waits."""


@frozen
class Outcome:
    """What the suite found.

    :param passed: the full names of the tests that passed.
    :param failed: the failures, each with its messages.
    :param skipped: the full names of the tests that the suite left out.
    """

    passed: list[str]
    failed: list[str]
    skipped: list[str]


def missing() -> str | None:
    """Why the suite can't be run here, or ``None`` when it can."""
    if shutil.which("node") is None:
        return "Node is not installed"
    if not VITEST.exists():
        return "the suite is not installed: run `make test`, or `npm ci` in tests/conformance"
    return None


def run_suite(url: str, directory: Path, settings: Mapping[str, str] | None = None) -> Outcome:
    """Run the whole suite against a server.

    :param url: the server's origin.
    :param directory: where the report goes.
    :param settings: environment variables for Node and the suite.
    :raise AssertionError: when the suite gave no report.
    """
    report = directory / "report.json"
    finished = subprocess.run(
        ["node", str(VITEST), "run", "--reporter=json", f"--outputFile={report}"],
        cwd=HERE,
        env=os.environ | {"CONFORMANCE_BASE_URL": url} | dict(settings or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=SUITE_SECONDS,
    )
    if not report.exists():
        output = (finished.stdout + finished.stderr).decode(errors="replace")
        raise AssertionError(f"the suite ended with status {finished.returncode} and no report:\n{output}")
    return _read(json.loads(report.read_text()))


def _read(report: dict[str, Any]) -> Outcome:
    tests = [test for file in report["testResults"] for test in file["assertionResults"]]
    failed = [
        f"{test['fullName']}\n    " + "\n".join(test["failureMessages"]).replace("\n", "\n    ")
        for test in tests
        if test["status"] == "failed"
    ]
    # A file that can't even be loaded has no tests, only a message.
    failed += [file["message"] for file in report["testResults"] if file["message"]]
    names = {
        status: [test["fullName"] for test in tests if test["status"] == status]
        for status in ("passed", "skipped", "pending", "todo")
    }
    return Outcome(names["passed"], failed, names["skipped"] + names["pending"] + names["todo"])
