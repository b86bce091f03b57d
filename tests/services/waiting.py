"""Waiting for what other processes do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def receive_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for another process to have done something."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it didn't happen within 30 s"
        time.sleep(0.01)
