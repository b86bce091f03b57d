"""The engine against a model of the protocol, by random requests: what is asked, and what must be answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from dstreams.http.context import HttpSettings
from dstreams.storage.interface import Charges, Storage
from dstreams.storage.memory import MemoryStorage
from dstreams.streams.limits import StoreLimits
from tests.model.reference import JSON, JSON_BODIES, TEXT, Model, Put, Stream, Times
from tests.support.engine import WALL, Engine, Reply

LIMITS = StoreLimits(total_bytes=150, stream_bytes=45)
ANSWER_BYTES = 12

EVERY_NAME = ("a", "b", "c", "d", "e", "f/g")
KINDS = st.sampled_from([TEXT, JSON])
BODIES = st.sampled_from([b"", b"x", b"yz", b"12345", b"0123456789abcde"])
JSONS = st.sampled_from(sorted(JSON_BODIES))
LIVES = st.sampled_from([None, None, None, ("ttl", 6), ("ttl", 30), ("at", 10), ("at", 60)])
CLOSES = st.sampled_from([False, False, False, False, True])
RARELY = st.sampled_from([False, False, False, True])
SEQS = st.sampled_from([None, None, None, "a", "b", "ba", "c"])


@define
class Expected:
    """What an answer must say; ``tail`` is a number of units, ``stream`` the one it is about."""

    status: int
    headers: dict[str, str] = field(factory=dict)
    stream: int = 0
    tail: int | None = None
    closed: bool = False


class StreamsMachine(RuleBasedStateMachine):
    """Every rule asks the engine and the model the same."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.start(Clock())
        self.times = Times(WALL)
        self.accepted = Model(self.times, LIMITS.stream_bytes, LIMITS.total_bytes)
        self.outstanding: list[tuple[Reply, Expected]] = []
        self.puts: dict[str, tuple[Put, bytes, bool]] = {}

    def start(self, clock: Clock) -> Engine:
        """A server over the storage that is looked at."""
        return Engine(self.storage(), LIMITS, HttpSettings(max_answer_bytes=ANSWER_BYTES), clock)

    def storage(self) -> Storage:
        storage = MemoryStorage()
        storage.charges = Charges()
        return storage

    @initialize(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        """Something to begin with."""
        for name, kind in (("a", TEXT), ("b", JSON)):
            self.send_put(name, Put(kind), self.body(data, kind), closed=False)

    @property
    def durable(self) -> Model:
        """The model as readers see it."""
        return self.accepted

    # --- comparing -----------------------------------------------------------------------------------

    def expect(self, reply: Reply, expected: Expected) -> None:
        """Compare an answer with the model's, now or when it comes."""
        if reply.waits:
            self.outstanding.append((reply, expected))
        else:
            self.compare(reply, expected)

    def compare(self, reply: Reply, expected: Expected) -> None:
        assert reply.status == expected.status, reply.body
        headers = reply.headers
        assert {name: text for name, text in headers.items() if name.startswith("producer-")} == expected.headers
        if expected.tail is not None:
            self.learn(expected.stream, expected.tail, reply.next_offset)
        if reply.status < 300 or reply.status == 409:
            assert ("stream-closed" in headers) == expected.closed

    def learn(self, stream: int, index: int, token: str) -> None:
        """An offset was handed out: always the same for a place, and in the order of places."""
        tokens = self.times.tokens[stream]
        assert tokens.setdefault(index, token) == token
        assert [tokens[place] for place in sorted(tokens)] == sorted(set(tokens.values()))

    @contextmanager
    def change(self) -> Iterator[None]:
        """Around everything that may change the model."""
        yield
        self.accepted.expire()
        self.settle()

    def settle(self) -> None:
        """Storage that commits at once has done so."""
        for stream in self.accepted.streams.values():
            if stream.id not in self.times.used:
                self.times.used[stream.id] = self.times.now

    def of(self, status: int, stream: Stream | None, headers: dict[str, str] | None = None) -> Expected:
        tells_tail = stream is not None and (status < 300 or (status == 409 and stream.closed))
        if stream is None or not tells_tail or stream.deleted:
            return Expected(status, headers or {})
        return Expected(status, headers or {}, stream.id, len(stream.units), stream.closed)

    # --- writing -------------------------------------------------------------------------------------

    def one(self, data: st.DataObject) -> str:
        """A name, most often one that exists."""
        there = sorted(self.accepted.streams) * 6
        return data.draw(st.sampled_from([*there, *EVERY_NAME]), label="name")

    def new(self, data: st.DataObject) -> str:
        """A name, most often a free one."""
        free = [name for name in EVERY_NAME if name not in self.accepted.streams] * 6
        return data.draw(st.sampled_from([*free, *EVERY_NAME]), label="new name")

    def body(self, data: st.DataObject, kind: str | None) -> bytes:
        return data.draw(JSONS if kind == JSON else BODIES, label="body")

    @rule(kind=st.sampled_from([TEXT, JSON, None]), data=st.data(), life=LIVES, closed=CLOSES)
    def put(self, kind: str | None, data: st.DataObject, life: tuple[str, int] | None, closed: bool) -> None:
        """Create, or find."""
        self.send_put(self.new(data), self.with_life(Put(kind), life), self.body(data, kind), closed)

    @precondition(lambda self: self.accepted.streams)
    @rule(data=st.data(), life=LIVES, closed=CLOSES, sub_offset=st.sampled_from([0, 0, 0, 1, 1, 2, 7]))
    def fork(self, data: st.DataObject, life: tuple[str, int] | None, closed: bool, sub_offset: int) -> None:
        """Fork at the tail, or at an offset that was handed out, or a bit further."""
        name = self.one(data)
        source = self.accepted.streams.get(name)
        put = Put(None, source=name, sub_offset=sub_offset)
        kind = TEXT
        if source is not None:
            kind = source.content_type
            visible = self.durable.streams.get(name)
            known = self.times.tokens[source.id] if visible is not None and visible.id == source.id else {}
            places = [place for place in known if visible is not None and place <= len(visible.units)]
            put.index = data.draw(st.sampled_from([None, *sorted(places) * 2]), label="place")
        if data.draw(RARELY):
            put.content_type = data.draw(KINDS)
        self.send_put(self.new(data), self.with_life(put, life), self.body(data, kind), closed)

    @precondition(lambda self: self.puts)
    @rule(data=st.data())
    def put_again(self, data: st.DataObject) -> None:
        """The PUT that made a stream, once more."""
        name = data.draw(st.sampled_from(sorted(self.puts)))
        put, body, closed = self.puts[name]
        if put.expires_at is None or put.expires_at > self.times.now:
            self.send_put(name, put, body, closed)

    def with_life(self, put: Put, life: tuple[str, int] | None) -> Put:
        if life is not None:
            kind, seconds = life
            put.ttl = seconds if kind == "ttl" else None
            put.expires_at = int(self.times.now) + seconds if kind == "at" else None
        return put

    def send_put(self, name: str, put: Put, body: bytes, closed: bool) -> None:
        headers = {} if put.content_type is None else {"content_type": put.content_type}
        if put.ttl is not None:
            headers["stream_ttl"] = str(put.ttl)
        if put.expires_at is not None:
            headers["stream_expires_at"] = datetime.fromtimestamp(put.expires_at, UTC).isoformat()
        if closed:
            headers["stream_closed"] = "true"
        if put.source is not None:
            headers["stream_forked_from"] = f"/v1/stream/{put.source}"
            headers["stream_fork_sub_offset"] = str(put.sub_offset)
            source = self.accepted.streams.get(put.source)
            if put.index is not None:
                tokens = {} if source is None else self.times.tokens[source.id]
                if put.index not in tokens:
                    return  # the source is another one by now
                headers["stream_fork_offset"] = tokens[put.index]
        reply = self.engine.ask("PUT", name, body, **headers)
        with self.change():
            status = self.put_model(name, put, body, closed)
            if status == 201:
                self.puts[name] = (put, body, closed)
            self.expect(reply, self.of(status, self.accepted.streams.get(name) if status < 300 else None))

    def put_model(self, name: str, put: Put, body: bytes, closed: bool) -> int:
        return self.accepted.put(name, put, body, closed)

    @rule(closes=CLOSES, seq=SEQS, data=st.data())
    def append(self, closes: bool, seq: str | None, data: st.DataObject) -> None:
        """Append, close, or both."""
        self.send_post(data, closes, seq, None)

    @rule(
        producer=st.sampled_from("pq"),
        epoch=st.sampled_from([0, 0, 0, 0, 0, 1, -1]),
        step=st.sampled_from([1, 1, 1, 0, 2, -1]),
        closes=CLOSES,
        seq=SEQS,
        data=st.data(),
    )
    def produce(self, producer: str, epoch: int, step: int, closes: bool, seq: str | None, data: st.DataObject) -> None:
        """The same with a producer, at or near the number that comes next."""
        self.send_post(data, closes, seq, (producer, epoch, step))

    def send_post(self, data: st.DataObject, closes: bool, seq: str | None, near: tuple[str, int, int] | None) -> None:
        name = self.one(data)
        stream = self.accepted.streams.get(name)
        right = TEXT if stream is None else stream.content_type
        kind = data.draw(KINDS) if data.draw(RARELY) else right
        body = self.body(data, kind)
        if data.draw(RARELY):
            body = b""
        producer = None
        if near is not None:
            if not body and not closes:
                return  # whether an empty repetition is a repetition isn't the protocol's concern
            last = (0, -1) if stream is None else stream.producers.get(near[0], (0, -1))
            epoch = max(0, last[0] + near[1])
            producer = (near[0], epoch, max(0, (last[1] if epoch == last[0] else -1) + near[2]))
        self.post(name, kind, body, closes=closes, seq=seq, producer=producer)

    def post(
        self,
        name: str,
        kind: str,
        body: bytes,
        *,
        closes: bool = False,
        seq: str | None = None,
        producer: tuple[str, int, int] | None = None,
    ) -> None:
        """Send a POST, and do to the model what it does."""
        headers = {"content_type": kind}
        if closes:
            headers["stream_closed"] = "true"
        if seq is not None:
            headers["stream_seq"] = seq
        if producer is not None:
            numbers = {"producer_epoch": str(producer[1]), "producer_seq": str(producer[2])}
            headers |= {"producer_id": producer[0], **numbers}
        reply = self.engine.ask("POST", name, body, **headers)
        with self.change():
            status, echoed = self.accepted.post(name, kind, body, closes, seq, producer)
            self.expect(reply, self.of(status, self.accepted.streams.get(name), echoed))

    @rule(data=st.data(), really=RARELY)
    def delete(self, data: st.DataObject, really: bool) -> None:
        """Delete, not too often."""
        if not really:
            return
        name = self.one(data)
        reply = self.engine.delete(name)
        with self.change():
            self.expect(reply, Expected(self.accepted.delete(name)))

    # --- reading -------------------------------------------------------------------------------------

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """From any offset that was handed out, and from the start."""
        name = self.one(data)
        status = self.durable.look(name)
        if status != 200:
            assert self.engine.get(name).status == status
            return
        place, token = data.draw(st.sampled_from([(0, "-1"), *self.places(name)]))
        self.read_from(name, place, token)

    def places(self, name: str) -> list[tuple[int, str]]:
        """The offsets of a visible stream that were handed out."""
        stream = self.durable.streams[name]
        known = self.times.tokens[stream.id]
        return sorted((place, token) for place, token in known.items() if place <= len(stream.units))

    def read_from(self, name: str, place: int, token: str) -> None:
        """Read a visible stream once from an offset, and ask again with the ETag."""
        stream = self.durable.streams[name]
        reply = self.engine.get(name, token)
        assert reply.status == 200
        self.durable.touch(stream)
        units = json_units(reply.body) if stream.content_type == JSON else [bytes([byte]) for byte in reply.body]
        end = place + len(units)
        rest = [json.loads(unit) for unit in stream.units] if stream.content_type == JSON else stream.units
        assert units == rest[place:end]
        assert end == place == len(stream.units) or end > place
        at_tail = end == len(stream.units)
        assert at_tail or stream.content_type == JSON or end in stream.boundaries, "not cut at a message"
        assert (
            at_tail
            or stream.cost(stream.units[place:end]) <= ANSWER_BYTES
            or end - place == 1
            or end == next(after for after in stream.boundaries if after > place)
        )
        assert ("stream-up-to-date" in reply.headers) == at_tail
        assert ("stream-closed" in reply.headers) == (at_tail and stream.closed)
        self.learn(stream.id, end, reply.next_offset)
        again = self.engine.get(name, token, if_none_match=reply.headers["etag"])
        assert (again.status, again.body) == (304, b"")

    @rule(data=st.data())
    def read_now(self, data: st.DataObject) -> None:
        """Ask where the tail is."""
        name = self.one(data)
        status = self.durable.look(name)
        reply = self.engine.get(name, "now")
        assert reply.status == status
        if status == 200:
            stream = self.durable.streams[name]
            self.durable.touch(stream)
            assert reply.body == (b"[]" if stream.content_type == JSON else b"")
            self.learn(stream.id, len(stream.units), reply.next_offset)

    @rule(seconds=st.sampled_from([1, 1, 2, 3, 5, 40]))
    def advance(self, seconds: int) -> None:
        """Let time pass."""
        self.settle_down()
        self.times.now += seconds
        self.engine.clock.pump([0.5] * seconds * 2)
        self.clear_away()

    def settle_down(self) -> None:
        """Let everything become durable."""

    def clear_away(self) -> None:
        """What has expired is removed when somebody looks; the model removes it now."""
        for name in EVERY_NAME:
            self.engine.head(name)
        with self.change():
            pass
        self.settle_down()

    # --- always --------------------------------------------------------------------------------------

    @invariant()
    def look_at_everything(self) -> None:
        """HEAD of every name."""
        for name in EVERY_NAME:
            reply = self.engine.head(name)
            assert reply.status == self.durable.look(name)
            if reply.status == 200:
                stream = self.durable.streams[name]
                assert reply.headers["content-type"] == stream.content_type
                assert reply.headers.get("stream-ttl") == (None if stream.ttl is None else str(stream.ttl))
                assert ("stream-expires-at" in reply.headers) == (stream.expires_at is not None)
                assert ("stream-closed" in reply.headers) == stream.closed
                self.learn(stream.id, len(stream.units), reply.next_offset)

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        """What is stored, and what is counted, agree."""
        assert self.engine.used == self.accepted.used()


def json_units(body: bytes) -> list[object]:
    units = json.loads(body)
    assert isinstance(units, list)
    return units
