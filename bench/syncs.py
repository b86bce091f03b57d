"""How many appends share one sync: the server's system calls, counted by perf.

perf counts in the kernel (``syscalls:sys_enter_*``) and stops nobody. strace does, and falsifies what it
counts: under it, one of the peers put 1.3 appends into a sync, without it 17. The price is that perf must be
there and allowed to count, which usually means root.

Every kind of sync counts, checkpoints and databases included. Where a server syncs through kernel AIO, each
``io_submit`` counts as one sync: ours submits nothing else, and the peers don't use it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field

from bench.load import CELL_BYTES, LoadFailure, Workload, drive
from bench.results import figure_text, markdown_table
from bench.runs import Progress, Schedule, folder, prepare
from bench.servers import StartFailure, Target, running

_CALLS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync", "msync", "io_submit")


def available() -> bool:
    """Whether the calls can be counted on this machine."""
    if shutil.which("perf") is None:
        return False
    command = ["perf", "stat", "-x;", *_events(), "-p", str(os.getpid()), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "<not supported>" not in done.stderr


def counter(pid: int, log: Path) -> list[str]:
    """The command, before another one, that counts a process's calls while that one runs."""
    return ["perf", "stat", "-x;", *_events(), "-p", str(pid), "-o", str(log), "--"]


def _events() -> list[str]:
    return ["-e", ",".join(f"syscalls:sys_enter_{call}" for call in _CALLS)]


def count_syncs(log: str) -> int:
    """How many syncs were asked for.

    :param log: what perf wrote: ``count;unit;event;...`` in each line, or ``<not counted>`` for none.
    """
    fields = (line.split(";") for line in log.splitlines())
    return sum(int(words[0]) for words in fields if len(words) > 2 and words[0].isdigit())


@define(eq=False)
class Shares:
    """How many appends shared one sync, by the keys of workload and target; a text where that isn't known."""

    counted: dict[tuple[str, str], float | str] = field(factory=dict, init=False)

    def table(self, workloads: Sequence[Workload], targets: Sequence[Target]) -> str:
        """A row for each target, a column for each workload."""
        head = ["", *(workload.title for workload in workloads)]
        return markdown_table(
            head, [[target.title, *(self._cell(each, target) for each in workloads)] for target in targets]
        )

    def _cell(self, workload: Workload, target: Target) -> str:
        value = self.counted.get((workload.key, target.key), "-")
        return value if isinstance(value, str) else figure_text(value)

    def as_json(self) -> list[dict[str, object]]:
        """All of it."""
        return [
            {"workload": workload, "target": target, "appends_per_sync": value}
            for (workload, target), value in self.counted.items()
        ]


def count_shares(
    targets: Sequence[Target], workloads: Sequence[Workload], schedule: Schedule, progress: Progress
) -> Shares:
    """Count how many appends share a sync, for every target with every workload."""
    shares = Shares()
    for workload in workloads:
        for target in targets:
            progress.begin(f"appends per sync: {workload.title}: {target.title}")
            try:
                share = _count_share(target, workload, schedule, progress)
            except (StartFailure, LoadFailure) as failure:
                shares.counted[workload.key, target.key] = "void"
                progress.end(f"void: {failure}")
            else:
                shares.counted[workload.key, target.key] = share
                progress.end(share if isinstance(share, str) else f"{figure_text(share)} appends per sync")
    return shares


def _count_share(target: Target, workload: Workload, schedule: Schedule, progress: Progress) -> float | str:
    with folder(schedule.directory) as directory, running(target, directory) as server:
        prepare(server, workload, progress.step)
        drive(server, workload, 1, 0, CELL_BYTES)
        progress.step("counting")
        log = directory / "syncs.log"
        seconds = min(2, schedule.seconds)
        load = drive(server, workload, seconds, 0, CELL_BYTES, wrapper=counter(server.process.pid, log))
        if load.errors:
            return "void"
        count = count_syncs(log.read_text())
        return load.requests / count if count else "no sync"
