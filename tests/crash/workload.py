"""Random clients of a store on the simulated disk."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dstreams.model.state import StreamState
from dstreams.protocol.content_types import parse_content_type
from dstreams.protocol.problems import ProtocolError
from dstreams.protocol.producers import Producer
from dstreams.runtime.pending import PendingCommit, as_deferred
from dstreams.storage.interface import StorageError
from dstreams.storage.pieces import LARGE_BYTES
from dstreams.streams.appending import Appended, AppendRequest
from dstreams.streams.creating import Created, CreateRequest, ForkRequest
from dstreams.streams.reading import Slice
from tests.crash.history import Violation
from tests.crash.machine import Process

NAMES = ("a", "b/c", "d", "e", "f", "g\u00e9")
TYPES = tuple(map(parse_content_type, (b"application/json", b"text/plain", b"application/octet-stream")))

SIZES = (1, 3, 20, 20, 60, 200, 700, LARGE_BYTES)
"""How long bodies are: mostly short, some longer than a sector, some longer than a segment and never copied."""


@define(eq=False)
class Workload:
    """Sends requests and checks what is answered.

    :param refused: called with what a request was refused for, when it isn't the request's own fault.
    """

    process: Process
    random: Random
    refused: Callable[[BaseException], None] = lambda _: None
    unanswered: int = field(default=0, init=False)
    answered: int = field(default=0, init=False)
    # Slices that slow readers hold, and what they must read.
    _held: list[tuple[Slice, bytes]] = field(factory=list, init=False)
    _counter: int = field(default=0, init=False)

    def step(self) -> None:
        """Do one random thing."""
        kinds = (
            (self.append, 50), (self.create, 12), (self.fork, 6), (self.delete, 5), (self.close, 2),
            (self.touch, 4), (self.wait_a_while, 4), (self.checkpoint, 3), (self.read, 4), (self.read_on, 4),
        )  # fmt: skip
        self.random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]()

    # --- requests ---

    def create(self) -> None:
        ttl = self.random.choice((None, None, None, 5, 500))
        kind = self.random.choice(TYPES)
        body = self._body(kind.is_json) if self.random.random() < 0.6 else b""
        closed = self.random.random() < 0.05
        request = CreateRequest(self._name(), kind, ttl, None, closed, None, len(body), body)
        self._create(request)

    def fork(self) -> None:
        source = self._existing()
        if source is None:
            return
        fork = ForkRequest(source.name, self._anchor(source), self.random.choice((0, 0, 0, 1, 2)))
        ttl = self.random.choice((None, None, 5))
        body = self._body(source.config.content_type.is_json) if self.random.random() < 0.3 else b""
        request = CreateRequest(self._name(), None, ttl, None, False, fork, len(body), body)
        self._create(request)

    def _create(self, request: CreateRequest) -> None:
        ids: list[int] = []

        def create() -> Any:
            answer = self.process.streams.create(request)
            state = self.process.streams._commits.accepted.find(request.name)
            if state is not None:  # else the fork's point is looked up first
                ids.append(state.id)
            return answer

        def check(created: Created) -> None:
            for stream_id in ids:
                self._check_created(stream_id, created)

        self._send(create, check)

    def append(self) -> None:
        state = self._existing()
        if state is None:
            self.create()
            return
        body = self._body(state.config.content_type.is_json)
        self._append(state, body, closes=self.random.random() < 0.02)

    def close(self) -> None:
        state = self._existing()
        if state is not None:
            self._append(state, b"", closes=True)

    def _append(self, state: StreamState, body: bytes, *, closes: bool) -> None:
        kind = state.config.content_type.value.encode()
        request = AppendRequest(kind, closes, self._producer(state), self._stream_seq())
        stream_id = state.id
        self._send(
            lambda: self.process.streams.append(state.name, request, body),
            lambda done: self._check_appended(stream_id, done),
        )

    def delete(self) -> None:
        name = self._name()
        state = self.process.streams._commits.accepted.find(name)
        self._send(lambda: self.process.streams.delete(name), lambda _: self._check_deleted(state))

    def touch(self) -> None:
        """What the engine does in bulk, now and then: keep when a stream was last used."""
        state = self._existing()
        if state is not None:
            self.process.streams._persist_renewals([(state.id, self.process.clock.seconds())])

    def wait_a_while(self) -> None:
        """Time goes by; expired streams are removed."""
        self.process.clock.advance(self.random.choice((0.5, 1.5, 4.0)))

    def checkpoint(self) -> None:
        self.process.store.checkpoint()

    def read(self) -> None:
        """A reader takes a slice; most read it later."""
        states = [each for each in self.process.streams._durable.streams.values() if each.tail]
        if not states:
            return
        state = self.random.choice(states)
        expected = self.process.history.acknowledged_state.content(state.id)
        self._send(
            lambda: self.process.streams.read(state, 0, self.random.choice((1, 100, 1 << 40))),
            lambda found: self._held.append((found, expected)),
        )

    def read_on(self) -> None:
        """A slow reader reads: its bytes don't change, whatever has happened to the stream."""
        if not self._held:
            return
        found, expected = self._held.pop(self.random.randrange(len(self._held)))

        def check(data: bytes) -> None:
            if data != expected[found.start : found.end]:
                raise Violation(f"a read from {found.start} to {found.end} gave other bytes")

        if len(found):
            self._send(lambda: found.read(found.start, found.end), check)

    # --- answers ---

    def send(self, request: Callable[[], Any]) -> None:
        """Send a request whose answer is not looked at."""
        self._send(request, lambda _: None)

    def _send(self, request: Callable[[], Any], check: Callable[[Any], object]) -> None:
        """Send a request; ``check`` sees its result."""
        try:
            answer = request()
        except (ProtocolError, StorageError) as error:
            self._failed(error)
            return
        if not isinstance(answer, PendingCommit | Deferred):
            self._succeeded(answer, check)
            return
        self.unanswered += 1
        problems = self.process.problems

        def over(result: Any) -> None:
            self.unanswered -= 1
            try:
                if isinstance(result, Failure):
                    self._failed(result.value)
                else:
                    self._succeeded(result, check)
            except Violation as violation:
                problems.append(violation)

        as_deferred(answer).addBoth(over)

    def _succeeded(self, result: Any, check: Callable[[Any], object]) -> None:
        self.answered += 1
        if not self.process.mount.off:
            check(result)

    def _failed(self, error: BaseException | None) -> None:
        assert error is not None
        if self.process.mount.off:
            return
        if isinstance(error, ProtocolError) and error.status < 500:
            return
        if not isinstance(error, ProtocolError | StorageError):
            raise error
        self.refused(error)

    def _check_created(self, stream_id: int, created: Created) -> None:
        history = self.process.history
        stream = history.acknowledged_state.streams.get(stream_id)
        if stream_id not in history.seen or (stream is not None and stream.tail < created.tail):
            raise Violation(f"the creation of {created.name} was answered before it was kept")

    def _check_appended(self, stream_id: int, appended: Appended) -> None:
        stream = self.process.history.acknowledged_state.streams.get(stream_id)
        if stream is None:
            return  # deleted in the same group
        producer = appended.producer
        kept = producer is None or stream.producers.get(producer.id, (-1, -1)) >= (producer.epoch, producer.seq)
        if stream.tail < appended.tail or stream.closed < appended.closed or not kept:
            raise Violation(f"an append to {stream.create.name} was answered before it was kept")

    def _check_deleted(self, state: StreamState | None) -> None:
        assert state is not None
        stream = self.process.history.acknowledged_state.streams.get(state.id)
        if stream is not None and not stream.soft_deleted:
            raise Violation(f"the deletion of {state.name} was answered before it was kept")

    # --- choices ---

    def _name(self) -> str:
        return self.random.choice(NAMES)

    def _existing(self) -> StreamState | None:
        accepted = self.process.streams._commits.accepted
        found = [state for name in NAMES if (state := accepted.find(name)) and not state.soft_deleted]
        return self.random.choice(found) if found else None

    def _body(self, is_json: bool) -> bytes:
        self._counter += 1
        size = self.random.choice(SIZES)
        if not is_json:
            return (b"%d;" % self._counter * (size // 2 + 1))[:size]
        if self.random.random() < 0.3:
            count = self.random.randint(1, 5)
            return b"[" + b",".join(b"%d" % (self._counter + index) for index in range(count)) + b"]"
        return b'{"%d":"%b"}' % (self._counter, b"x" * size)

    def _anchor(self, source: StreamState) -> int | None:
        """A place where a message of the source's own ends, mostly."""
        if self.random.random() < 0.4:
            return None
        stream = self.process.history.acknowledged_state.streams.get(source.id)
        ends = [0, source.tail + 7] + [end for group in (stream.groups if stream else ()) for end in group]
        return self.random.choice(ends)

    def _producer(self, state: StreamState) -> Producer | None:
        if self.random.random() < 0.5:
            return None
        name = self.random.choice(("p", "q", "\u00fc"))
        epoch, seq = state.producer(name) or (0, -1)
        chance = self.random.random()
        if chance < 0.1:
            return Producer(name, epoch, max(0, seq))
        if chance < 0.15:
            return Producer(name, epoch + 1, 0)
        return Producer(name, epoch, seq + 1)

    def _stream_seq(self) -> bytes | None:
        return b"%08d" % self._counter if self.random.random() < 0.2 else None
