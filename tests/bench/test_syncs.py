"""Counting syncs."""

from __future__ import annotations

from pathlib import Path

from bench.load import Workload
from bench.servers import Launch, Mode, Server, Target
from bench.syncs import Shares, count_syncs, counter

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


class SharesTests:
    def test_table(self) -> None:
        """Each target has a row; what wasn't counted is a dash, and words stay words."""

        def launch(mode: str, directory: Path) -> Launch:
            raise NotImplementedError

        server = Server("ours", "ours 1.0", "/", (), launch)
        targets = [Target(server, Mode(name, (name,))) for name in ("file-durable", "acid", "other")]
        workload = Workload("append", "append 256 B", 32, 1, 256)
        shares = Shares()
        shares.counted["append", "ours:file-durable"] = 15.26
        shares.counted["append", "ours:acid"] = "no sync"
        assert shares.table([workload], targets).splitlines()[2:] == [
            "| ours 1.0, file-durable |         15.3 |",
            "| ours 1.0, acid         |      no sync |",
            "| ours 1.0, other        |            - |",
        ]
