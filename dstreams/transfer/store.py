"""An idle data directory as the destination of an import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from attrs import define, field

from dstreams.config.schema import Storage as StorageKeys
from dstreams.model.catalog import AcceptedCatalog, Catalog
from dstreams.model.changes import Change, Delete
from dstreams.model.state import StreamState
from dstreams.runtime.pending import at_once
from dstreams.runtime.progress import Progress
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid import AcidStorage
from dstreams.storage.files.store import FileStorage
from dstreams.storage.index import count_up_to
from dstreams.storage.interface import Storage, StorageError
from dstreams.storage.sync import ThreadSyncer
from dstreams.streams import deleting
from dstreams.streams.expiry import is_over_at_rest
from dstreams.streams.limits import StoreLimits, Usage
from dstreams.transfer.changes import CommitChanges, producer_ids
from dstreams.transfer.errors import InvalidDocument, TransferError
from dstreams.transfer.planning import Step
from dstreams.transfer.staging import Staging

COMMIT_BYTES: Final = 4 * 1024 * 1024
"""Streams are committed together, with one sync, until they have this many bytes."""

COMMIT_STREAMS: Final = 500

MAX_STEP_BYTES: Final = 900 * 1024 * 1024
"""Maximum bytes of one step, a stream or a family that is replaced, because a commit is in memory as a whole."""


def check_directory(keys: StorageKeys) -> None:
    """Check that the configured storage uses a directory.

    :raise TransferError: if it is in memory.
    """
    if keys.mode == "memory" or (keys.mode == "acid" and keys.acid_backend == "in-memory"):
        raise TransferError(
            "the configured storage is in memory (storage.mode); use --url to go through a running server, or use"
            " --config to select the configuration of the server whose data you mean"
        )


def open_storage(keys: StorageKeys) -> Storage:
    """Create the configured storage, without opening it. It works without a reactor.

    :raise TransferError: if it is in memory.
    """
    check_directory(keys)
    if keys.mode == "acid":
        return AcidStorage(keys.data_dir, keys.acid_shard_count, run_inline)
    make_syncer = (lambda: ThreadSyncer(run_inline)) if keys.mode == "file-durable" else None
    # An import commits few, large groups, for which a spare segment would cost more than it saves.
    return FileStorage(keys.data_dir, make_syncer, run_inline, keys.checkpoint_bytes, spare_after=None)


@define(eq=False)
class Store:
    """The streams of a data directory, which can be added to. It is open during the ``with`` statement.

    :param storage: the storage, not opened yet.
    :param limits: limits on what is stored.
    :param now: Unix seconds.
    :param progress: reports how far the storage has been opened.
    """

    _storage: Storage
    _limits: StoreLimits
    _now: float
    _progress: Progress
    _catalog: Catalog = field(factory=Catalog, init=False)

    def __enter__(self) -> Self:
        self._storage.open(self._catalog, self._progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        at_once(self._storage.close())

    # --- what is there -------------------------------------------------------------------------------

    def taken(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of the names that are in use, by a stream or by a deleted one that is kept for its forks."""
        return frozenset(name for name in names if self._taken(name))

    def _taken(self, name: str) -> bool:
        state = self._catalog.find(name)
        return state is not None and not self._is_free(state)

    def _is_free(self, state: StreamState) -> bool:
        """Whether the server would remove the stream at its next start."""
        return not state.forks and not state.soft_deleted and is_over_at_rest(state, self._now)

    def check(self, steps: Sequence[Step], staging: Staging) -> None:
        """Check that everything can be stored.

        :raise InvalidDocument: if something cannot; it lists all problems, and nothing has been changed.
        """
        problems = self._check_limits(steps, staging) + self._check_forks(steps) + self._check_steps(steps)
        if problems:
            raise InvalidDocument(problems)

    def _check_limits(self, steps: Sequence[Step], staging: Staging) -> list[str]:
        limits = self._limits
        problems = []
        for step in steps:
            name, producers = step.record.name, len(producer_ids(step.record))
            if step.own_size > limits.stream_bytes:
                problems.append(
                    f"stream {name!r} has {step.own_size} bytes; limits.max_stream_bytes allows {limits.stream_bytes}"
                )
            if producers > limits.producers:
                problems.append(
                    f"stream {name!r} has {producers} producers; limits.max_producers allows {limits.producers}"
                )
        usage = Usage(limits, self._storage.charges)
        usage.recount(self._catalog)
        replaced = [state for step in steps if (state := self._catalog.find(step.record.name)) is not None]
        after = usage.used - sum(map(usage.cost, replaced)) + sum(self._cost(usage, step, staging) for step in steps)
        if after > limits.total_bytes and after > usage.used:
            problems.append(
                f"all streams together would have {after} bytes; the configuration allows {limits.total_bytes}"
            )
        streams = usage.streams - len(replaced) + len(steps)
        if streams > limits.streams and streams > usage.streams:
            problems.append(f"there would be {streams} streams; limits.max_streams allows {limits.streams}")
        return problems

    @staticmethod
    def _cost(usage: Usage, step: Step, staging: Staging) -> int:
        """Return what the stream of a step will cost."""
        record = step.record
        messages = step.staged.messages - (
            count_up_to(staging.entries(step.staged), step.own_start) if step.own_start else 0
        )
        return usage.cost_of(
            record.name, record.content_type, step.own_size, messages, record.stream_seq, producer_ids(record)
        )

    def _check_forks(self, steps: Sequence[Step]) -> list[str]:
        """Return the streams that cannot be replaced because a fork of theirs is not replaced with them."""
        names = {step.record.name for step in steps}
        problems: dict[str, None] = {}
        for state in self._catalog.streams.values():
            if state.fork is None or state.name in names or self._is_free(state):
                continue
            source = self._catalog.streams[state.fork.source_id]
            if source.name in names:
                problems[
                    f"stream {source.name!r} cannot be replaced: {state.name!r} is a fork of it and is not in the"
                    " document; delete the fork first, or remove the stream from the document"
                ] = None
        return list(problems)

    def _check_steps(self, steps: Sequence[Step]) -> list[str]:
        """Check that everything stored in one step fits into memory."""
        problems = []
        for family in self._families(steps):
            size = sum(step.own_size for step in family)
            if size > MAX_STEP_BYTES:
                names = ", ".join(repr(step.record.name) for step in family[:3])
                problems.append(
                    f"{names}: {size} bytes would have to be stored in one step; the maximum is {MAX_STEP_BYTES}"
                )
        return problems

    # --- storing -------------------------------------------------------------------------------------

    def store(self, steps: Sequence[Step], staging: Staging, done: Callable[[int], object]) -> None:
        """Store all steps, each stream completely or not at all.

        :param done: called with the number of streams stored so far.
        :raise TransferError: if the storage fails; what was stored before remains.
        """
        stored = 0
        ids: dict[str, int] = {}
        for group in _in_commits(self._families(steps)):
            streams = []
            for step in group:
                ids[step.record.name] = self._storage.next_stream_id()
                source_id = None if step.source is None else ids[step.source.record.name]
                streams.append((step, staging, ids[step.record.name], source_id, self._now))
            self._commit(CommitChanges(self._removals({step.record.name for step in group}), streams))
            stored += len(group)
            done(stored)

    def _removals(self, names: set[str]) -> list[Change]:
        """Return the changes that free the names: they remove the streams that use them, forks before sources."""
        going = {state.id: state for name in names if (state := self._catalog.find(name)) is not None}
        if any(state.forks for state in going.values()):
            for state in sorted(self._catalog.streams.values(), key=lambda each: each.id):
                if state.fork is not None and state.fork.source_id in going:
                    going[state.id] = state  # also replaced, or expired: that has been checked
        after = AcceptedCatalog(self._catalog)
        changes: list[Change] = []
        for stream_id in sorted(going, reverse=True):  # a fork is younger than its source
            found = after.get(stream_id)
            if found is None:
                continue  # it was kept only for a fork that is already removed
            change = deleting.plan(after, found, self._now)
            assert isinstance(change, Delete), "its forks are gone"
            after.apply(change)
            changes.append(change)
        return changes

    def _families(self, steps: Sequence[Step]) -> list[list[Step]]:
        """Group the steps that must be committed together: a stream is replaced together with its forks."""
        names = {step.record.name for step in steps}
        families = {name: {name} for name in names}

        def join(one: str, other: str) -> None:
            if one in names and other in names and families[one] is not families[other]:
                families[one] |= families[other]
                families.update(dict.fromkeys(families[one], families[one]))

        relations = [
            (state.name, self._catalog.streams[state.fork.source_id].name)
            for state in self._catalog.streams.values()
            if state.fork is not None
        ]
        related = any(one in names and other in names for one, other in relations)
        for one, other in relations:
            join(one, other)
        if related:  # otherwise the order of the steps is sufficient
            for step in steps:
                if step.source is not None:
                    join(step.record.name, step.source.record.name)
        found: dict[int, list[Step]] = {}
        for step in steps:
            found.setdefault(id(families[step.record.name]), []).append(step)
        return list(found.values())

    def _commit(self, changes: Sequence[Change]) -> None:
        try:
            at_once(self._storage.commit(changes))
        except StorageError as error:
            raise TransferError(f"storing failed: {error}") from error
        for change in changes:
            self._catalog.apply(change)


def _in_commits(families: Sequence[Sequence[Step]]) -> Iterator[list[Step]]:
    """Yield the steps of each commit."""
    group: list[Step] = []
    size = 0
    for family in families:
        group += family
        size += sum(step.own_size for step in family)
        if size >= COMMIT_BYTES or len(group) >= COMMIT_STREAMS:
            yield group
            group, size = [], 0
    if group:
        yield group
