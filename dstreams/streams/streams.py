"""The engine: look-ups of streams, and the operations on them.

It runs in the reactor's thread only. Validation is synchronous, so requests on a stream are serialized without locks.
An operation returns its result, or a pending one if a commit or a fetch must end first (see ``runtime.pending``). It
raises a ``ProtocolError``, or the pending result fails with one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete, ForkPoint, SoftDelete, Touch, concerned
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import DEFAULT
from dstreams.protocol.json_slices import JsonSlices, Messages
from dstreams.protocol.problems import ForkFromTombstone, Gone, NotFound, ProtocolError, Unavailable
from dstreams.runtime.pending import Pending, PendingCommit, as_deferred
from dstreams.runtime.progress import Progress, silently
from dstreams.runtime.timers import CALLS_PER_TURN, Clocks, TimerWheel, slice_end
from dstreams.storage.interface import Storage
from dstreams.storage.scrub import Scrubber
from dstreams.streams import appending, creating, deleting, reading
from dstreams.streams.appending import SPLIT_AT_ONCE_BYTES, Appended, AppendRequest
from dstreams.streams.commits import Commits
from dstreams.streams.creating import Created, CreateRequest
from dstreams.streams.expiry import Expiry, idle_at_rest
from dstreams.streams.limits import StoreLimits, Usage
from dstreams.streams.listing import Listing, Page
from dstreams.streams.live import Audience, Watcher
from dstreams.streams.reading import Slice
from dstreams.telemetry.histograms import CommitTimes

_log = Logger()
_T = TypeVar("_T")

MAX_ALARM = 86_400.0
"""Maximum seconds until a stream's Expires-At is checked again, because the wall clock may have been set."""

WAKE_TOGETHER = 20
"""Maximum number of one stream's readers that are woken before those of the next stream."""


@frozen
class StreamStatistics:
    """A snapshot of the engine's numbers, for health checks and metrics.

    :param streams: the number of streams, including soft-deleted ones.
    :param streams_limit: the maximum number of streams.
    :param used_bytes: the bytes that count against the total limit.
    :param used_bytes_limit: that limit.
    :param live_readers: the number of waiting long-polls and SSE readers.
    :param readers: the same number by kind.
    :param expired: the number of streams removed since startup because they had expired.
    :param waiting_changes: the number of changes that are accepted but not durable yet.
    :param waiting_bytes: the payload bytes of these changes.
    :param damaged_places: the number of damaged places found in stored data since startup.
    :param damaged_streams: the number of streams with such a place.
    :param scrubbed_bytes: the bytes that scrubs have read since startup.
    :param scrub_pass_bytes: how many of these bytes the newest pass has read.
    :param scrub_passes: the number of complete passes.
    """

    streams: int
    streams_limit: int
    used_bytes: int
    used_bytes_limit: int
    live_readers: int
    readers: Mapping[str, int]
    expired: int
    waiting_changes: int
    waiting_bytes: int
    damaged_places: int
    damaged_streams: int
    scrubbed_bytes: int
    scrub_pass_bytes: int
    scrub_passes: int


