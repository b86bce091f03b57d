"""The state of one stream, without its bytes."""

from __future__ import annotations

from typing import Self

from attrs import define

from dstreams.model.changes import Append, Create, ForkPoint, StreamConfig
from dstreams.protocol.producers import Producer


@define(eq=False)
class StreamState:
    """What validation and answers need to know of a stream.

    :param id: the incarnation's number.
    :param start: the position of the stream's own first byte: where a fork left its source, else 0.
    :param tail: the position after the last byte.
    :param messages: the number of the stream's own messages.
    :param closed_by: the producer tuple that closed the stream, if a producer did.
    :param stream_seq: the last accepted ``Stream-Seq``; its scope is the stream.
    :param producers: (epoch, last sequence number) of every producer, ``None`` before the first.
    :param forks: how many streams have this one as their source. Derived, never stored.
    :param soft_deleted: deleted, but kept for its forks.
    :param removed: no longer there; only states that overlay a catalog are ever seen like this.
    :param pending: accepted changes of this stream that aren't durable yet; see ``AcceptedCatalog``.
    """

    id: int
    name: str
    config: StreamConfig
    fork: ForkPoint | None
    start: int
    tail: int
    messages: int
    created_at: float
    updated_at: float
    touched_at: float
    closed: bool = False
    closed_by: Producer | None = None
    stream_seq: bytes | None = None
    producers: dict[str, tuple[int, int]] | None = None
    base_producers: dict[str, tuple[int, int]] | None = None
    forks: int = 0
    soft_deleted: bool = False
    removed: bool = False
    pending: int = 0

    @classmethod
    def created(cls, change: Create) -> Self:
        """The state that a :class:`Create` begins."""
        return cls(
            id=change.stream_id,
            name=change.name,
            config=change.config,
            fork=change.fork,
            start=change.start,
            tail=change.start + len(change.data),
            messages=len(change.ends),
            created_at=change.at,
            updated_at=change.at,
            touched_at=change.at,
            closed=change.closed,
        )

    @property
    def size(self) -> int:
        """The number of the stream's own stored bytes; inherited ones aren't counted."""
        return self.tail - self.start

    def producer(self, producer_id: str) -> tuple[int, int] | None:
        """(epoch, last sequence number) of a producer, ``None`` for an unknown one."""
        if self.producers is not None and producer_id in self.producers:
            return self.producers[producer_id]
        if self.base_producers is not None:
            return self.base_producers.get(producer_id)
        return None

    def producer_ids(self) -> set[str]:
        """The ids of all producers."""
        return {*(self.base_producers or ()), *(self.producers or ())}

    def append(self, change: Append) -> None:
        """Apply an :class:`Append`."""
        self.tail = change.start + len(change.data)
        self.messages += len(change.ends)
        self.updated_at = self.touched_at = change.at
        if change.stream_seq is not None:
            self.stream_seq = change.stream_seq
        producer = change.producer
        if producer is not None:
            if self.producers is None:
                self.producers = {}
            self.producers[producer.id] = (producer.epoch, producer.seq)
        if change.closes:
            self.closed = True
            self.closed_by = producer

    def overlay(self) -> StreamState:
        """A copy that further changes can be applied to while this state stays as it is.

        Producers aren't copied but looked up here: a stream may have thousands, and an overlay lives for
        the length of one commit.
        """
        # Not copy.copy: that goes through a dictionary, and took 10 of the 46 us of an append to one of a hundred
        # durable streams.
        return StreamState(
            self.id,
            self.name,
            self.config,
            self.fork,
            self.start,
            self.tail,
            self.messages,
            self.created_at,
            self.updated_at,
            self.touched_at,
            closed=self.closed,
            closed_by=self.closed_by,
            stream_seq=self.stream_seq,
            base_producers=self.producers,
            forks=self.forks,
            soft_deleted=self.soft_deleted,
        )
