"""Servers as child processes, for tests that need the real thing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from bench.turns import REPORT_VARIABLE
from tests.support.turn_guard import GUARD

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

TWISTD = Path(sys.executable).with_name("twistd")
"""The command of the environment that the tests run in."""

START_SECONDS = 60
"""How long a child may take to listen; on a busy machine imports alone take seconds."""

STOP_SECONDS = 60
"""How long a child may take to stop after SIGTERM."""

_MIND_INTERRUPTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Begins a child: a shell that runs the tests in the background has SIGINT ignored, and children inherit that."""

_LISTENING = re.compile(r"listening on (\S+):(\d+)$", re.MULTILINE)


@frozen
class ChildServer:
    """A server that runs in another process.

    :param log: the file with all that it printed.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its origin: ``http://127.0.0.1:49152``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def secure_url(self) -> str:
        """The same, of a server that speaks TLS."""
        return f"https://127.0.0.1:{self.port}"


def child_environment(**variables: str) -> dict[str, str]:
    """This process's environment without the server's own variables: tests begin from the defaults.

    But for the log, which is JSON unless it is written to a terminal: tests read the text. The turns of its reactor are
    measured.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DS_")}
    ours = {"PYTHONUNBUFFERED": "1", "DS_OBSERVABILITY__LOG_FORMAT": "text"}
    # The path that is measured begins with the checkout, whatever else is installed.
    return environment | ours | GUARD.environment() | variables


def pytest_environment() -> dict[str, str]:
    """The environment of a child that runs tests: it measures its own turns, in the tests that have any."""
    return child_environment(**{REPORT_VARIABLE: ""})


@contextmanager
def twistd_server(
    directory: Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    reactor: str | None = None,
    below: Sequence[str] = (),
) -> Iterator[ChildServer]:
    """``twistd -n durable-streams`` on a port of its own, stopped at the end.

    :param directory: where it runs and leaves its log.
    :param arguments: what follows ``durable-streams``.
    :param environ: variables to set.
    :param reactor: twistd's name of the reactor; the server's own choice when it is ``None``.
    :param below: a command that becomes twistd's.
    """
    chosen = [] if reactor is None else [f"--reactor={reactor}"]
    command = [*below, str(TWISTD), "--pidfile=", "-n", *chosen, "durable-streams", *arguments]
    bind = {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}
    with child_server(directory, command, bind | dict(environ or {})) as server:
        yield server


@contextmanager
def child_server(directory: Path, command: Sequence[str], environ: Mapping[str, str]) -> Iterator[ChildServer]:
    """Any server that prints ``listening on HOST:PORT`` at the end of a line."""
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _MIND_INTERRUPTS, *command],
            cwd=directory,
            env=child_environment(**environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield ChildServer(process, _await_port(process, log), log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not stop:\n{log.read_text()}") from None


def _await_port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        ended = process.poll()
        found = _LISTENING.search(log.read_text(errors="replace"))
        if found is not None:
            return int(found[2])
        if ended is not None:
            raise AssertionError(f"the server ended with status {ended}:\n{log.read_text()}")
        time.sleep(0.02)
    raise AssertionError(f"the server did not listen within {START_SECONDS} s:\n{log.read_text()}")
