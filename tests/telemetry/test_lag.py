"""How late the reactor is."""

from __future__ import annotations

from twisted.internet.task import Clock

from dstreams.telemetry.lag import INTERVAL, ReactorLag


class ReactorLagTests:
    """Measuring lateness."""

    def test_on_time(self) -> None:
        """A reactor that keeps up is counted as no lag, once in every interval."""
        clock = Clock()
        lag = ReactorLag(clock)
        lag.start()
        clock.pump([INTERVAL] * 3)
        assert lag.seconds.counts[0] == 3

    def test_late(self) -> None:
        """A turn that takes long shows as so much lag."""
        clock = Clock()
        lag = ReactorLag(clock)
        lag.start()
        clock.advance(INTERVAL + 0.75)
        assert lag.seconds.total == 0.75
        clock.advance(INTERVAL)
        assert lag.seconds.count == 2
        assert lag.seconds.total == 0.75

    def test_stopped(self) -> None:
        """Nothing is left in the reactor at the end; stopping twice, or without a start, is harmless."""
        clock = Clock()
        lag = ReactorLag(clock)
        lag.stop()
        lag.start()
        lag.stop()
        lag.stop()
        assert not clock.getDelayedCalls()