@define(eq=False)
class Streams:
    """The engine: all streams, and the operations on them.

    :param wheel: timers for live readers and expiry.
    :param scrub_rate: how many stored bytes are verified each second; 0 for none.
    """

    _storage: Storage
    _wheel: TimerWheel
    _limits: StoreLimits = field(factory=StoreLimits)
    _clocks: Clocks = field(factory=Clocks)
    _scrub_rate: int = 0
    _scrubber: Scrubber = field(init=False)
    _commits: Commits = field(init=False)
    _durable: Catalog = field(init=False)
    _usage: Usage = field(init=False)
    _expiry: Expiry = field(init=False)
    _listing: Listing = field(init=False)
    _expired: int = field(default=0, init=False)
    _audiences: dict[int, Audience] = field(factory=dict, init=False)
    _waking: deque[Audience] = field(factory=deque, init=False)
    """The streams whose readers are being woken or will be, in this order."""
    _wake_is_due: bool = field(default=False, init=False)
    ending: bool = field(default=False, init=False)
    """Whether the server shuts down. Live reads must not start to wait then."""

    def __attrs_post_init__(self) -> None:
        self._usage = Usage(self._limits, self._storage.charges)
        self._commits = Commits(self._storage, self._published, self._lost)
        self._durable = self._commits.durable
        self._expiry = Expiry(
            self._clocks,
            self._wheel,
            self._durable.get,
            self._audiences.__contains__,
            self._expire,
            self._persist_renewals if self._storage.persistent else None,
        )
        self._listing = Listing(self._durable, self._is_shown, self._wheel)
        self._scrubber = Scrubber(self._storage, self._wheel, self._scrub_rate)

    def open(self, progress: Progress = silently) -> None:
        """Open the storage and rebuild the state of all streams from it.

        :param progress: called with the progress of long-running work.
        :raise StorageError: if the storage cannot be opened.
        """
        self._storage.open(self._durable, progress)
        now = self._clocks.wall()
        for state in self._durable.streams.values():
            self._expiry.track(state, idle_at_rest(state, now))
        self._usage.recount(self._durable)
        self._scrubber.start()

    def close(self) -> Deferred[None]:
        """Wait for pending commits, then close the storage."""
        self._expiry.persist_renewals()
        scrubbed = self._scrubber.stop()
        done = as_deferred(self._resting(None))
        done.addErrback(lambda failure: _log.failure("the last commit failed", failure))
        return done.addCallback(lambda _: scrubbed).addCallback(lambda _: self._storage.close())

    @property
    def failure(self) -> str | None:
        """Why nothing can be stored until a restart, or ``None`` if changes can be stored."""
        return self._storage.failure

    def statistics(self) -> StreamStatistics:
        """Return the current numbers."""
        readers = Counter(watcher.kind for audience in self._audiences.values() for watcher in audience.watchers)
        changes, size = self._commits.waiting()
        return StreamStatistics(
            streams=len(self._durable.streams),
            streams_limit=self._limits.streams,
            used_bytes=self._usage.used,
            used_bytes_limit=self._limits.total_bytes,
            live_readers=readers.total(),
            readers=readers,
            expired=self._expired,
            waiting_changes=changes,
            waiting_bytes=size,
            damaged_places=self._storage.damage.places,
            damaged_streams=self._storage.damage.streams,
            scrubbed_bytes=self._scrubber.read_bytes,
            scrub_pass_bytes=self._scrubber.pass_bytes,
            scrub_passes=self._scrubber.passes,
        )

    def time_commits(self, times: CommitTimes) -> None:
        """Count and time commits from now on."""
        self._commits.times = times

    # --- lookups -------------------------------------------------------------------------------------

    def find(self, name: str) -> StreamState:
        """Return the stream of that name as readers see it.

        :raise NotFound: if there is none, or it has expired.
        :raise Gone: if it is deleted or expired but kept for its forks.
        """
        state = self._durable.find(name)
        if state is None:
            raise NotFound(f"Stream not found: {name}")
        return self._existing(state)

    def incarnation(self, stream_id: int) -> StreamState:
        """Return the incarnation of that id as readers see it; raises the same errors as :meth:`find`."""
        state = self._durable.get(stream_id)
        if state is None:
            raise NotFound("The stream has been deleted")
        return self._existing(state)

    def page(self, prefix: str, after: str | None, limit: int) -> Page | Deferred[Page]:
        """Return some of the streams that readers see, ordered by name; see :meth:`Listing.page`."""
        return self._listing.page(prefix, after, limit)

    def _is_shown(self, state: StreamState) -> bool:
        return not state.soft_deleted and not (state.config.expires and self._expiry.is_over(state))

    def _existing(self, state: StreamState) -> StreamState:
        """Return the state, or raise if the stream is deleted or expired. An expired stream is removed if it may be."""
        if state.config.expires and not state.soft_deleted and self._expiry.is_over(state):
            if self._expiry.may_remove(state):
                self._expire(state)
            if state.forks:
                raise Gone("The stream has expired; its name is kept for its forks")
            raise NotFound("The stream has expired")
        if state.soft_deleted:
            raise Gone("The stream was deleted; its name is kept for its forks")
        return state

    def _writable(self, name: str) -> StreamState | None:
        """Return the stream of that name as the next change will find it, or ``None``.

        :raise Unavailable: if the stream has expired but cannot be removed now.
        """
        state = self._commits.accepted.find(name)
        if state is None or state.soft_deleted or not state.config.expires:
            return state
        if not self._expiry.is_over(state):
            return state
        if not self._expiry.may_remove(state):
            raise Unavailable(
                "The stream has expired according to a clock that has been set recently; its name is still in use"
            )
        self._expire(state)
        left = self._commits.accepted.find(name)
        if left is not None and not left.soft_deleted:
            raise Unavailable("The stream has expired and could not be removed yet")
        return left

    def _to_write(self, name: str) -> StreamState:
        state = self._writable(name)
        if state is None:
            raise NotFound(f"Stream not found: {name}")
        if state.soft_deleted:
            raise Gone("The stream was deleted; its name is kept for its forks")
        return state

    # --- operations ----------------------------------------------------------------------------------

    def validate_append_head(self, name: str, request: AppendRequest, length: int | None) -> Appended | None:
        """Validate an append early, while its body is still arriving.

        :param length: the body's length in bytes, or ``None`` if it is unknown until the body has ended.
        :return: the result, or ``None`` if it depends on the body or on a pending commit.
        :raise ProtocolError: if it is rejected.
        """
        if self._commits.under_way is not None:
            return None
        state = self._to_write(name)
        answer = appending.validate_head(state, request, length, self._limits.producers)
        if answer is None and length and not state.config.content_type.is_json:
            self._usage.admit_append(state, length, 1, request.producer, request.stream_seq)
        return answer

    def append(self, name: str, request: AppendRequest, body: bytes) -> Pending[Appended]:
        """Append to a stream, or close it, or both (PROTOCOL 5.2, 5.2.1, 5.3)."""
        if self._commits.under_way is None:
            return self._append(name, request, body)
        # The result may depend on changes that are not durable yet.
        try:
            outcome = self._append(name, request, body)
        except ProtocolError as error:
            return self._refused(error)
        return outcome if isinstance(outcome, PendingCommit | Deferred) else self._resting(outcome)

    def _append(
        self, name: str, request: AppendRequest, body: bytes, messages: Messages | None = None
    ) -> Pending[Appended]:
        state = self._commits.accepted.find(name)
        if state is None or state.soft_deleted or state.config.expires:
            state = self._to_write(name)
        if len(body) > SPLIT_AT_ONCE_BYTES and messages is None and state.config.content_type.is_json:
            known = appending.validate_head(state, request, len(body), self._limits.producers)
            return known or self._split(body, lambda found: self._append(name, request, body, found))
        change = appending.plan(state, request, body, self._clocks.wall(), self._limits.producers, messages)
        if isinstance(change, Appended):
            return change
        size, count, producer = len(change.data), len(change.ends), change.producer
        cost = self._usage.admit_append(state, size, count, producer, change.stream_seq)
        if state.config.expires:
            self._expiry.renew(state)
        return self._commit(Appended(change.start + size, change.closes, producer, count > 0), change, cost)

    def validate_create_head(self, request: CreateRequest) -> Created | None:
        """Validate a create early, while its body is still arriving; as :meth:`validate_append_head`."""
        if self._commits.under_way is not None:
            return None
        existing = self._writable(request.name)
        if existing is not None:
            return creating.match_existing(existing, request)
        if self._usage.streams >= self._limits.streams:
            raise self._usage.too_many_streams()
        if request.fork is not None:
            # Only checks that do not read the source's bytes, because those may have to be fetched.
            creating.check_fork_type(self._fork_source(request.fork.source), request)
        elif request.length:
            content_type = request.content_type or DEFAULT
            if not content_type.is_json:
                self._usage.admit_create(request.name, content_type, request.length, 1)
        return None

    def create(self, request: CreateRequest) -> Pending[Created]:
        """Create a stream or a fork, or return the matching one that exists (PROTOCOL 5.1, 4.2)."""
        return self._durably(lambda: self._create(request))

    def _create(self, request: CreateRequest, messages: Messages | None = None) -> Pending[Created]:
        existing = self._writable(request.name)
        if existing is not None:
            return creating.match_existing(existing, request)
        if self._usage.streams >= self._limits.streams:
            raise self._usage.too_many_streams()
        source = None
        if request.fork is not None:
            source = self._fork_source(request.fork.source)
            creating.check_fork_type(source, request)
        body = request.body or b""
        if len(body) > SPLIT_AT_ONCE_BYTES and messages is None and creating.content_type_of(request, source).is_json:
            return self._split(body, lambda found: self._create(request, found))
        if source is None:
            return self._insert(request, None, None, messages)
        pieces = reading.lineage(self._storage, self._durable, source)
        point = creating.fork_point(source, pieces, request)
        if not isinstance(point, Deferred):
            return self._insert(request, source, point, messages)
        return point.addCallback(
            lambda found: as_deferred(self._durably(lambda: self._create_fork(request, found, messages)))
        )

    def _create_fork(
        self, request: CreateRequest, point: ForkPoint, messages: Messages | None
    ) -> Created | PendingCommit[Created]:
        """Create a fork whose point had to be fetched. Everything is checked again, because it may have changed."""
        existing = self._writable(request.name)
        if existing is not None:
            return creating.match_existing(existing, request)
        if self._usage.streams >= self._limits.streams:
            raise self._usage.too_many_streams()
        source = self._fork_source(point.source_name)
        if source.id != point.source_id:
            raise NotFound(f"Stream not found: {point.source_name}")
        return self._insert(request, source, point, messages)

    def _insert(
        self, request: CreateRequest, source: StreamState | None, point: ForkPoint | None, messages: Messages | None
    ) -> Created | PendingCommit[Created]:
        change = creating.plan(request, self._storage.next_stream_id(), source, point, self._clocks.wall(), messages)
        content_type = change.config.content_type
        size, count = len(change.data), len(change.ends)
        cost = self._usage.admit_create(change.name, content_type, size, count)
        tail = change.start + len(change.data)
        self._usage.streams += 1
        return self._commit(Created(change.name, content_type, tail, change.closed, True), change, cost)

    def _fork_source(self, name: str) -> StreamState:
        """Return a fork's source as readers see it.

        :raise ProtocolError: if the next change will not find it, or a fork of it would have too many ancestors.
        """
        accepted = self._writable(name)
        if accepted is None:
            raise NotFound(f"The fork's source was not found: {name}")
        if accepted.soft_deleted:
            raise ForkFromTombstone("The fork's source was deleted")
        durable = self._durable.get(accepted.id)
        if durable is None:
            raise NotFound(f"The fork's source was not found: {name}")
        creating.check_fork_depth(self._durable, durable, self._limits.fork_depth)
        return durable

    def delete(self, name: str) -> PendingCommit[None] | None:
        """Delete a stream (PROTOCOL 5.4)."""
        deleted = self._durably(lambda: self._delete(self._to_write(name)))
        assert not isinstance(deleted, Deferred)  # nothing has to be fetched for it
        return deleted

    def _delete(self, state: StreamState) -> PendingCommit[None] | None:
        change = deleting.plan(self._commits.accepted, state, self._clocks.wall())
        cost = 0
        if isinstance(change, Delete):
            self._usage.streams -= len(change.stream_ids)
            for stream_id in change.stream_ids:
                removed = self._commits.accepted.get(stream_id)
                assert removed is not None
                cost -= self._usage.cost(removed)
        return self._commit(None, change, cost)

    def _expire(self, state: StreamState) -> None:
        """Delete an expired stream. Responses do not wait for it."""
        accepted = self._commits.accepted.get(state.id)
        if accepted is None or accepted.soft_deleted:
            return  # its deletion is already pending
        if self._storage.failure is not None:
            return  # it would fail, and be logged, at every request for the stream
        try:
            done = self._delete(accepted)
        except ProtocolError:
            _log.failure("an expired stream could not be removed")
            return
        self._expired += 1
        if done is not None:
            done.when(
                lambda _: None, lambda error: _log.error("an expired stream could not be removed: {why}", why=error)
            )

    def _persist_renewals(self, renewed: list[tuple[int, float]]) -> Deferred[None] | None:
        """Commit renewed TTLs. No response depends on it.

        :return: a Deferred that fires when the commit has ended, whether it succeeded or not; ``None`` if it has ended.
        """
        accepted = self._commits.accepted
        touches = [Touch(stream_id, at) for stream_id, at in renewed if accepted.get(stream_id) is not None]
        if touches:
            with suppress(ProtocolError):  # logged by Commits
                commit = self._commits.submit(0, *touches)
                if commit is not None:
                    done: Deferred[None] = Deferred()
                    PendingCommit(None, commit).when(done.callback, lambda _: done.callback(None))
                    return done
        return None

    def read(
        self, state: StreamState, position: int, limit: int, *, on_boundary: bool = False
    ) -> Slice | Deferred[Slice]:
        """Return the messages from ``position`` (PROTOCOL 5.6); see :func:`reading.take`."""
        return reading.take(self._storage, self._durable, state, position, limit, on_boundary=on_boundary)

    def renew(self, state: StreamState) -> None:
        """Restart the stream's TTL, because a client has used it."""
        if state.config.expires:
            self._expiry.renew(state)

    # --- live readers --------------------------------------------------------------------------------

    def watch(self, state: StreamState, watcher: Watcher) -> Audience:
        """Wake ``watcher`` at every change of the stream, until :meth:`unwatch`."""
        audience = self._audiences.get(state.id)
        if audience is None:
            audience = self._audiences[state.id] = Audience()
            self._set_alarm(state, audience)
        audience.watchers.add(watcher)
        return audience

    def unwatch(self, stream_id: int, watcher: Watcher) -> None:
        """Stop waking ``watcher``. Does nothing if it is not watching."""
        audience = self._audiences.get(stream_id)
        if audience is None:
            return
        audience.watchers.discard(watcher)
        if audience.watchers:
            return
        if audience.expiry is not None:
            audience.expiry.cancel()
        del self._audiences[stream_id]
        state = self._durable.get(stream_id)
        if state is not None:
            self._expiry.renew(state)  # the reader has used it until now

    def end_live(self) -> None:
        """End all live readers, in slices. Later ones must not start to wait (see :attr:`ending`)."""
        self.ending = True
        watchers = [watcher for audience in self._audiences.values() for watcher in audience.watchers]
        self._end(watchers)

    def _end(self, watchers: list[Watcher]) -> None:
        over = slice_end()
        for _ in range(min(len(watchers), CALLS_PER_TURN)):
            try:
                watchers.pop().end()
            except Exception:
                _log.failure("ending a live reader failed")
            if over():
                break
        if watchers:
            self._wheel.soon(partial(self._end, watchers))

    def _set_alarm(self, state: StreamState, audience: Audience) -> None:
        """Wake the readers of a stream with an Expires-At when it expires."""
        if state.config.expires_at is None:
            return
        left = state.config.expires_at - self._clocks.wall()

        def ring() -> None:
            if self._expiry.is_over(state):
                self._notify(audience)
            else:
                self._set_alarm(state, audience)

        audience.expiry = self._wheel.call_later(min(max(left, 0.0), MAX_ALARM), ring)

    def _wake(self) -> None:
        """Wake readers of changed streams, as many as one turn allows. Streams are served alternately."""
        waking, left, over = self._waking, CALLS_PER_TURN, None
        while waking:
            audience = waking.popleft()
            if audience.wake(WAKE_TOGETHER):
                waking.append(audience)
            else:
                audience.is_queued = False
            left -= WAKE_TOGETHER
            if waking:  # usually there is only one stream with a few readers, and no time is measured
                over = over or slice_end()
                if left <= 0 or over():
                    break
        self._wake_is_due = bool(waking)
        if waking:
            self._wheel.soon(self._wake)

    # --- commit --------------------------------------------------------------------------------------

    def _durably(self, operation: Callable[[], Pending[_T]]) -> Pending[_T]:
        """Run an operation, and return its outcome as pending if changes that it may depend on are not durable yet."""
        if self._commits.under_way is None:
            return operation()
        try:
            outcome = operation()
        except ProtocolError as error:
            return self._refused(error)
        return outcome if isinstance(outcome, PendingCommit | Deferred) else self._resting(outcome)

    def _split(self, body: bytes, go_on: Callable[[Messages], Pending[_T]]) -> Deferred[_T]:
        """Split a large JSON body in slices, between which other requests are handled, then continue with ``go_on``.

        :param go_on: called with the messages; repeats all look-ups, because the stream may have changed.
        :return: a Deferred that fails with :class:`InvalidJson` if the body is not JSON.
        """
        slices = JsonSlices(body)
        done: Deferred[Any] = self._wheel.in_slices(slices.steps())
        return done.addCallback(lambda _: as_deferred(self._durably(lambda: go_on(slices.messages()))))

    def _refused(self, error: ProtocolError) -> PendingCommit[Any]:
        """Return an error as a pending result that is delivered when everything accepted so far is durable."""
        settled = self._commits.settled()
        if settled is None:
            raise error
        return PendingCommit(None, settled, error)

    def _resting(self, outcome: _T) -> _T | PendingCommit[_T]:
        """Return a result that is pending until everything accepted so far is durable."""
        settled = self._commits.settled()
        return outcome if settled is None else PendingCommit(outcome, settled)

    def _commit(self, result: _T, change: Change, cost: int) -> _T | PendingCommit[_T]:
        self._usage.used += cost
        commit = self._commits.submit(cost, change)
        return result if commit is None else PendingCommit(result, commit)

    def _published(self, changes: Sequence[Change]) -> None:
        """Update expiry and notify live readers, after changes have been committed and applied."""
        audiences = self._audiences
        for change in changes:
            # The hot path: a single look-up if the stream has no live readers.
            if type(change) is not Append:
                self._published_other(change)
            elif change.stream_id in audiences:
                self._notify(audiences[change.stream_id])

    def _published_other(self, change: Change) -> None:
        if isinstance(change, Create):
            state = self._durable.get(change.stream_id)
            if state is not None and state.config.expires:
                self._expiry.track(state)
        elif isinstance(change, Delete):
            for stream_id in change.stream_ids:
                self._expiry.forget(stream_id)
        if isinstance(change, Delete | SoftDelete):
            for stream_id in concerned(change):
                if stream_id in self._audiences:
                    self._notify(self._audiences[stream_id])

    def _notify(self, audience: Audience) -> None:
        """Wake a stream's readers after this turn of the reactor.

        Appends in the same turn, or while the readers are being woken, cause only one wake-up, and the writer's
        response is not delayed by the readers.
        """
        audience.changed = True
        audience.frames, audience.newest = {}, None  # frames formatted earlier lack the new data
        if not audience.is_queued:
            audience.is_queued = True
            self._waking.append(audience)
            if not self._wake_is_due:
                self._wake_is_due = True
                self._wheel.soon(self._wake)

    def _lost(self, cost: int) -> None:
        """Correct the usage after accepted changes have been undone."""
        self._usage.used -= cost
        self._usage.streams = len(self._durable.streams)  # no accepted change is left
