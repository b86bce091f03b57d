"""Filters log events by namespace and level."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.logger import LogEvent, LogLevel

from dstreams.config.log_filter import LEVELS, LogFilter

_RANK: Final = {word: rank for rank, word in enumerate(LEVELS)}


@define(eq=False)
class LevelFilter:
    """Applies a configured filter, and caches its level for each namespace.

    :param chosen: the value of ``observability.log_filter``.
    """

    _chosen: LogFilter
    _least: dict[str, int] = field(factory=dict, init=False)

    def passes(self, event: LogEvent) -> bool:
        """Whether an event is logged. One without a level counts as ``info``, as in Twisted."""
        level = event.get("log_level")
        return self.logs(event.get("log_namespace") or "", "info" if level is None else level.name)

    def logs(self, namespace: str, level: str) -> bool:
        """Whether events of this namespace and level are logged."""
        least = self._least.get(namespace)
        if least is None:
            least = self._least[namespace] = _RANK[self._chosen.level(namespace)]
        return _RANK[level] >= least


assert {level.name for level in LogLevel.iterconstants()} == {*LEVELS} - {"off"}
