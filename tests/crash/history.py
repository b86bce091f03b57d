"""What was given to a store, what it acknowledged, and which states it may therefore come back with."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from dstreams.model.changes import Change, Create
from tests.crash.expectation import Expectation, View, difference


class Violation(AssertionError):
    """The store broke its promise."""


@define(eq=False)
class History:
    """The batches of one store over all its processes.

    :param durable: whether an acknowledgement promises to survive a power loss, or only a killed process.
    """

    durable: bool
    # The state that even a power loss leaves, and what was accepted after it.
    _base: Expectation = field(factory=Expectation, init=False)
    _batches: list[tuple[Change, ...]] = field(factory=list, init=False)
    # A batch that was refused, and that a crash may bring back until another one is acknowledged.
    _doubtful: tuple[Change, ...] = field(default=(), init=False)
    _acknowledged: int = field(default=0, init=False)
    _floor: int = field(default=0, init=False)
    acknowledged_state: Expectation = field(factory=Expectation, init=False)
    # Ids that a client may have seen.
    seen: set[int] = field(factory=set, init=False)
    total: int = field(default=0, init=False)

    def accept(self, changes: Sequence[Change]) -> None:
        """The store was given a batch."""
        for change in changes:
            if isinstance(change, Create) and change.stream_id in self.seen:
                raise Violation(f"stream id {change.stream_id} is used again")
        self._batches.append(tuple(changes))
        self.total += 1

    def acknowledge(self) -> None:
        """The store said that the oldest unacknowledged batch is kept."""
        changes = self._batches[self._acknowledged]
        self.acknowledged_state.apply(changes)
        self.seen.update(change.stream_id for change in changes if isinstance(change, Create))
        self._acknowledged += 1
        self._doubtful = ()
        if self.durable:
            self._floor = self._acknowledged

    def refuse(self) -> None:
        """The store said that the newest batch is not kept: it must never be seen."""
        assert self._acknowledged < len(self._batches)
        self._batches.pop()

    def doubt(self) -> None:
        """The store said that it can't tell yet whether the newest batch is kept; an earlier one isn't."""
        assert self._acknowledged < len(self._batches)
        self._doubtful = self._batches.pop()

    @property
    def acknowledged(self) -> int:
        """How many batches since the base were acknowledged."""
        return self._acknowledged

    def checkpointed(self, batches: int) -> None:
        """So many batches since the base survive a power loss."""
        self._floor = max(self._floor, batches)

    def recovered(self, found: dict[int, View], *, power_lost: bool) -> int:
        """Check what a recovery found.

        :return: how many of the unacknowledged batches it brought back.
        :raise Violation: when it isn't the state after one of the batches that it may end with.
        """
        first = self._floor if power_lost else self._acknowledged
        state = self._base.copy()
        for changes in self._batches[:first]:
            state.apply(changes)
        for number in range(first, len(self._batches) + 1):
            if number > first:
                state.apply(self._batches[number - 1])
            if state.views() == found:
                self._settle(state, number, power_lost)
                return number - first
        raise Violation(self._describe(found, first))

    def _settle(self, state: Expectation, number: int, power_lost: bool) -> None:
        self._doubtful = ()
        self.acknowledged_state = state.copy()
        self.seen.update(state.streams)
        if power_lost or self.durable:
            # What a recovery showed to readers must stay, and after a power loss nothing un-synced is left.
            self._base, self._batches, self._acknowledged, self._floor = state, [], 0, 0
        else:
            del self._batches[number:]
            self._acknowledged = number

    def _describe(self, found: dict[int, View], first: int) -> str:
        state = self._base.copy()
        for changes in self._batches[:first]:
            state.apply(changes)
        lines = [f"recovery found none of the {len(self._batches) - first + 1} states it may end with"]
        for number in range(first, len(self._batches) + 1):
            if number > first:
                state.apply(self._batches[number - 1])
            lines.append(f"  after batch {number} of {len(self._batches)}: {difference(found, state.views())}")
        return "\n".join(lines)
