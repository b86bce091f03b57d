"""How much may be stored, and how much is."""

from __future__ import annotations

from attrs import define, frozen

from dstreams.model.catalog import Catalog
from dstreams.model.state import StreamState
from dstreams.protocol.problems import PayloadTooLarge
from dstreams.storage.interface import Charges


@frozen
class StoreLimits:
    """Upper bounds, both inclusive.

    :param total_bytes: payload of all streams, plus the storage's fixed charges.
    :param stream_bytes: one stream's own payload; what a fork inherits isn't counted.
    """

    total_bytes: int = 100 * 1024 * 1024
    stream_bytes: int = 10 * 1024 * 1024


@define(eq=False)
class Usage:
    """The running sum of what all streams cost, accepted changes included."""

    _limits: StoreLimits
    _charges: Charges
    used: int = 0

    def admit_append(self, state: StreamState, size: int, messages: int, producer_id: str | None) -> int:
        """Check that an append fits, and say what it costs.

        :param size: stored bytes.
        :param producer_id: the producer's id when it appends for the first time.
        :return: the bytes to :meth:`add` once it is accepted.
        :raise PayloadTooLarge:
        """
        if state.size + size > self._limits.stream_bytes:
            raise self._stream_full(state.size, size)
        cost = size + messages * self._charges.message
        if producer_id is not None and self._charges.producer:
            cost += self._charges.producer + len(producer_id)
        self._admit(cost)
        return cost

    def admit_create(self, name: str, size: int, messages: int) -> int:
        """The same for a new stream."""
        if size > self._limits.stream_bytes:
            raise self._stream_full(0, size)
        cost = size + messages * self._charges.message
        if self._charges.stream:
            cost += self._charges.stream + len(name)
        self._admit(cost)
        return cost

    def admit_length(self, state: StreamState | None, length: int) -> None:
        """Check an announced length alone: that many payload bytes at least would be stored.

        :raise PayloadTooLarge:
        """
        size = 0 if state is None else state.size
        if size + length > self._limits.stream_bytes:
            raise self._stream_full(size, length)
        self._admit(length)

    def add(self, cost: int) -> None:
        """Count an accepted change."""
        self.used += cost

    def release(self, state: StreamState) -> None:
        """Count a stream out."""
        self.used -= self._cost(state)

    def recount(self, catalog: Catalog) -> None:
        """Begin again from what a catalog holds: after recovery, or when accepted changes were lost."""
        self.used = sum(self._cost(state) for state in catalog.streams.values())

    def _admit(self, cost: int) -> None:
        if self.used + cost > self._limits.total_bytes:
            raise PayloadTooLarge(
                f"Memory limit exceeded: {cost} more bytes, {self._limits.total_bytes - self.used} left of"
                f" {self._limits.total_bytes} for all streams"
            )

    def _stream_full(self, size: int, more: int) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"Stream size limit exceeded: {size} bytes stored, {more} more, {self._limits.stream_bytes} allowed"
        )

    def _cost(self, state: StreamState) -> int:
        charges = self._charges
        cost = state.size + state.messages * charges.message
        if charges.stream:
            cost += charges.stream + len(state.name)
        if charges.producer and state.producers:
            cost += sum(charges.producer + len(producer_id) for producer_id in state.producers)
        return cost
