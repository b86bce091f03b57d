"""What a store must hold after a history of changes: a trivial model, written without the server's own code.

Views are plain values: one per stream, equal exactly when a client could see no difference, and nobody else either.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from attrs import define, field, frozen

from dstreams.model.changes import Append, Change, Create, Delete, SoftDelete, Touch


@frozen
class View:
    """One stream, as it is compared.

    :param content: all stored bytes a reader gets, inherited ones included.
    :param groups: the message ends of every append of the stream's own.
    """

    name: str
    config: tuple[Any, ...]
    fork: tuple[Any, ...] | None
    start: int
    content: bytes
    groups: tuple[tuple[int, ...], ...]
    closed: bool
    closed_by: tuple[str, int, int] | None
    stream_seq: bytes | None
    producers: tuple[tuple[str, int, int], ...]
    soft_deleted: bool
    forks: int
    times: tuple[float, float, float]


@define(eq=False)
class Expected:
    """One stream of the model."""

    create: Create
    data: bytearray
    groups: list[tuple[int, ...]]
    closed: bool
    updated_at: float
    touched_at: float
    closed_by: tuple[str, int, int] | None = None
    stream_seq: bytes | None = None
    producers: dict[str, tuple[int, int]] = field(factory=dict)
    soft_deleted: bool = False

    @property
    def tail(self) -> int:
        return self.create.start + len(self.data)

    def copy(self) -> Expected:
        copied = copy.copy(self)
        copied.data, copied.groups, copied.producers = self.data[:], self.groups[:], dict(self.producers)
        return copied

    def append(self, change: Append) -> None:
        assert change.start == self.tail, "an append was accepted that doesn't begin at the tail"
        self.data += change.data
        if change.ends:
            self.groups.append(tuple(change.ends))
        if change.stream_seq is not None:
            self.stream_seq = change.stream_seq
        producer = change.producer
        if producer is not None:
            self.producers[producer.id] = (producer.epoch, producer.seq)
        if change.closes:
            self.closed = True
            self.closed_by = None if producer is None else (producer.id, producer.epoch, producer.seq)
        self.updated_at = self.touched_at = change.at


@define(eq=False)
class Expectation:
    """All streams of the model, by id."""

    streams: dict[int, Expected] = field(factory=dict)

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        if isinstance(change, Create):
            groups = [tuple(change.ends)] if change.ends else []
            self.streams[change.stream_id] = Expected(
                change, bytearray(change.data), groups, change.closed, change.at, change.at
            )
        elif isinstance(change, Append):
            self.streams[change.stream_id].append(change)
        elif isinstance(change, Delete):
            for stream_id in change.stream_ids:
                del self.streams[stream_id]
        elif isinstance(change, SoftDelete):
            self.streams[change.stream_id].soft_deleted = True
        else:
            assert isinstance(change, Touch)
            stream = self.streams[change.stream_id]
            stream.touched_at = max(stream.touched_at, change.at)

    def copy(self) -> Expectation:
        return Expectation({stream_id: stream.copy() for stream_id, stream in self.streams.items()})

    def content(self, stream_id: int) -> bytes:
        """A stream's bytes from position 0 on."""
        stream = self.streams[stream_id]
        fork = stream.create.fork
        inherited = b"" if fork is None else self.content(fork.source_id)[: fork.position]
        return inherited + stream.data

    def views(self) -> dict[int, View]:
        """Every stream's view, by id."""
        forks = [each.create.fork.source_id for each in self.streams.values() if each.create.fork is not None]
        return {stream_id: self._view(stream_id, forks.count(stream_id)) for stream_id in self.streams}

    def _view(self, stream_id: int, forks: int) -> View:
        stream = self.streams[stream_id]
        create = stream.create
        return View(
            name=create.name,
            config=config_of(create),
            fork=fork_of(create),
            start=create.start,
            content=self.content(stream_id),
            groups=tuple(stream.groups),
            closed=stream.closed,
            closed_by=stream.closed_by,
            stream_seq=stream.stream_seq,
            producers=tuple(sorted((name, *last) for name, last in stream.producers.items())),
            soft_deleted=stream.soft_deleted,
            forks=forks,
            times=(create.at, stream.updated_at, stream.touched_at),
        )


def config_of(stream: Any) -> tuple[Any, ...]:
    """A stream's configuration as plain values."""
    config = stream.config
    return (config.content_type.value, config.content_type.is_json, config.ttl, config.expires_at)


def fork_of(stream: Any) -> tuple[Any, ...] | None:
    """A stream's fork point as plain values."""
    fork = stream.fork
    if fork is None:
        return None
    return (
        fork.source_id, fork.source_name, fork.position, fork.anchor, fork.sub_offset, fork.inherits_expiry,
    )  # fmt: skip


def difference(found: dict[int, View], expected: dict[int, View]) -> str:
    """The first difference between two sets of views, for a person."""
    for stream_id in sorted(found.keys() | expected.keys()):
        one, other = found.get(stream_id), expected.get(stream_id)
        if one is None or other is None:
            known = one or other
            assert known is not None
            return f"stream {stream_id} ({known.name}) is {'missing' if one is None else 'there'}"
        for name in View.__attrs_attrs__:
            mine, theirs = getattr(one, name.name), getattr(other, name.name)
            if isinstance(mine, bytes) and isinstance(theirs, bytes) and mine != theirs:
                same = next((place for place, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), "ones")
                sizes = f"{len(mine)} bytes, not {len(theirs)}"
                return f"stream {stream_id} ({one.name}): {name.name} has {sizes}, the first {same} are right"
            if mine != theirs:
                return f"stream {stream_id} ({one.name}): {name.name} is {mine!r}, not {theirs!r}"
    return "none"
