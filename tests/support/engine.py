"""What the engine's tests share: a server without sockets, storage that waits, and a client's connection.

``Engine`` asks the real application; time stands still until a test advances it. ``DelayedStorage`` commits
when a test says so, or fails. ``FetchingStorage`` lets every read wait. ``FakeSink`` is where a streamed body
goes. A test that uses ``failures`` fails when something goes wrong behind its back.
"""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Callable, Iterator, Sequence

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from dstreams.http.application import StreamApplication
from dstreams.http.context import Context, HttpSettings
from dstreams.http.messages import Body, Frame, Request, Response
from dstreams.model.catalog import Catalog
from dstreams.model.changes import Change
from dstreams.model.state import StreamState
from dstreams.protocol.offsets import format_offset
from dstreams.runtime.pending import Pending, PendingCommit
from dstreams.runtime.progress import Progress
from dstreams.runtime.timers import Clocks, TimerWheel
from dstreams.storage.damage import DamageLog
from dstreams.storage.interface import ByteSource, Charges, FileRange, Storage, StorageError, Verified
from dstreams.storage.memory import MemoryStorage
from dstreams.streams.limits import StoreLimits
from dstreams.streams.streams import Streams

WALL = 1_800_000_000.0
"""What the wall clock shows when a test begins, in Unix seconds; the begin of a cursor interval."""

START = format_offset(0).decode()


def offset(position: int) -> str:
    """A position as clients see it."""
    return format_offset(position).decode()


@define(eq=False)
class FakeSink:
    """A client's connection, as a body sees it (a ``Sink``).

    :param room: how many writes it takes before it is full; ``None``: any number.
    """

    room: int | None = None
    writes: list[bytes] = field(factory=list)
    frames: list[Frame] = field(factory=list)
    finished: bool = False
    aborted: bool = False

    def write(self, data: bytes) -> bool:
        assert not self.finished, "written after the end"
        assert not self.aborted, "written after the cut"
        assert data, "an empty write would end a chunked body"
        self.writes.append(data)
        if self.room is not None:
            self.room -= 1
        return self.room is None or self.room > 0

    sends_files = False

    def send_file(self, part: FileRange) -> int:
        raise AssertionError("it can't")

    def write_frame(self, frame: Frame) -> bool:
        self.frames.append(frame)
        return self.write(frame.data)

    def finish(self) -> None:
        assert not self.finished
        self.finished = True

    def abort(self) -> None:
        assert not self.finished
        self.aborted = True

    @property
    def data(self) -> bytes:
        """Everything written."""
        return b"".join(self.writes)

    def take(self) -> bytes:
        """Everything written since the last time."""
        data = self.data
        self.writes.clear()
        return data


@define(eq=False)
class Reply:
    """The answer to a request, now or later."""

    _outcome: Pending[Response]
    _response: Response | None = field(default=None, init=False)
    _body: bytes | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if isinstance(self._outcome, Deferred):
            self._outcome.addCallbacks(self._arrived, self._broken)
        elif isinstance(self._outcome, PendingCommit):
            assert self._outcome.error_response is not None, "an application's answer that can't be rescued"
            self._outcome.when(self._arrived)
        else:
            self._response = self._outcome

    def _arrived(self, response: Response) -> None:
        self._response = response

    def _broken(self, failure: Failure) -> None:
        pytest.fail(f"an application's Deferred failed: {failure}")

    @property
    def waits(self) -> bool:
        return self._response is None

    @property
    def response(self) -> Response:
        assert self._response is not None, "still waiting"
        return self._response

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> dict[str, str]:
        """The header fields by lower-case name; one that comes twice is a failure, except for the list ``Vary``."""
        lines = self.response.head.decode("latin-1").split("\r\n")
        assert lines.pop() == "", "the head doesn't end with a line end"
        fields: dict[str, str] = {}
        for line in lines:
            name, value = line.split(": ", 1)
            name = name.lower()
            assert name not in fields or name == "vary", "a header field is repeated"
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return fields

    @property
    def body(self) -> bytes:
        """The whole body; a streamed one must come without waiting."""
        if self._body is None:
            body = self.response.body
            self._body = body if isinstance(body, bytes) else _all_of(body)
        return self._body

    @property
    def live(self) -> Body:
        """The body that is streamed."""
        assert not isinstance(self.response.body, bytes)
        return self.response.body

    @property
    def problem(self) -> dict[str, object]:
        """The problem document."""
        assert self.headers["content-type"] == "application/problem+json"
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document

    @property
    def code(self) -> object:
        return self.problem["code"]

    @property
    def next_offset(self) -> str:
        return self.headers["stream-next-offset"]

    def cancel(self) -> None:
        """The client goes away; a change that is under way goes on."""
        if not isinstance(self._outcome, PendingCommit):
            assert isinstance(self._outcome, Deferred)
            self._outcome.cancel()


