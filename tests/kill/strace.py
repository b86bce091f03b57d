"""Failing system calls of a real process: strace attaches to it and gives them other results."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

ATTACH_SECONDS = 30


class NotTraceable(Exception):
    """A process can't be traced here; the text says why."""


@contextmanager
def failing(pid: int, calls: str, error: str, when: str = "1+") -> Iterator[None]:
    """Let system calls of a process fail, in all of its threads; they work again afterwards.

    :param calls: their names, separated by commas.
    :param error: ``EIO``, for example.
    :param when: which ones, as strace writes it: ``5+`` is the fifth and all after it, in each thread.
    :raise NotTraceable:
    """
    if shutil.which("strace") is None:
        raise NotTraceable("there is no strace; on Debian: apt-get install strace")
    inject = f"inject={calls}:error={error}:when={when}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            raise NotTraceable(f"strace can't attach to a process: {said.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=ATTACH_SECONDS)


@cache
def obstacle() -> str | None:
    """Why processes can't be traced here, ``None`` where they can."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        with failing(child.pid, "fdatasync", "EIO"):
            return None
    except NotTraceable as error:
        return str(error)
    finally:
        child.kill()
        child.wait()
