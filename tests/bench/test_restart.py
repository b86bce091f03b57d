"""What is made of the restart's figures."""

from __future__ import annotations

from bench.restart import Restart, Start


class RestartTests:
    def test_idle_stream(self) -> None:
        """A stream's memory is what the store takes beyond an empty one, divided by all streams."""
        empty, killed, stopped = Start(0.5, 60_000_000), Start(3.0, 900_000_000), Start(2.0, 160_000_000)
        found = Restart(100_000, 10**9, 30.0, 10**9, 1.0, empty, killed, stopped)
        assert found.bytes_per_idle_stream == 1000
