"""A server that has run out of descriptors."""

from __future__ import annotations

import socket
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.servers import TWISTD, child_server

DESCRIPTORS = 60

_LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""


def processor_seconds(process: int) -> float:
    """What the process has used of a processor so far."""
    import os

    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_out_of_descriptors(tmp_path: Path) -> None:
    """More clients than descriptors: the surplus is closed, nothing spins, and the listener survives."""
    command = [sys.executable, "-c", _LIMITED, str(DESCRIPTORS), str(TWISTD), "--pidfile=", "-n", "durable-streams"]
    with child_server(tmp_path, command, {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port), 30) for _ in range(2 * DESCRIPTORS)]
        closed = 0
        for client in clients:
            client.settimeout(0.01)
            try:
                closed += client.recv(1) == b""
            except TimeoutError:
                pass
            except ConnectionResetError:
                closed += 1
        assert DESCRIPTORS <= closed < 2 * DESCRIPTORS
        used = processor_seconds(server.process.pid)
        time.sleep(1)
        assert processor_seconds(server.process.pid) - used < 0.5
        for client in clients:
            client.close()
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{server.url}/healthz", timeout=30) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
