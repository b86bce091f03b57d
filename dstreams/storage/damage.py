"""Counts and logs damage in stored data: bytes that are missing or differ from those written."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.logger import Logger

from dstreams.storage.interface import StorageDamaged

_log = Logger()

MAX_STREAMS: Final = 10_000
"""Maximum number of damaged streams whose places are remembered, and of places for each of them.

Places beyond these limits count again each time they are read.
"""


@define(eq=False)
class DamageLog:
    """The damage found since the start, by reads and by scrubs. The first place of each stream is logged."""

    places: int = field(default=0, init=False)
    """The number of damaged places found."""
    _known: dict[int, set[str]] = field(factory=dict, init=False)

    @property
    def streams(self) -> int:
        """The number of damaged streams, at most ``MAX_STREAMS``."""
        return len(self._known)

    def is_known(self, stream_id: int) -> bool:
        """Whether damage of a stream was found; if there are more than are told apart, it is assumed of all."""
        return stream_id in self._known or len(self._known) >= MAX_STREAMS

    def note(self, error: StorageDamaged) -> None:
        """Count a damaged place, and log it if it is the first of its stream."""
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
        """Discard the damage of a deleted stream."""
        self._known.pop(stream_id, None)
