"""Who waits for a stream: long-polls and SSE readers, woken by publication (PROTOCOL 5.7, 5.8)."""

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
        """Something about the stream has changed: data, closure, or that it is gone. Look again."""

    def end(self) -> None:
        """The server stops: end cleanly, now."""


@define(eq=False)
class Audience:
    """The live readers of one stream incarnation; exists only while there are any.

    :param frames: what the wake-up in progress has formatted, by where it begins, for the others to share;
        ``None`` outside of one, so that nothing is kept. The readers decide what it is.
    :param newest: of these the last one that leads to the tail; ``None`` outside of a wake-up, too.
    :param changed: whether the stream has changed since the wake-up in progress began, or since the last one.
    :param is_queued: whether the readers are being woken, or will be.
    :param pending: the readers that the wake-up in progress has still to call.
    :param expiry: the alarm for a stream with an Expires-At.
    """

    watchers: set[Watcher] = field(factory=set)
    frames: dict[int, object] | None = None
    newest: object | None = None
    changed: bool = False
    is_queued: bool = False
    pending: list[Watcher] = field(factory=list)
    expiry: Timer | None = None

    def wake(self, most: int) -> bool:
        """Call the next readers, at most ``most``; whether there are more to call."""
        if not self.pending:
            self.changed = False
            self.pending = list(self.watchers)
        pending, watchers = self.pending, self.watchers
        for _ in range(min(len(pending), most)):
            watcher = pending.pop()
            if watcher in watchers:  # else it has left meanwhile
                try:
                    watcher.wake()
                except Exception:
                    _log.failure("waking a live reader failed")
        if pending or self.changed:
            return True
        self.frames = self.newest = None
        return False
