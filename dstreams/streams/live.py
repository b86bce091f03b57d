"""Who waits for a stream: long-polls and SSE readers, woken by publication (PROTOCOL 5.7, 5.8)."""

from __future__ import annotations

from typing import Protocol

from attrs import define, field

from dstreams.timers import Timer


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

    :param frames: what the wake-up under way has formatted, by where it begins, for the others to share;
        ``None`` outside of one, so that nothing large is kept. Whoever formats decides what it is.
    :param newest: of these the last one that leads to the tail; ``None`` outside of a wake-up, too.
    :param expiry: the alarm for a stream with an Expires-At.
    """

    watchers: set[Watcher] = field(factory=set)
    frames: dict[int, object] | None = None
    newest: object | None = None
    expiry: Timer | None = None
