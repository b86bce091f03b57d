"""The tests that need a reactor, a second time: on the one on uvloop, in a process of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.servers import ROOT, pytest_environment

pytest.importorskip("uvloop")

MODULES = [
    "tests/http/http1/test_channel_sockets.py",
    "tests/net/test_connections.py",
    "tests/net/random_cases.py",
    "tests/net/uvloop_cases.py",
    "tests/storage/test_sync.py",
    "tests/storage/files/test_store.py",
    "tests/storage/test_acid_threads.py",
]

SECONDS = 300


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_on_uvloop(module: str) -> None:
    """What passes on Twisted's default reactor passes on ours, too."""
    options = ["-p", "tests.net.on_uvloop", "--reactor=asyncio", "-p", "no:cacheprovider", "-q"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *options, module],
        cwd=ROOT,
        env=pytest_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
