"""Compares the rows of streams with each other, and with the changes in the journal.

A row of a catalog is the state of its stream after a certain change. That is the last change below the checkpoint's
position or a later one, because rows are copied while requests are served. The journal still holds some of these
changes, so the row must match the state of the stream after one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import define, field

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete, ForkPoint, SoftDelete, StreamConfig, Touch
from dstreams.model.state import StreamState
from dstreams.protocol.producers import Producer, pack, unpack
from dstreams.storage.files.catalog import Coverage


@define(eq=False)
class RowComparison:
    """Compares the rows of a catalog with the journal.

    :param covered: the batch up to which the rows include all changes, and the one up to which they include some.
    :param streams: the states according to the rows. A state may be modified after the first change of its stream has
        been passed to :meth:`note`.
    """

    _covered: Coverage
    _streams: Mapping[int, StreamState]
    _rows: dict[int, _Row] = field(factory=dict, init=False)
    # Streams in the journal without a row, with a description of the first change of each.
    _missing: dict[int, str] = field(factory=dict, init=False)
    _created: set[int] = field(factory=set, init=False)

    def note(self, sequence: int, change: Change) -> None:
        """Process a change of the journal. Call this in order, before the change is applied to the state.

        :param sequence: the number of its batch.
        """
        if isinstance(change, Delete):
            for stream_id in change.stream_ids:
                self._rows.pop(stream_id, None)
                self._missing.pop(stream_id, None)
            return
        stream_id, is_covered = change.stream_id, sequence < self._covered.position
        row = self._rows.get(stream_id)
        if row is None:
            if stream_id in self._created or stream_id in self._missing:
                return
            state = self._streams.get(stream_id)
            if state is None:
                self._note_missing(sequence, change)
                return
            if sequence >= self._covered.seen:
                return  # the row is older than this change, so replaying the change shows whether they fit
            row = self._rows[stream_id] = _Row(state)
        if sequence < self._covered.seen:
            row.note(sequence, change, is_covered=is_covered)

    def _note_missing(self, sequence: int, change: Append | Create | SoftDelete | Touch) -> None:
        if isinstance(change, Create) and sequence >= self._covered.position:
            self._created.add(change.stream_id)
        else:
            name = f"{change.name!r} " if isinstance(change, Create) else ""
            self._missing[change.stream_id] = f"the stream {name}{change.stream_id} of the journal's batch {sequence}"

    def problems(self) -> Iterator[str]:
        """Return a sentence for each mismatch. Call this after all changes have been passed to :meth:`note`."""
        for what in self._missing.values():
            yield f"{what} has no row in catalog.db"
        for row in self._rows.values():
            yield from row.problems


@define(eq=False)
class _Known:
    """The state of a stream according to the journal; ``None`` where the journal contains no information."""

    sequence: int = 0
    created: Create | None = None
    tail: int | None = None
    updated_at: float | None = None
    touched_at: float = 0.0
    stream_seq: bytes | None = None
    producers: dict[str, int] = field(factory=dict)
    closed: bool = False
    closed_by: Producer | None = None
    soft_deleted: bool = False

    def apply(self, sequence: int, change: Append | Create | SoftDelete | Touch) -> None:
        """Apply a change."""
        self.sequence = sequence
        if isinstance(change, Append):
            self.tail, self.updated_at = change.start + len(change.data), change.at
            self.touched_at = change.at
            self.stream_seq = self.stream_seq if change.stream_seq is None else change.stream_seq
            if change.producer is not None:
                self.producers[change.producer.id] = pack(change.producer.epoch, change.producer.seq)
            if change.closes:
                self.closed, self.closed_by = True, change.producer
        elif isinstance(change, Create):
            self.created, self.tail, self.updated_at = change, change.start + len(change.data), change.at
            self.touched_at, self.closed = change.at, change.closed
        elif isinstance(change, SoftDelete):
            self.soft_deleted = True
        else:
            self.touched_at = max(self.touched_at, change.at)


class _Row:
    """One stream's row, and its changes in the journal.

    :param state: the state according to the row.
    """

    def __init__(self, state: StreamState) -> None:
        self._row, self._producers = state.overlay(), dict(state.producers or {})
        self._known = _Known()
        self._is_first = True
        # Whether the row matches the state of the stream after a change.
        self._fits = False
        self._differences = [f"its tail is {state.tail}, at which no append of the journal ends"]

    @property
    def problems(self) -> list[str]:
        """A sentence for each mismatch."""
        if self._fits:
            return []
        return [f"the row of the stream {self._row.name!r} in catalog.db doesn't fit the journal: {each}"
                for each in self._differences]  # fmt: skip

    def note(self, sequence: int, change: Append | Create | SoftDelete | Touch, *, is_covered: bool) -> None:
        """Process the next change.

        :param is_covered: whether the row must include it.
        """
        if self._is_first and not is_covered and not isinstance(change, Create):
            self._fits = not isinstance(change, Append) or change.start == self._row.tail
        self._is_first = False
        if self._fits and not is_covered:
            return
        self._known.apply(sequence, change)
        self._fits = False
        if self._known.tail in (None, self._row.tail):
            self._differences = list(self._compare())
            self._fits = not self._differences

    def _compare(self) -> Iterator[str]:
        row, known = self._row, self._known
        by = f"by batch {known.sequence}"
        if known.updated_at not in (None, row.updated_at):
            yield f"its last append was at {row.updated_at}, {by} at {known.updated_at}"
        if row.touched_at < known.touched_at:
            yield f"its time-to-live was renewed at {row.touched_at}, {by} at {known.touched_at}"
        if known.stream_seq not in (None, row.stream_seq):
            yield f"its Stream-Seq is {row.stream_seq!r}, {by} {known.stream_seq!r}"
        if known.closed and not row.closed:
            yield f"it is open, {by} closed"
        elif known.closed and known.closed_by != row.closed_by:
            yield f"it was closed by {row.closed_by!r}, {by} by {known.closed_by!r}"
        if known.soft_deleted and not row.soft_deleted:
            yield f"it isn't deleted, {by} it is"
        for producer_id, packed in known.producers.items():
            found = self._producers.get(producer_id)
            if found != packed:
                has = "is missing" if found is None else f"has epoch and number {unpack(found)}"
                yield f"its producer {producer_id!r} {has}, {by} {unpack(packed)}"
        if known.created is not None:
            yield from _compare_creation(row, known.created, by)


def _compare_creation(row: StreamState, created: Create, by: str) -> Iterator[str]:
    said: tuple[tuple[str, object, object], ...] = (
        ("name", row.name, created.name),
        ("time of creation", row.created_at, created.at),
        ("content type", row.config.content_type.value, created.config.content_type.value),
        ("expiry", _expiry(row.config), _expiry(created.config)),
        ("fork point", row.fork, created.fork),
    )
    for what, found, right in said:
        if found != right:
            yield f"its {what} is {found!r}, {by} {right!r}"


def _expiry(config: StreamConfig) -> tuple[int | None, float | None]:
    return config.ttl, config.expires_at


def contradictions(catalog: Catalog) -> Iterator[str]:
    """Return a sentence for each contradiction within or between the states of streams.

    :param catalog: a complete catalog, with the counts of forks. Each of its forks has its source.
    """
    for state in catalog.streams.values():
        if catalog.names.get(state.name) is not state:
            yield f"there are two streams of the name {state.name!r}"
        if state.soft_deleted and not state.forks:
            yield f"the deleted stream {state.name!r} is kept for its forks, but has none"
        if state.config.ttl is not None and state.config.expires_at is not None:
            yield f"the stream {state.name!r} has both a time-to-live and a time of expiry"
        if state.closed_by is not None:
            yield from _closure(state, state.closed_by)
        if state.fork is not None:
            yield from _fork(state, state.fork, catalog.streams[state.fork.source_id])


def _closure(state: StreamState, closed_by: Producer) -> Iterator[str]:
    if not state.closed:
        yield f"the stream {state.name!r} is open, but was closed by producer {closed_by.id!r}"
    known = state.producer(closed_by.id)
    if known is None or known < (closed_by.epoch, closed_by.seq):
        yield (
            f"the stream {state.name!r} was closed by producer {closed_by.id!r} with epoch and number"
            f" {(closed_by.epoch, closed_by.seq)}, but it knows {known} of it"
        )


def _fork(state: StreamState, fork: ForkPoint, source: StreamState) -> Iterator[str]:
    if source.id >= state.id:
        yield f"the fork {state.name!r} is older than its source {source.name!r}"
    if source.name != fork.source_name:
        yield f"the source of the fork {state.name!r} is named {source.name!r}, and should be {fork.source_name!r}"
    if state.start != fork.position or state.tail < state.start:
        yield f"the fork {state.name!r} goes from {state.start} to {state.tail}, but begins at {fork.position}"
