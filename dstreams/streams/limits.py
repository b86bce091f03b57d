"""How much may be stored, and how much is."""

from __future__ import annotations

from attrs import define, frozen

from dstreams.model.catalog import Catalog
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import ContentType
from dstreams.protocol.problems import PayloadTooLarge
from dstreams.protocol.producers import Producer
from dstreams.storage.interface import Charges


@frozen
class StoreLimits:
    """Upper bounds, both inclusive.

    :param total_bytes: payload of all streams, plus the storage's fixed charges.
    :param stream_bytes: one stream's own payload; what a fork inherits isn't counted.
    :param fork_depth: how many ancestors a new fork may have: a read may have to look at each of them.
    """

    total_bytes: int = 100 * 1024 * 1024
    stream_bytes: int = 10 * 1024 * 1024
    fork_depth: int = 64


@define(eq=False)
class Usage:
    """The running sum of what all streams cost, accepted changes included.

    Whoever has a change accepted adds its cost to ``used``, and takes it back when the commit fails: without a look
    at every stream, since storage that takes nothing any more must not make each refusal cost that.
    """

    _limits: StoreLimits
    _charges: Charges
    used: int = 0

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
        if producer is not None and charges.producer and state.producer(producer.id) is None:
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

    def recount(self, catalog: Catalog) -> None:
        """Begin with what a catalog holds, after recovery."""
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
        if charges.producer:
            cost += sum(charges.producer + len(producer_id) for producer_id in state.producer_ids())
        return cost