def _all_of(body: Body) -> bytes:
    sink = FakeSink()
    body.start(sink)
    assert sink.finished, "the body isn't complete"
    assert body.length is None or body.length == len(sink.data)
    return sink.data


@define(eq=False)
class Engine:
    """A server without sockets, clocks or threads.

    :param wall_ahead: the wall clock's lead over the monotonic one.
    """

    storage: Storage = field(factory=MemoryStorage)
    limits: StoreLimits = field(factory=StoreLimits)
    settings: HttpSettings = field(factory=HttpSettings)
    clock: Clock = field(factory=Clock)
    wall_ahead: float = WALL
    streams: Streams = field(init=False)
    context: Context = field(init=False)
    application: StreamApplication = field(init=False)
    wheel: TimerWheel = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.wheel = TimerWheel(self.clock)
        clocks = Clocks(self.clock.seconds, self.wall)
        self.streams = Streams(self.storage, self.wheel, self.limits, clocks)
        self.streams.open()
        self.context = Context(self.streams, self.settings, self.wheel, clocks)
        self.application = StreamApplication(self.context)

    def wall(self) -> float:
        return self.clock.seconds() + self.wall_ahead

    @property
    def used(self) -> int:
        return self.streams.statistics().used_bytes

    def request(self, method: str, name: str, body: bytes | None = b"", query: str = "", **headers: str) -> Request:
        """A request for a stream; header names are written with underscores."""
        return Request(
            method=method.encode(),
            path=self.settings.prefix + name.encode(),
            query=query.encode(),
            headers={name.replace("_", "-").encode(): text.encode("latin-1") for name, text in headers.items()},
            content_length=None if body is None else len(body),
            body=body,
        )

    def ask(self, method: str, name: str, body: bytes = b"", query: str = "", **headers: str) -> Reply:
        return self._ask(method, name, body, query, headers)

    def _ask(self, method: str, name: str, body: bytes, query: str, headers: dict[str, str]) -> Reply:
        return Reply(self.application.respond(self.request(method, name, body, query, **headers)))

    def put(self, name: str, body: bytes = b"", content_type: str = "text/plain", **headers: str) -> Reply:
        return self.ask("PUT", name, body, content_type=content_type, **headers)

    def put_json(self, name: str, body: bytes = b"", **headers: str) -> Reply:
        return self.put(name, body, "application/json", **headers)

    def fork(self, name: str, source: str, body: bytes = b"", **headers: str) -> Reply:
        path = (self.settings.prefix + source.encode()).decode()
        return self._ask("PUT", name, body, "", {"stream_forked_from": path, **headers})

    def post(self, name: str, body: bytes = b"", content_type: str = "text/plain", **headers: str) -> Reply:
        return self._ask("POST", name, body, "", {"content_type": content_type, **headers})

    def post_json(self, name: str, body: bytes = b"", **headers: str) -> Reply:
        return self.post(name, body, "application/json", **headers)

    def produce(self, name: str, producer: str, epoch: int, seq: int, body: bytes = b"x", **more: str) -> Reply:
        numbers = {"producer_epoch": str(epoch), "producer_seq": str(seq)}
        return self.post(name, body, **{"producer_id": producer, **numbers, **more})

    def close(self, name: str, body: bytes = b"", **headers: str) -> Reply:
        return self.post(name, body, **{"stream_closed": "true", **headers})

    def delete(self, name: str) -> Reply:
        return self.ask("DELETE", name)

    def head(self, name: str) -> Reply:
        return self.ask("HEAD", name)

    def get(self, name: str, at: str | None = None, **headers: str) -> Reply:
        return self._ask("GET", name, b"", "" if at is None else f"offset={at}", headers)

    def poll(self, name: str, at: str = "now", cursor: object = None, **headers: str) -> Reply:
        query = f"offset={at}&live=long-poll" + ("" if cursor is None else f"&cursor={cursor}")
        return self._ask("GET", name, b"", query, headers)

    def sse(self, name: str, at: str = "-1", cursor: object = None, **headers: str) -> Reply:
        query = f"offset={at}&live=sse" + ("" if cursor is None else f"&cursor={cursor}")
        return self.ask("GET", name, query=query, **headers)

    def follow(
        self, name: str, at: str = "-1", cursor: object = None, room: int | None = None, **headers: str
    ) -> tuple[Body, FakeSink]:
        """An SSE reader that has been started, and its connection."""
        reply = self.sse(name, at, cursor, **headers)
        assert reply.status == 200
        sink = FakeSink(room)
        reply.live.start(sink)
        return reply.live, sink

    def turn(self) -> None:
        """Let the reactor's next turn come: live readers are woken in it."""
        self.clock.advance(0)

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """Let time go by in steps, as it does for a reactor."""
        steps = int(seconds / step)
        self.clock.pump([step] * steps)
        self.clock.advance(seconds - steps * step)


