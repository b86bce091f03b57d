"""Which events pass the configured filter."""

from __future__ import annotations

import pytest
from twisted.logger import LogLevel

from dstreams.config import parse_log_filter
from dstreams.telemetry.logs import LevelFilter

LEVELS = [level.name for level in LogLevel.iterconstants()]


class LevelFilterTests:
    """A filter applied to events."""

    @pytest.mark.parametrize("chosen", LEVELS)
    @pytest.mark.parametrize("level", LEVELS)
    def test_levels(self, chosen: str, level: str) -> None:
        """What is as severe as the chosen level, or more, is logged."""
        levels = LevelFilter(parse_log_filter(chosen))
        assert levels.logs("any", level) == (LEVELS.index(level) >= LEVELS.index(chosen))

    def test_off(self) -> None:
        """``off`` logs nothing at all."""
        assert not LevelFilter(parse_log_filter("off")).logs("dstreams", "critical")

    def test_targets(self) -> None:
        """A target is about its namespace and all below it; the longest one counts."""
        levels = LevelFilter(parse_log_filter("warn,dstreams=info,dstreams.storage=off,dstreams.storage.acid=debug"))
        assert not levels.logs("twisted.web", "info")
        assert levels.logs("dstreams", "info")
        assert levels.logs("dstreams.streams.commits", "info")
        assert not levels.logs("dstreams.storage.files.store", "critical")
        assert levels.logs("dstreams.storage.acid.shard", "debug")
        assert not levels.logs("dstreamsish", "info")

    def test_events(self) -> None:
        """Events without a level or a namespace count as Twisted counts them: as info of nobody."""
        levels = LevelFilter(parse_log_filter("info"))
        assert levels.passes({})
        assert levels.passes({"log_level": None, "log_namespace": None})
        assert not LevelFilter(parse_log_filter("warn")).passes({})
        assert not levels.passes({"log_level": LogLevel.debug, "log_namespace": "dstreams"})
