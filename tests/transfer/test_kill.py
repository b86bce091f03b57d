"""Imports that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dstreams.transfer.planning import OnConflict
from dstreams.transfer.store import COMMIT_STREAMS
from tests.support.servers import child_environment
from tests.transfer.stores import MODES, document, every_mode, export, import_, payloads, stream

pytestmark = pytest.mark.slow

OLD, NEW = b"old|old", b"new|" * 9 + b"new"

_DYING = """
import signal, sys
from dstreams.cli import main
from dstreams.transfer.store import Store

commit, count = Store._commit, 0

def commit_and_die(self, changes):
    global count
    count += 1
    if count == 3:
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    commit(self, changes)

Store._commit = commit_and_die
sys.exit(main(sys.argv[2:]))
"""
"""Runs a command; the system ends the process, as by ``kill -9``, some time after its third commit has begun."""


class KillTests:
    """A process that ends in the middle of a commit."""

    @every_mode
    @pytest.mark.parametrize("seconds", [0.0001, 0.02])
    def test_replace(self, tmp_path: Path, mode: str, seconds: float) -> None:
        """Each stream is the old one or the new one, whole; the same import again completes it."""
        names = sorted(f"stream {number}" for number in range(6 * COMMIT_STREAMS))
        store = tmp_path / "store"
        import_(document(*(stream(name, *OLD.split(b"|")) for name in names)), MODES[mode](store))
        given = document(*(stream(name, *NEW.split(b"|")) for name in names))
        (tmp_path / "in.json").write_text(json.dumps(given))
        keys = {"DS_STORAGE__MODE": mode, "DS_STORAGE__DATA_DIR": str(store), "DS_STORAGE__ACID_SHARD_COUNT": "4"}
        ended = subprocess.run(
            [sys.executable, "-c", _DYING, str(seconds), "import", "-i", "in.json", "--on-conflict", "replace"],
            cwd=tmp_path,
            env=child_environment(**keys),
            check=False,
        )
        assert ended.returncode == -signal.SIGALRM
        found = payloads(export(store, now=time.time()))
        assert list(found) == names
        assert set(found.values()) == {OLD, NEW}
        import_(given, MODES[mode](store), OnConflict.REPLACE)
        assert set(payloads(export(store, now=time.time())).values()) == {NEW}