@define(eq=False)
class FailingStorage(MemoryStorage):
    """Commits at once, or fails at once.

    :param error: what commits raise, ``None`` while they succeed.
    """

    error: Exception | None = None

    def commit(self, changes: Sequence[Change]) -> None:
        if self.error is not None:
            raise self.error
        super().commit(changes)


@define(eq=False)
class DelayedStorage:
    """Commits when it is told to (a ``Storage``). Its bytes are a ``MemoryStorage``'s.

    :param refusal: what ``commit`` raises instead of beginning, ``None`` while it begins.
    :param persistent: whether renewed TTLs are to be committed, too.
    :param groups: every group that was handed over, committed or not.
    :param journal: every change that was committed; another instance can recover from it.
    """

    name: str = field(default="delayed", init=False)
    immediate: bool = field(default=False, init=False)
    charges: Charges = field(factory=lambda: MemoryStorage().charges)
    refusal: Exception | None = None
    persistent: bool = True
    journal: list[Change] = field(factory=list)
    groups: list[tuple[Change, ...]] = field(factory=list, init=False)
    closed: bool = field(default=False, init=False)
    _inner: MemoryStorage = field(factory=MemoryStorage, init=False)
    failure: str | None = field(default=None, init=False)
    damage: DamageLog = field(factory=DamageLog, init=False)
    _under_way: Deferred[None] | None = field(default=None, init=False)

    def open(self, catalog: Catalog, progress: Progress) -> None:
        self._inner.commit(self.journal)
        for change in self.journal:
            catalog.apply(change)

    def next_stream_id(self) -> int:
        return self._inner.next_stream_id()

    def commit(self, changes: Sequence[Change]) -> Deferred[None]:
        assert self._under_way is None, "a group was handed over before the last one was done"
        assert changes, "an empty group"
        if self.refusal is not None:
            raise self.refusal
        self.groups.append(tuple(changes))
        self._under_way = Deferred()
        return self._under_way

    def source(self, state: StreamState) -> ByteSource:
        return self._inner.source(state)

    def scrub(self) -> Iterator[Deferred[Verified]]:
        return self._inner.scrub()

    def close(self) -> None:
        assert self._under_way is None, "closed while a commit is under way"
        self.closed = True

    @property
    def busy(self) -> bool:
        return self._under_way is not None

    def finish(self) -> None:
        """The commit under way succeeds."""
        done, self._under_way = self._under_way, None
        assert done is not None, "no commit is under way"
        self._inner.commit(self.groups[-1])
        self.journal.extend(self.groups[-1])
        done.callback(None)

    def finish_all(self) -> None:
        """The commit under way succeeds, and all that follow."""
        while self._under_way is not None:
            self.finish()

    def fail(self, error: Exception | None = None) -> None:
        """The commit under way fails."""
        done, self._under_way = self._under_way, None
        assert done is not None, "no commit is under way"
        done.errback(error or StorageError("the test's disk is broken"))


