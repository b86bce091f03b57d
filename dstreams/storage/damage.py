"""Damage in what is stored: bytes that aren't those that were written, or are missing."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.logger import Logger

from dstreams.storage.interface import StorageDamaged

_log = Logger()

MAX_STREAMS: Final = 10_000
"""Of how many damaged streams the places are told apart; those of others count once each time they are read."""


@define(eq=False)
class DamageLog:
    """The damage found since the start, by reads and by scrubs. The first of each stream is logged."""

    places: int = field(default=0, init=False)
    """How many damaged places were found."""
    _known: dict[int, set[str]] = field(factory=dict, init=False)

    @property
    def streams(self) -> int:
        """How many streams have one."""
        return len(self._known)

    def is_known(self, stream_id: int) -> bool:
        """Whether damage of a stream was found; if there are more than are told apart, it is assumed of all."""
        return stream_id in self._known or len(self._known) >= MAX_STREAMS

    def note(self, error: StorageDamaged) -> None:
        """Count a damaged place, and log the first of its stream."""
        known = self._known.get(error.stream_id)
        if known is None:
            _log.error(
                "stored data is damaged: {error}; reads of it fail until the stream is restored from a backup or"
                " deleted. 'durable-streams check' lists all damage",
                error=str(error),
            )
            if len(self._known) < MAX_STREAMS:
                self._known[error.stream_id] = {error.place}
            self.places += 1
        elif error.place not in known:
            if len(known) < MAX_STREAMS:
                known.add(error.place)
            self.places += 1

    def forget(self, stream_id: int) -> None:
        """A stream is deleted, and its damage with it."""
        self._known.pop(stream_id, None)
