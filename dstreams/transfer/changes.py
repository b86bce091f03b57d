"""Converts a staged stream to the changes that create it exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from attrs import define

from dstreams.model.changes import Append, Change, Create, ForkPoint, StreamConfig, Touch
from dstreams.protocol.producers import Producer
from dstreams.storage.index import APPEND_END, count_up_to
from dstreams.transfer.planning import Step
from dstreams.transfer.records import Record
from dstreams.transfer.staging import PIECE_BYTES, Staging


@define(eq=False)
class CommitChanges(Sequence[Change]):
    """The changes of one commit, generated each time they are iterated.

    A storage iterates them two or three times. They are not kept, because a stream of ten million bytes may consist of
    ten million appends, which would take gigabytes as objects.

    :param removals: the changes that come first.
    :param streams: the arguments of :func:`stream_changes` for every stream.
    """

    _removals: Sequence[Change]
    _streams: Sequence[tuple[Step, Staging, int, int | None, float]]

    def __iter__(self) -> Iterator[Change]:
        yield from self._removals
        for arguments in self._streams:
            yield from stream_changes(*arguments)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, number: int) -> Change: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Change]: ...
    def __getitem__(self, number: int | slice) -> Change | Sequence[Change]:
        return list(self)[number]


def stream_changes(step: Step, staging: Staging, stream_id: int, source_id: int | None, now: float) -> Iterator[Change]:
    """Yield the changes that create a stream with everything known about it, to be committed as one group.

    :param stream_id: the id of the new incarnation.
    :param source_id: the id of the stream that it is a fork of, or ``None``.
    :param now: Unix seconds; a TTL starts again at this time.
    """
    record = step.record
    created_at = now if record.created_at is None else record.created_at
    updated_at = created_at if record.updated_at is None else record.updated_at
    begins_closed = record.closed and record.created_closed and record.closed_by is None
    # A stream that is closed from the start never gets appends: all its data came with the request that created it.
    data, ends = _everything(step, staging) if begins_closed else (b"", ())
    config = StreamConfig(record.content_type, record.ttl, record.expires_at)
    point = None if source_id is None else _fork_point(step, source_id)
    yield Create(stream_id, record.name, config, point, data, ends, begins_closed, created_at)
    tail = step.own_start + len(data)
    reached = created_at
    if not begins_closed:
        for data, ends in _appends(step, staging):
            yield Append(stream_id, tail, data, ends, None, None, closes=False, at=updated_at)
            tail += len(data)
            reached = updated_at
    for producer, stream_seq, closes in _state(record, begins_closed):
        yield Append(stream_id, tail, b"", (), producer, stream_seq, closes, updated_at)
        reached = updated_at
    if reached != updated_at:
        yield Append(stream_id, tail, b"", (), None, None, closes=False, at=updated_at)
    if record.ttl is not None:
        yield Touch(stream_id, now)


def producer_ids(record: Record) -> frozenset[str]:
    """Return the ids of all producers that the stream will have."""
    closed_by = () if record.closed_by is None else (record.closed_by.id,)
    return frozenset((*(producer.id for producer in record.producers), *closed_by))


def _state(record: Record, begins_closed: bool) -> Iterator[tuple[Producer | None, bytes | None, bool]]:
    """Yield what appends have left besides messages: producer, Stream-Seq, closure."""
    for producer in record.producers:
        yield producer, None, False
    if record.stream_seq is not None:
        yield None, record.stream_seq, False
    if record.closed and not begins_closed:
        yield record.closed_by, None, True


def _fork_point(step: Step, source_id: int) -> ForkPoint:
    origin = step.record.origin
    assert origin is not None, "a step with a source has an origin"
    return ForkPoint(
        source_id, origin.source, origin.position, origin.anchor, origin.sub_offset, origin.inherits_expiry
    )


def _own_entries(step: Step, staging: Staging) -> Sequence[int]:
    entries = staging.entries(step.staged)
    return entries[count_up_to(entries, step.own_start) :] if step.own_start else entries


def _everything(step: Step, staging: Staging) -> tuple[bytes, tuple[int, ...]]:
    data = staging.read(step.staged, step.own_start, step.staged.size)
    return data, tuple(entry >> 1 for entry in _own_entries(step, staging))


def _appends(step: Step, staging: Staging) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """Yield the stream's own bytes and message ends, append by append."""
    ends: list[int] = []
    start = base = step.own_start
    piece = b""
    for entry in _own_entries(step, staging):
        ends.append(entry >> 1)
        if not entry & APPEND_END:
            continue
        end = ends[-1]
        if end - base > len(piece):
            base, piece = start, staging.read(step.staged, start, min(max(end, start + PIECE_BYTES), step.staged.size))
        yield piece[start - base : end - base], tuple(ends)
        start, ends = end, []
