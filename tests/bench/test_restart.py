"""What is made of a restart."""

from __future__ import annotations

from bench.restart import Restart


class RestartTests:
    def test_names(self) -> None:
        """A store with nothing in its streams is told apart from one that holds something."""
        assert Restart(100_000, 10**9).title == "100,000 streams with 1,000 MB"
        assert Restart(1_000_000, 0).title == "1,000,000 streams with nothing in them"
        assert Restart(10, 0).key != Restart(10, 100).key
