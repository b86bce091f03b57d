"""Plans an import: which streams it stores, in which order, and what each of them replaces.

These are pure functions of the document and the existing names, and change nothing. All mistakes in a document are
found here, so that storing it can fail only because of the disk or the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import define, field, frozen

from dstreams.storage.index import floor
from dstreams.transfer.errors import InvalidDocument
from dstreams.transfer.records import Origin, Record
from dstreams.transfer.staging import StagedStream, Staging


class OnConflict(Enum):
    """What to do with a stream of the document whose name is in use."""

    SKIP = "skip"
    """Keep the existing stream."""
    FAIL = "fail"
    """Import nothing at all."""
    REPLACE = "replace"
    """Replace the existing stream by the document's, in one step."""


@frozen(eq=False)
class Step:
    """A stream to store.

    :param source: for a fork, the stream of the document whose bytes it shares; it is stored before the fork.
    """

    staged: StagedStream
    source: StagedStream | None = None

    @property
    def record(self) -> Record:
        """The stream's members."""
        return self.staged.record

    @property
    def own_start(self) -> int:
        """The position where its own bytes start: the number of bytes that it shares."""
        origin = self.record.origin
        return origin.position if self.source is not None and origin is not None else 0

    @property
    def own_size(self) -> int:
        """The number of bytes stored for it."""
        return self.staged.size - self.own_start


@define
class Plan:
    """The plan of an import.

    :param steps: the streams to store, each source before its forks.
    :param skipped: the streams to leave out, with the reason.
    """

    steps: list[Step] = field(factory=list)
    skipped: list[tuple[str, str]] = field(factory=list)


def plan(
    streams: Sequence[StagedStream], staging: Staging, taken: frozenset[str], on_conflict: OnConflict, now: float
) -> Plan:
    """Decide what to do with every stream of a document.

    :param taken: those names of the document that are in use.
    :param now: Unix seconds.
    :raise InvalidDocument: if the streams contradict each other, or if names are in use that must not be.
    """
    found = Plan()
    chosen: dict[str, StagedStream] = {}
    problems: list[str] = []
    for staged in streams:
        name = staged.record.name
        if name in taken and on_conflict is OnConflict.SKIP:
            found.skipped.append((name, "existing"))
        elif name in taken and on_conflict is OnConflict.FAIL:
            problems.append(f"stream {name!r} already exists")
        elif _is_over(staged.record, now):
            found.skipped.append((name, "expired"))
        else:
            chosen[name] = staged
    problems += _check_origins(streams, staging)
    if problems:
        raise InvalidDocument(problems)
    found.steps = _sources_first(chosen)
    return found


def _is_over(record: Record, now: float) -> bool:
    """Whether the stream would expire immediately."""
    return record.ttl == 0 or (record.expires_at is not None and record.expires_at <= now)


def _sources_first(chosen: Mapping[str, StagedStream]) -> list[Step]:
    """Order the steps so that each source is stored before its forks."""
    steps: dict[str, Step] = {}
    for staged in chosen.values():
        lineage: list[StagedStream] = []
        following: StagedStream | None = staged
        while following is not None and following.record.name not in steps:
            lineage.append(following)
            following = _source(following, chosen)
        for each in reversed(lineage):
            steps[each.record.name] = Step(each, _source(each, chosen))
    return list(steps.values())


def _source(staged: StagedStream, among: Mapping[str, StagedStream]) -> StagedStream | None:
    origin = staged.record.origin
    return None if origin is None else among.get(origin.source)


def _check_origins(streams: Sequence[StagedStream], staging: Staging) -> list[str]:
    """Return what is wrong with the forks of a document."""
    by_name = {staged.record.name: staged for staged in streams}
    problems = []
    for staged in streams:
        origin = staged.record.origin
        if origin is None:
            continue
        fault = _check_origin(staged, origin, by_name, staging)
        if fault is not None:
            problems.append(f"stream {staged.record.name!r}: it cannot be a fork of {origin.source!r}: {fault}")
    return problems


def _check_origin(
    staged: StagedStream, origin: Origin, by_name: Mapping[str, StagedStream], staging: Staging
) -> str | None:
    source = by_name.get(origin.source)
    if source is None:
        return None  # without its source in the document, it becomes an independent stream with all its bytes
    if _is_circular(staged, by_name):
        return "they are forks of each other"
    if source.record.content_type.media_type != staged.record.content_type.media_type:
        return "their content types differ"
    position = origin.position
    if position > min(source.size, staged.size):
        return f"it starts at {position}, beyond the end of one of them"
    if floor(staging.entries(staged), position, 0) != position:
        return f"it starts at {position}, inside a message"
    if source.record.content_type.is_json and floor(staging.entries(source), position, 0) != position:
        return f"it starts at {position}, inside a message of the source"
    pieces = zip(staging.pieces(source, 0, position), staging.pieces(staged, 0, position), strict=True)
    if any(theirs != ours for theirs, ours in pieces):
        return "their first messages differ"
    return None


def _is_circular(staged: StagedStream, by_name: Mapping[str, StagedStream]) -> bool:
    seen = set()
    following: StagedStream | None = staged
    while following is not None:
        if following.record.name in seen:
            return True
        seen.add(following.record.name)
        following = _source(following, by_name)
    return False
