from __future__ import annotations

from dstreams.runtime.pending import Waiters


class WaitersTests:
    def test_everybody_is_told_once(self) -> None:
        """All who wait are told; who begins to wait because of that waits for the next time."""
        waiters, told = Waiters(), []
        waiters.wait().addCallback(lambda _: told.append("first"))
        waiters.wait().addCallback(lambda _: waiters.wait().addCallback(lambda _: told.append("again")))
        assert told == []
        waiters.notify()
        assert told == ["first"]
        waiters.notify()
        assert told == ["first", "again"]
        waiters.notify()
        assert told == ["first", "again"]
