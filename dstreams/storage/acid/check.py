"""Checks shards against the invariants that ``shard`` and ``chunks`` define."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from dstreams.model.state import StreamState
from dstreams.storage import index
from dstreams.storage.acid import chunks
from dstreams.storage.acid.group import home
from dstreams.storage.acid.shard import Shard


def problems(shards: Sequence[Shard]) -> list[str]:
    """Return the problems of shards that are open and idle, one sentence each; empty if there are none."""
    return [f"{shard.path}: {problem}" for shard in shards for problem in _problems_of(shard, len(shards))]


def _problems_of(shard: Shard, shard_count: int) -> Iterator[str]:
    try:
        for (found,) in shard.database.execute("PRAGMA integrity_check"):
            if found != "ok":
                yield str(found)
        states = {state.id: state for state in shard.load()}
        yield from _misplaced(shard.number, states, shard_count)
        yield from _chunks(shard, states)
    except Exception as error:
        yield f"can't be read any further: {error}"


def _misplaced(number: int, states: dict[int, StreamState], shard_count: int) -> Iterator[str]:
    for state in states.values():
        if state.fork is None:
            if home(state.name, shard_count) != number:
                yield f"the stream {state.name!r} belongs into another shard (S2)"
        elif state.fork.source_id not in states:
            yield f"the source of the fork {state.name!r} is missing (S2)"


def _chunks(shard: Shard, states: dict[int, StreamState]) -> Iterator[str]:
    removed = set(shard.removed())
    empty = dict(states)
    for stream_id, rows in groupby(chunks.every(shard.database), key=itemgetter(0)):
        state = empty.pop(stream_id, None)
        if state is not None:
            yield from _stream(state, rows)
        elif stream_id not in removed:
            yield f"there are chunks of stream {stream_id}, which doesn't exist (S4)"
    for state in empty.values():
        if state.tail != state.start or state.messages:
            yield f"the stream {state.name!r} has no chunks, but {state.tail - state.start} bytes (S3)"


def _stream(state: StreamState, rows: Iterator[chunks.Row]) -> Iterator[str]:
    """Yield the problems of one stream's chunks."""
    reached, messages = state.start, 0
    for row in rows:
        _, start, _, packed, data, number, _ = row
        fault = chunks.damage(row)
        if fault is not None:
            yield str(fault)
        if start != reached:
            yield f"the stream {state.name!r} has no chunk from {reached} to {start} (C1)"
        if number != messages:
            yield f"the chunk of stream {state.name!r} at {start} counts {number} messages before it (C3)"
        reached = start + len(data)
        entries = index.unpacked(packed)
        ends = [start, *(entry >> 1 for entry in entries), reached]
        if any(a > b for a, b in pairwise(ends)) or (entries and ends[1] == start):
            yield f"the chunk of stream {state.name!r} at {start} has message ends out of place (C2)"
        messages += len(entries)
    if reached != state.tail or messages != state.messages:
        yield (
            f"the stream {state.name!r} has {messages} messages up to {reached},"
            f" but should have {state.messages} up to {state.tail} (S3)"
        )
