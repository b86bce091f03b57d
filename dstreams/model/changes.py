"""Changes: the resolved facts that a stream's history is made of.

A request is validated against a stream's state and becomes one Change. The Change is committed by a
storage backend, then applied to the state, then published to waiting readers; recovery reads committed
Changes back and applies them with the same function. A Change decides nothing: positions, message ends and
consequences (which streams a delete removes) are already worked out in it.

Positions are absolute byte positions in the stream's *stored* bytes; times are Unix seconds.
"""

from __future__ import annotations

from attrs import define, field, frozen

from dstreams.protocol.content_types import ContentType
from dstreams.protocol.producers import Producer


@frozen
class StreamConfig:
    """What a stream was created with and keeps for life (PROTOCOL 5.1).

    :param content_type: the type of the stream's messages.
    :param ttl: the sliding time-to-live in seconds, or ``None``.
    :param expires_at: the absolute end of life in Unix seconds, or ``None``. Never set together with ``ttl``.
    """

    content_type: ContentType
    ttl: int | None = None
    expires_at: float | None = None
    expires: bool = field(init=False, eq=False, repr=False)
    """Whether the stream ends by itself at all."""

    @expires.default
    def _decide_expires(self) -> bool:
        return self.ttl is not None or self.expires_at is not None


@frozen
class ForkPoint:
    """Where a fork leaves its source (PROTOCOL 4.2).

    :param source_id: the source's incarnation.
    :param source_name: the source's name when the fork was made; an identical PUT names it again.
    :param position: the fork inherits the source's bytes below this position; its own begin here.
    :param anchor: the requested ``Stream-Fork-Offset``, ``None`` when it was left out.
    :param sub_offset: the requested ``Stream-Fork-Sub-Offset``.
    :param inherits_expiry: whether the request gave neither TTL nor Expires-At.
    """

    source_id: int
    source_name: str
    position: int
    anchor: int | None = None
    sub_offset: int = 0
    inherits_expiry: bool = True

    def same_request(self, other: ForkPoint) -> bool:
        """Whether two PUTs asked for the same fork, wherever the source's tail was at the time."""
        return (self.source_name, self.anchor, self.sub_offset, self.inherits_expiry) == (
            other.source_name,
            other.anchor,
            other.sub_offset,
            other.inherits_expiry,
        )


@define(eq=False)
class Create:
    """A stream begins.

    :param stream_id: the number of this incarnation, never used before or again.
    :param data: initial stored bytes.
    :param ends: the absolute end position of every message in ``data``, ascending.
    :param closed: whether it begins closed.
    """

    stream_id: int
    name: str
    config: StreamConfig
    fork: ForkPoint | None
    data: bytes
    ends: tuple[int, ...]
    closed: bool
    at: float

    @property
    def start(self) -> int:
        """The position of the stream's own first byte."""
        return 0 if self.fork is None else self.fork.position


@define(eq=False)
class Append:
    """Messages are added, or the stream is closed, or both in one step (PROTOCOL 5.2, 5.3).

    :param start: the tail before this change: where ``data`` begins.
    :param data: stored bytes; empty for a close alone.
    :param ends: the absolute end position of every message in ``data``, ascending.
    :param producer: the idempotent producer's new state, if it is one.
    :param stream_seq: the new ``Stream-Seq``, if one was given.
    :param closes: whether the stream is closed by this change.
    """

    stream_id: int
    start: int
    data: bytes
    ends: tuple[int, ...]
    producer: Producer | None
    stream_seq: bytes | None
    closes: bool
    at: float


@define(eq=False)
class Delete:
    """Streams end, and their bytes with them: the named one and every soft-deleted ancestor it kept alive.

    :param stream_ids: the incarnations removed.
    :param released: the sources outside ``stream_ids`` that lose one fork each.
    """

    stream_ids: tuple[int, ...]
    released: tuple[int, ...]
    at: float


@define(eq=False)
class SoftDelete:
    """A stream with forks is deleted: its name stays blocked, its bytes stay for the forks (PROTOCOL 4.2)."""

    stream_id: int
    at: float


@define(eq=False)
class Touch:
    """A stream's sliding time-to-live was renewed at ``at``. Never on the hot path: see ``streams.expiry``."""

    stream_id: int
    at: float


Change = Create | Append | Delete | SoftDelete | Touch


def concerned(change: Change) -> tuple[int, ...]:
    """The streams whose state a change alters."""
    if isinstance(change, Create):
        return (change.stream_id,) if change.fork is None else (change.stream_id, change.fork.source_id)
    if isinstance(change, Delete):
        return change.stream_ids + change.released
    return (change.stream_id,)
