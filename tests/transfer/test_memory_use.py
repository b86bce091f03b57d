"""How much memory exports and imports take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Create, StreamConfig
from dstreams.protocol.content_types import DEFAULT
from dstreams.runtime.pending import at_once
from dstreams.runtime.progress import silently
from dstreams.storage.interface import Storage
from tests.support.servers import child_environment
from tests.transfer.stores import MODES, NOW

pytestmark = pytest.mark.slow

MESSAGE = bytes(range(256)) * 128
STREAMS = 16
STORE_BYTES = 256 * 1024 * 1024

_MEASURED = """
import re, resource, sys
from dstreams.cli import main
status = main(sys.argv[1:])
try:
    with open("/proc/self/status") as file:
        used = int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])
except FileNotFoundError:
    # Less exact: a child's begins with what its parent had when it was started.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(used, file=sys.stderr)
sys.exit(status)
"""
"""Runs a command, and prints the most memory that the process had, in kilobytes."""


def make(storage: Storage, size: int) -> None:
    """Make a store with so many bytes."""
    catalog = Catalog()
    storage.open(catalog, silently)
    for number in range(STREAMS):
        stream_id = storage.next_stream_id()
        create = Create(stream_id, f"s{number}", StreamConfig(DEFAULT), None, b"", (), False, NOW)
        at_once(storage.commit([create]))
        catalog.apply(create)
        for start in range(0, size // STREAMS, len(MESSAGE)):
            append = Append(stream_id, start, MESSAGE, (start + len(MESSAGE),), None, None, False, NOW)
            at_once(storage.commit([append]))
            catalog.apply(append)
    at_once(storage.close())


def run(mode: str, directory: Path, *arguments: str) -> int:
    """Run a command in a process of its own; the most memory that it had, in kilobytes."""
    keys = {
        "DS_STORAGE__MODE": mode,
        "DS_STORAGE__DATA_DIR": str(directory),
        "DS_LIMITS__MAX_STREAM_BYTES": str(1 << 30),
    }
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments],
        env=child_environment(**keys),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    return int(ended.stderr.split()[-1])


class MemoryUseTests:
    """Memory doesn't grow with the store."""

    # Measured: 43 MB, and 87 MB for a store of 1 GiB in 16 databases, which SQLite caches up to 64 MiB of.
    @pytest.mark.parametrize(("mode", "most"), [("file-fast", 72 * 1024), ("acid", 144 * 1024)])
    def test_export(self, tmp_path: Path, mode: str, most: int) -> None:
        """An export of a store with 256 MiB takes far less memory than that."""
        make(MODES[mode](tmp_path), STORE_BYTES)
        assert run(mode, tmp_path, "export") < most

    def test_import(self, tmp_path: Path) -> None:
        """An import takes what its largest stream needs, not what all of them do."""
        document = str(tmp_path / "document.json")
        make(MODES["file-fast"](tmp_path / "store"), STORE_BYTES)
        run("file-fast", tmp_path / "store", "export", "-o", document)
        # Streams of 16 MiB, the journal's 64 MiB that wait for a checkpoint, and what both are copied through.
        assert run("file-fast", tmp_path / "new", "import", "-i", document) < 224 * 1024
