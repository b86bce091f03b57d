"""Live readers of a stream: long-polls and SSE readers, woken when a change is published (PROTOCOL 5.7, 5.8)."""

from __future__ import annotations

from typing import Protocol

from attrs import define, field
from twisted.logger import Logger

from dstreams.runtime.timers import Timer

_log = Logger()


class Watcher(Protocol):
    """A live reader."""

    @property
    def kind(self) -> str:
        """``long-poll`` or ``sse``, for statistics."""

    def wake(self) -> None:
        """Check the stream again, because it has changed: data was appended, or it was closed or deleted."""

    def end(self) -> None:
        """End the response cleanly and immediately, because the server shuts down."""


@define(eq=False)
class Audience:
    """The live readers of one stream incarnation; exists only while there are any.

    :param frames: the formatted data of the wake-up in progress, by start position, shared by its readers. ``None``
        outside of a wake-up, so that nothing is kept. The values are opaque here; the readers define them.
    :param newest: the last of these values that ends at the tail; ``None`` outside of a wake-up.
    :param changed: whether the stream has changed since the wake-up in progress began, or else since the last one.
    :param is_queued: whether the readers are being woken or queued to be woken.
    :param pending: the readers that the wake-up in progress has not called yet.
    :param expiry: the timer for a stream with an Expires-At.
    """

    watchers: set[Watcher] = field(factory=set)
    frames: dict[int, object] | None = None
    newest: object | None = None
    changed: bool = False
    is_queued: bool = False
    pending: list[Watcher] = field(factory=list)
    expiry: Timer | None = None

    def wake(self, most: int) -> bool:
        """Wake the next readers, at most ``most``; return whether more are left."""
        if not self.pending:
            self.changed = False
            self.pending = list(self.watchers)
        pending, watchers = self.pending, self.watchers
        for _ in range(min(len(pending), most)):
            watcher = pending.pop()
            if watcher in watchers:  # otherwise it has stopped waiting meanwhile
                try:
                    watcher.wake()
                except Exception:
                    _log.failure("waking a live reader failed")
        if pending or self.changed:
            return True
        self.frames = self.newest = None
        return False
