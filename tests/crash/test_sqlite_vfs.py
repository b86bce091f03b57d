"""The simulated SQLite itself."""

from __future__ import annotations

import errno
import gc
import sys
from unittest.mock import patch

from tests.crash.disk import Fault, Mount, Platter
from tests.crash.sqlite_vfs import SimConnection


class SimConnectionTests:
    def test_one_that_nobody_closed_says_nothing_when_it_is_collected(self) -> None:
        """SQLite closes it then, writes, and fails on a full disk, in whatever test happens to run."""
        full = False
        mount = Mount(Platter(), fault=lambda step: Fault(errno.ENOSPC) if full and step.kind == "write" else None)
        mount.make_directories("/store")
        connection = SimConnection(mount, "/store/catalog.db")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE numbers (n)")
        full = True
        unraisable: list[object] = []
        with patch.object(sys, "unraisablehook", unraisable.append):
            del connection
            gc.collect()
        assert unraisable == []
