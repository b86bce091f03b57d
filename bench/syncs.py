"""Counts with perf how many appends share one sync.

perf counts system calls in the kernel (``syscalls:sys_enter_*``) without stopping the process. strace stops it, which
falsifies the result: with strace, one of the peers put 1.3 appends into a sync, without it 17. But perf must be
installed and allowed to count, which usually requires root.

Every kind of sync counts, also of checkpoints and databases. If a server syncs through io_uring or kernel AIO, each
``io_uring_enter`` or ``io_submit`` counts as one sync: this server submits nothing else (libuv does, but only when
connections are opened and closed), and the peers use neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

from bench.load import CELL_BYTES, Requests, drive, validate_head
from bench.servers import running
from bench.workload import SHARED, Figures, LoadFailure, Measure, Run

_CALLS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync", "msync", "io_submit", "io_uring_enter")

_SECONDS = 2
"""Seconds of counting, enough for some thousands of syncs."""


def available() -> bool:
    """Whether perf can count system calls on this machine."""
    if shutil.which("perf") is None:
        return False
    command = ["perf", "stat", "-x;", *_events(), "-p", str(os.getpid()), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "<not supported>" not in done.stderr


def counter(pid: int, log: Path) -> list[str]:
    """Return a command prefix that counts the system calls of process ``pid`` while the prefixed command runs."""
    return ["perf", "stat", "-x;", *_events(), "-p", str(pid), "-o", str(log), "--"]


def _events() -> list[str]:
    return ["-e", ",".join(f"syscalls:sys_enter_{call}" for call in _CALLS)]


def count_syncs(log: str) -> int:
    """Return the number of syncs.

    :param log: the output of perf: ``count;unit;event;...`` in each line, or ``<not counted>`` for none.
    """
    fields = (line.split(";") for line in log.splitlines())
    return sum(int(words[0]) for words in fields if len(words) > 2 and words[0].isdigit())


@frozen
class AppendsPerSync:
    """Appends while counting the server's syncs (a ``Workload``).

    :param load: the appends.
    """

    load: Requests
    modes: tuple[str, ...] = ("file-durable", "acid")
    rounds: int = 1
    group: str = "syncs"
    log_levels: bool = False
    measures: tuple[Measure, ...] = (SHARED,)

    @property
    def key(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        return f"syncs-{self.load.key}"

    @property
    def title(self) -> str:
        """See :class:`~bench.workload.Workload`."""
        return self.load.title

    def estimate(self, warm: int, seconds: int) -> float:  # noqa: ARG002 (the load has its own)
        """See :class:`~bench.workload.Workload`."""
        return self.load.estimate(1, _SECONDS)

    def measure(self, run: Run) -> Figures:
        """Append, and count the syncs.

        :raise LoadFailure: also if there is no sync at all.
        """
        with running(run.target, run.directory) as server:
            self.load.prepare(server, run.step)
            drive(server, self.load, 1, 0, CELL_BYTES)
            run.step("counting")
            log = run.directory / "syncs.log"
            load = drive(server, self.load, _SECONDS, 0, CELL_BYTES, wrapper=counter(server.process.pid, log))
            validate_head(self.load, load, 0.0)
            count = count_syncs(log.read_text())
        if not count:
            raise LoadFailure("it didn't sync at all")
        return {SHARED.key: load.requests / count, "requests": load.requests, "syncs": count}
