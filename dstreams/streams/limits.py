"""How much may be stored, and how much is."""

from __future__ import annotations

from collections import deque

from attrs import define, field, frozen

from dstreams.model.catalog import Catalog
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import ContentType
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
    # What each accepted change costs that isn't committed yet, in their order. So a failed commit is undone without
    # a look at every stream: storage that takes nothing any more must not make each refusal cost that.
    _pending: deque[int] = field(factory=deque, init=False)

    def admit_append(
        self, state: StreamState, size: int, messages: int, producer_id: str | None, stream_seq: bytes | None
    ) -> int:
        """Check that an append fits, and say what it costs.

        :param size: stored bytes.
        :param producer_id: the producer's id when it appends for the first time.
        :param stream_seq: the new ``Stream-Seq``, which takes the place of the last one.
        :return: the bytes to :meth:`accept` with the change.
        :raise PayloadTooLarge:
        """
        if size and state.size + size > self._limits.stream_bytes:
            raise self._stream_full(state.size, size)
        cost = size + messages * self._charges.message
        if producer_id is not None and self._charges.producer:
            cost += self._charges.producer + len(producer_id)
        if stream_seq is not None and self._charges.stream:
            cost += len(stream_seq) - len(state.stream_seq or b"")
        self._admit(cost)
        return cost

    def admit_create(self, name: str, content_type: ContentType, size: int, messages: int) -> int:
        """The same for a new stream."""
        if size > self._limits.stream_bytes:
            raise self._stream_full(0, size)
        cost = size + messages * self._charges.message + self._fixed(name, content_type)
        self._admit(cost)
        return cost

    def accept(self, cost: int) -> None:
        """Count a change that is being committed; called for every change, in the order of commits."""
        self.used += cost
        self._pending.append(cost)

    def settle(self) -> None:
        """The oldest change counted has been committed."""
        self._pending.popleft()

    def undo(self) -> None:
        """All changes that weren't committed are lost."""
        self.used -= sum(self._pending)
        self._pending.clear()

    def recount(self, catalog: Catalog) -> None:
        """Begin with what a catalog holds, after recovery."""
        self.used = sum(self.cost(state) for state in catalog.streams.values())

    def _admit(self, cost: int) -> None:
        if cost > 0 and self.used + cost > self._limits.total_bytes:
            raise PayloadTooLarge(
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