@define(eq=False)
class FetchingStorage:
    """Lets every read and every look into an index wait (a ``Storage``).

    :param inner: what commits, and keeps the bytes.
    :param at_once: whether it answers without waiting after all.
    :param failing: whether it fails instead, with ``error``.
    """

    inner: Storage = field(factory=MemoryStorage)
    at_once: bool = False
    failing: bool = False
    error: Exception = field(factory=lambda: StorageError("the test's disk can't be read"))
    fetched: int = 0
    cancelled: int = 0
    name: str = field(default="fetching", init=False)
    immediate: bool = field(init=False)
    persistent: bool = field(init=False)
    charges: Charges = field(init=False)
    _pending: list[Callable[[], None]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.immediate, self.persistent = self.inner.immediate, self.inner.persistent
        self.charges = self.inner.charges

    @property
    def failure(self) -> str | None:
        return self.inner.failure

    @property
    def damage(self) -> DamageLog:
        return self.inner.damage

    def scrub(self) -> Iterator[Deferred[Verified]]:
        return self.inner.scrub()

    def open(self, catalog: Catalog, progress: Progress) -> None:
        self.inner.open(catalog, progress)

    def next_stream_id(self) -> int:
        return self.inner.next_stream_id()

    def commit(self, changes: Sequence[Change]) -> Deferred[None] | None:
        return self.inner.commit(changes)

    def source(self, state: StreamState) -> FetchingSource:
        return FetchingSource(self, self.inner.source(state))

    def close(self) -> Deferred[None] | None:
        return self.inner.close()

    @property
    def waiting(self) -> int:
        return len(self._pending)

    def later(self, look: Callable[[], object]) -> object:
        """The result of ``look`` when it is called for."""
        if self.at_once:
            if self.failing:
                raise self.error
            return look()
        done: Deferred[object] = Deferred(self._cancel)

        def fetch() -> None:
            self.fetched += 1
            if done.called:
                return
            if self.failing:
                done.errback(self.error)
            else:
                done.callback(look())

        self._pending.append(fetch)
        return done

    def fetch(self) -> None:
        """Answer what waits now, in the order of asking."""
        pending, self._pending = self._pending, []
        for fetch in pending:
            fetch()

    def fetch_all(self) -> None:
        """Answer everything, and what is asked for as a consequence."""
        while self._pending:
            self.fetch()

    def _cancel(self, _: Deferred[object]) -> None:
        self.cancelled += 1


@define(eq=False)
class FetchingSource:
    """The bytes of a stream, later (a ``ByteSource``)."""

    _storage: FetchingStorage
    _inner: ByteSource

    def read(self, start: int, end: int) -> Deferred[bytes]:
        return self._storage.later(lambda: self._inner.read(start, end))  # type: ignore[return-value]

    def in_file(self, start: int, end: int) -> FileRange | None:
        return self._inner.in_file(start, end)

    def floor(self, position: int) -> Deferred[int]:
        return self._storage.later(lambda: self._inner.floor(position))  # type: ignore[return-value]

    def extent(self, start: int, limit: int) -> Deferred[int]:
        return self._storage.later(lambda: self._inner.extent(start, limit))  # type: ignore[return-value]

    def append_ends(self, position: int) -> Deferred[Sequence[int]]:
        return self._storage.later(lambda: self._inner.append_ends(position))  # type: ignore[return-value]

    def entries(self, position: int, most: int) -> Deferred[Sequence[int]]:
        return self._storage.later(lambda: self._inner.entries(position, most))  # type: ignore[return-value]


def events(data: bytes) -> list[tuple[str, str]]:
    """The (type, data) of every event, read as a browser reads them (WHATWG HTML section 9.2)."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    assert text == "" or text.endswith("\n\n"), "an event isn't complete"
    found = []
    for block in text.split("\n\n"):
        kind, lines = "message", []
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                lines.append(value)
        if lines:
            found.append((kind, "\n".join(lines)))
    return found


def payloads(data: bytes, encoded: bool = False) -> bytes:
    """The data of all data events, joined."""
    texts = [text for kind, text in events(data) if kind == "data"]
    return b"".join(base64.b64decode(text) if encoded else text.encode() for text in texts)


def controls(data: bytes) -> list[dict[str, object]]:
    """What the control events say."""
    return [json.loads(text) for kind, text in events(data) if kind == "control"]


def cursors(data: bytes) -> list[int]:
    """The cursors of the control events that have one."""
    return [int(str(control["streamCursor"])) for control in controls(data) if "streamCursor" in control]


@pytest.fixture
def failures() -> Iterator[list[str]]:
    """The failures that are logged during a test; one that the test doesn't take out of it is its failure."""
    seen: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            seen.append(failure.getTraceback())

    globalLogPublisher.addObserver(observe)
    yield seen
    gc.collect(1)  # a Deferred that failed unnoticed says so when it is collected
    globalLogPublisher.removeObserver(observe)
    assert seen == []
