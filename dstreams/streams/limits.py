"""How much may be stored, and how much is."""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, frozen

from dstreams.model.catalog import Catalog
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import ContentType
from dstreams.protocol.problems import PayloadTooLarge, TooManyStreams
from dstreams.protocol.producers import Producer
from dstreams.storage.interface import Charges


@frozen
class StoreLimits:
    """Upper bounds, all inclusive.

    :param total_bytes: payload of all streams, plus the storage's fixed charges.
    :param stream_bytes: one stream's own payload; what a fork inherits isn't counted.
    :param fork_depth: how many ancestors a new fork may have: a read may have to look at each of them.
    :param streams: how many streams there may be, soft-deleted ones included.
    :param producers: how many producers one stream may have.
    """

    total_bytes: int = 100 * 1024 * 1024
    stream_bytes: int = 10 * 1024 * 1024
    fork_depth: int = 64
    streams: int = 10_000_000
    producers: int = 1_000_000


@define(eq=False)
class Usage:
    """The running sum of what all streams cost, and their number, accepted changes included.

    Whoever has a change accepted adds its cost to ``used``, and takes it back when the commit fails: without a look
    at every stream, since storage that takes nothing any more must not make each refusal cost that. ``streams`` is
    counted likewise.
    """

    _limits: StoreLimits
    _charges: Charges
    used: int = 0
    streams: int = 0

    def admit_append(
        self, state: StreamState, size: int, messages: int, producer: Producer | None, stream_seq: bytes | None
    ) -> int:
        """Check that an append fits, and say what it costs.

        :param size: stored bytes.
        :param producer: the producer that appends, if it is one.
        :param stream_seq: the new ``Stream-Seq``, which takes the place of the last one.
        :return: the bytes that count as used once the change is accepted.
        :raise PayloadTooLarge:
        """
        charges = self._charges
        if size and state.tail - state.start + size > self._limits.stream_bytes:
            raise self._stream_full(state.size, size)
        cost = size + messages * charges.message
        if producer is not None and producer.seq == 0 and charges.producer and state.producer(producer.id) is None:
            cost += charges.producer + len(producer.id)
        if stream_seq is not None and messages and charges.stream:
            cost += len(stream_seq) - len(state.stream_seq or b"")
        if cost > 0 and self.used + cost > self._limits.total_bytes:
            raise self._full(cost)
        return cost

    def admit_create(self, name: str, content_type: ContentType, size: int, messages: int) -> int:
        """The same for a new stream."""
        if size > self._limits.stream_bytes:
            raise self._stream_full(0, size)
        cost = size + messages * self._charges.message + self._fixed(name, content_type)
        if cost > 0 and self.used + cost > self._limits.total_bytes:
            raise self._full(cost)
        return cost

    def too_many_streams(self) -> TooManyStreams:
        """The refusal of one more stream."""
        return TooManyStreams(f"There are {self.streams} streams; limits.max_streams allows {self._limits.streams}")

    def recount(self, catalog: Catalog) -> None:
        """Begin with what a catalog holds, after recovery."""
        self.streams = len(catalog.streams)
        self.used = sum(self.cost(state) for state in catalog.streams.values())

    def _full(self, cost: int) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"Memory limit exceeded: {cost} more bytes, {self._limits.total_bytes - self.used} left of"
            f" {self._limits.total_bytes} for all streams"
        )

    def _stream_full(self, size: int, more: int) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"Stream size limit exceeded: {size} bytes stored, {more} more, {self._limits.stream_bytes} allowed"
        )

    def _fixed(self, name: str, content_type: ContentType) -> int:
        """What a stream costs before there is anything in it."""
        if not self._charges.stream:
            return 0
        # A character's bytes in UTF-8 are never fewer than those it takes in memory.
        return self._charges.stream + len(name.encode()) + len(content_type.value)

    def cost(self, state: StreamState) -> int:
        """What a stream costs."""
        charges = self._charges
        cost = state.size + state.messages * charges.message
        cost += self._fixed(state.name, state.config.content_type)
        if charges.stream and state.stream_seq is not None:
            cost += len(state.stream_seq)
        if charges.producer and (state.producers or state.base_producers):
            cost += state.producer_count() * charges.producer + state.producer_id_bytes()
        return cost

    def cost_of(
        self,
        name: str,
        content_type: ContentType,
        size: int,
        messages: int,
        stream_seq: bytes | None,
        producer_ids: Collection[str],
    ) -> int:
        """What a stream will cost that has these properties."""
        charges = self._charges
        cost = size + messages * charges.message + self._fixed(name, content_type)
        if charges.stream and stream_seq is not None:
            cost += len(stream_seq)
        if charges.producer:
            cost += len(producer_ids) * charges.producer + sum(map(len, producer_ids))
        return cost
