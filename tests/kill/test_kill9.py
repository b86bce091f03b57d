"""A real server is killed again and again under concurrent idempotent producers; nothing acknowledged may be lost."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.kill.workload import Line, Worker, create, verify
from tests.support.servers import twistd_server

KILLS = int(os.environ.get("KILLS", "6"))
"""How often the server is killed; more for a long run."""

STREAMS, PRODUCERS, WORKERS = 12, 4, 8


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["file-fast", "file-durable", "acid"])
def test_kill9(mode: str, tmp_path: Path) -> None:
    """After every kill and restart, each producer's messages are there once, in order, up to the last acknowledged."""
    lines = [Line(f"/v1/stream/s{s}", f"p{s}-{p}") for s in range(STREAMS) for p in range(PRODUCERS)]
    where = {"port": 0}
    enough = threading.Event()
    workers = [Worker(lines[n::WORKERS], lambda: where["port"], enough) for n in range(WORKERS)]
    when = random.Random(mode)
    for life in range(KILLS + 1):
        home = tmp_path / f"life{life}"
        home.mkdir()
        with twistd_server(home, environ=_settings(tmp_path, mode)) as server:
            where["port"] = server.port
            if life == 0:
                create(server.port, lines)
            verify(server.port, lines)
            if life == 0:
                for worker in workers:
                    worker.start()
            if life == KILLS:
                enough.set()
                for worker in workers:
                    worker.join()
                verify(server.port, lines)
                return
            # Real time, on purpose: the kill has to hit the server in the middle of anything.
            time.sleep(when.uniform(0.3, 1.5))
            if enough.is_set():
                break
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
    for worker in workers:
        worker.join()


def _settings(directory: Path, mode: str) -> dict[str, str]:
    """The same data directory for every life, and a checkpoint every few hundred appends."""
    return {
        "DS_STORAGE__MODE": mode,
        "DS_STORAGE__DATA_DIR": str(directory / "data"),
        "DS_STORAGE__CHECKPOINT_BYTES": "100000",
    }
