"""The limits on what may be stored, and the current usage."""

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
    """Maximum values, all inclusive.

    :param total_bytes: bytes of payload of all streams, plus the storage's fixed charges.
    :param stream_bytes: bytes of one stream's own payload, without what a fork inherits.
    :param fork_depth: number of ancestors of a new fork. A read may have to access each of them.
    :param streams: number of streams, including soft-deleted ones.
    :param producers: number of producers of one stream.
    """

    total_bytes: int = 100 * 1024 * 1024
    stream_bytes: int = 10 * 1024 * 1024
    fork_depth: int = 64
    streams: int = 10_000_000
    producers: int = 1_000_000


@define(eq=False)
class Usage:
    """The cost of all streams in bytes, and their number. Both include accepted changes.

    The caller adds the cost of an accepted change to ``used``, and subtracts it if the commit fails. So no failed
    commit requires a pass over all streams, which would be too expensive while storage rejects every change.
    ``streams`` is counted in the same way.
    """

    _limits: StoreLimits
    _charges: Charges
    used: int = 0
    streams: int = 0

    def admit_append(
        self, state: StreamState, size: int, messages: int, producer: Producer | None, stream_seq: bytes | None
    ) -> int:
        """Check that an append is within the limits, and return its cost.

        :param size: the number of stored bytes.
        :param producer: the producer, if a producer appends.
        :param stream_seq: the new ``Stream-Seq``, which replaces the last one.
        :return: the bytes to add to ``used`` when the change is accepted.
        :raise PayloadTooLarge: if a limit would be exceeded.
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
        """Check that a new stream is within the limits, and return its cost; as :meth:`admit_append`."""
        if size > self._limits.stream_bytes:
            raise self._stream_full(0, size)
        cost = size + messages * self._charges.message + self._fixed(name, content_type)
        if cost > 0 and self.used + cost > self._limits.total_bytes:
            raise self._full(cost)
        return cost

    def too_many_streams(self) -> TooManyStreams:
        """Return the error for a stream that would exceed the maximum number."""
        return TooManyStreams(f"There are {self.streams} streams; limits.max_streams allows {self._limits.streams}")

    def recount(self, catalog: Catalog) -> None:
        """Recompute both values from a catalog, after recovery."""
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
        """Return the cost of an empty stream in bytes."""
        if not self._charges.stream:
            return 0
        # A character takes at least as many bytes in UTF-8 as in memory.
        return self._charges.stream + len(name.encode()) + len(content_type.value)

    def cost(self, state: StreamState) -> int:
        """Return the cost of a stream in bytes."""
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
        """Return the cost in bytes of a stream that is still to be created with these properties."""
        charges = self._charges
        cost = size + messages * charges.message + self._fixed(name, content_type)
        if charges.stream and stream_seq is not None:
            cost += len(stream_seq)
        if charges.producer:
            cost += len(producer_ids) * charges.producer + sum(map(len, producer_ids))
        return cost
