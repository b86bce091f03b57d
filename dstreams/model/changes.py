"""Changes: the history of a stream is a sequence of them.

A request is validated against a stream's state and converted to one Change. A storage backend commits the Change; then
it is applied to the state and published to waiting readers. Recovery reads committed Changes back and applies them with
the same function. Applying a Change needs no decisions: it already contains positions, message ends and consequences
(which streams a delete removes).

Positions are absolute byte positions in the stream's *stored* bytes; times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define
from msgspec import Struct
from msgspec.structs import force_setattr

from dstreams.protocol.content_types import ContentType
from dstreams.protocol.producers import Producer


class StreamConfig(Struct, frozen=True, gc=False):
    """The properties that a stream gets at creation and keeps (PROTOCOL 5.1).

    There is one for each stream, so Python's garbage collector does not track it; it must never be part of a cycle.

    :param content_type: the type of the stream's messages.
    :param ttl: the sliding time-to-live in seconds, or ``None``.
    :param expires_at: the absolute expiry time in Unix seconds, or ``None``. Never set together with ``ttl``.
    """

    content_type: ContentType
    ttl: int | None = None
    expires_at: float | None = None
    expires: bool = False
    """Whether the stream expires at all; computed, whatever is passed."""

    def __post_init__(self) -> None:
        force_setattr(self, "expires", self.ttl is not None or self.expires_at is not None)


class ForkPoint(Struct, frozen=True, gc=False):
    """Where a fork branches off from its source (PROTOCOL 4.2).

    :param source_id: the id of the source's incarnation.
    :param source_name: the source's name when the fork was created; a repeated PUT is compared by it.
    :param position: the fork inherits the source's bytes below this position; its own bytes start here.
    :param anchor: the requested ``Stream-Fork-Offset``, or ``None`` if there was none.
    :param sub_offset: the requested ``Stream-Fork-Sub-Offset``.
    :param inherits_expiry: whether the request specified neither TTL nor Expires-At.
    """

    source_id: int
    source_name: str
    position: int
    anchor: int | None = None
    sub_offset: int = 0
    inherits_expiry: bool = True

    def same_request(self, other: ForkPoint) -> bool:
        """Whether two PUTs requested the same fork, even if the source's tail was different."""
        return (self.source_name, self.anchor, self.sub_offset, self.inherits_expiry) == (
            other.source_name,
            other.anchor,
            other.sub_offset,
            other.inherits_expiry,
        )


@define(eq=False)
class Create:
    """A stream is created.

    :param stream_id: the id of this incarnation, never used for another one.
    :param data: the initial stored bytes.
    :param ends: the absolute end position of every message in ``data``, ascending: a tuple, or ``ManyEnds``.
    :param closed: whether the stream is closed from the start.
    """

    stream_id: int
    name: str
    config: StreamConfig
    fork: ForkPoint | None
    data: bytes
    ends: Sequence[int]
    closed: bool
    at: float

    @property
    def start(self) -> int:
        """The position of the stream's own first byte."""
        return 0 if self.fork is None else self.fork.position


@define(eq=False)
class Append:
    """Messages are appended, or the stream is closed, or both in one step (PROTOCOL 5.2, 5.3).

    :param start: the tail before this change, where ``data`` starts.
    :param data: the stored bytes; empty if the stream is only closed.
    :param ends: the absolute end position of every message in ``data``, ascending: a tuple, or ``ManyEnds``.
    :param producer: the new state of the idempotent producer, if there is one.
    :param stream_seq: the new ``Stream-Seq``, if the request had one.
    :param closes: whether this change closes the stream.
    """

    stream_id: int
    start: int
    data: bytes
    ends: Sequence[int]
    producer: Producer | None
    stream_seq: bytes | None
    closes: bool
    at: float


@define(eq=False)
class Delete:
    """Streams are removed with their bytes: a deleted one, and the soft-deleted ancestors that existed only for it.

    :param stream_ids: the incarnations that are removed.
    :param released: the sources outside ``stream_ids`` that lose one fork each.
    """

    stream_ids: tuple[int, ...]
    released: tuple[int, ...]
    at: float


@define(eq=False)
class SoftDelete:
    """A stream with forks is deleted: its name stays reserved, and its bytes stay for the forks (PROTOCOL 4.2)."""

    stream_id: int
    at: float


@define(eq=False)
class Touch:
    """A stream's sliding time-to-live is renewed at ``at``. Never on the hot path: see ``streams.expiry``."""

    stream_id: int
    at: float


Change = Create | Append | Delete | SoftDelete | Touch


def concerned(change: Change) -> tuple[int, ...]:
    """Return the ids of the streams whose state a change modifies."""
    if isinstance(change, Create):
        return (change.stream_id,) if change.fork is None else (change.stream_id, change.fork.source_id)
    if isinstance(change, Delete):
        return change.stream_ids + change.released
    return (change.stream_id,)
