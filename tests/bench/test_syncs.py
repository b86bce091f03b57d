"""Counting syncs."""

from __future__ import annotations

from pathlib import Path

from bench.comparison import appends
from bench.servers import dstreams_server
from bench.syncs import AppendsPerSync, count_syncs, counter

_LOG = """# started on Sat Nov 21 17:32:29 2026

2;;syscalls:sys_enter_fsync;0;100.00;;
3929;;syscalls:sys_enter_fdatasync;1000;100.00;;
<not counted>;;syscalls:sys_enter_sync_file_range;0;100.00;;
1;;syscalls:sys_enter_syncfs;1000;100.00;;
"""


class CountSyncsTests:
    def test_sum(self) -> None:
        """All kinds of sync are added up; what was never called counts nothing."""
        assert count_syncs(_LOG) == 3932

    def test_nothing(self) -> None:
        """A process that didn't sync has none."""
        assert count_syncs("# started\n\n<not counted>;;syscalls:sys_enter_fsync;0;100.00;;\n") == 0

    def test_command(self) -> None:
        """The counter watches one process, while the command behind it runs."""
        command = counter(42, Path("/somewhere/log"))
        assert command[command.index("-p") + 1] == "42"
        assert command[command.index("-o") + 1] == "/somewhere/log"
        assert command[-1] == "--"


class AppendsPerSyncTests:
    def test_modes(self) -> None:
        """Syncs are counted where they are promised, under a key of their own."""
        workload = AppendsPerSync(appends(100, 32))
        assert workload.key == "syncs-append-100-c32-s1"
        assert set(workload.modes) == {mode.name for mode in dstreams_server().modes if mode.syncs}
