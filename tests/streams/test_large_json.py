"""Large JSON bodies: they are split in slices, and what happens meanwhile counts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from dstreams.runtime.timers import TimerWheel
from dstreams.streams.appending import SPLIT_AT_ONCE_BYTES
from tests.support.engine import DelayedStorage, Engine

ITEMS = [{"id": number, "text": "some words"} for number in range(3_000)]
LARGE = json.dumps(ITEMS, separators=(",", ":")).encode()
assert len(LARGE) > SPLIT_AT_ONCE_BYTES


@define(eq=False)
class Turns:
    """Lets the reactor's turns be made one by one."""

    waiting: list[Callable[[], object]] = field(factory=list)

    def soon(self, function: Callable[[], object]) -> Turns:
        self.waiting.append(function)
        return self

    def cancel(self) -> None:
        self.waiting.clear()

    def all(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """The slices of every wheel that is made from now on wait for the test."""
    made, wheel_init = Turns(), TimerWheel.__init__

    def init(wheel: TimerWheel, *arguments: object, **more: object) -> None:
        wheel_init(wheel, *arguments, **more)  # type: ignore[arg-type]
        wheel.soon = made.soon

    monkeypatch.setattr(TimerWheel, "__init__", init)
    return made


@pytest.fixture
def engine(turns: Turns) -> Engine:
    assert not turns.waiting
    return Engine()


class AppendTests:
    def test_it_is_stored(self, engine: Engine, turns: Turns) -> None:
        """The messages of a large array are stored once it is split, and the answer comes then."""
        engine.put_json("s")
        reply = engine.post_json("s", LARGE)
        assert reply.waits
        assert engine.get("s").body == b"[]"
        turns.all()
        assert reply.status == 204
        assert json.loads(engine.get("s").body) == ITEMS
        assert engine.streams.find("s").messages == len(ITEMS)

    def test_later_appends_may_come_first(self, engine: Engine, turns: Turns) -> None:
        """Other writers aren't held up; the large append lies where the tail is when it is split."""
        engine.put_json("s")
        large = engine.post_json("s", LARGE)
        assert engine.post_json("s", b'"small"').status == 204
        turns.all()
        assert large.status == 204
        assert json.loads(engine.get("s").body) == ["small", *ITEMS]

    def test_what_is_not_json_is_refused(self, engine: Engine, turns: Turns) -> None:
        """A mistake at the end of a large body refuses all of it, and says where."""
        engine.put_json("s")
        reply = engine.post_json("s", LARGE[:-1] + b",]")
        turns.all()
        assert (reply.status, reply.code) == (400, "INVALID_JSON")
        assert "in message 3000" in str(reply.problem["detail"])
        assert engine.get("s").body == b"[]"

    def test_the_head_decides_at_once(self, engine: Engine, turns: Turns) -> None:
        """A closed stream, a fenced producer and a duplicate are answered without a look at the body."""
        engine.put_json("s")
        engine.produce("s", "p", 1, 0, b"1", content_type="application/json")
        assert engine.produce("s", "p", 1, 0, LARGE, content_type="application/json").status == 204
        assert engine.produce("s", "p", 0, 0, LARGE, content_type="application/json").status == 403
        engine.close("s")
        assert engine.post_json("s", LARGE).status == 409
        assert not turns.waiting

    def test_the_stream_may_go_meanwhile(self, engine: Engine, turns: Turns) -> None:
        """A stream that is deleted or closed while the body is split refuses it, as if it had come afterwards."""
        for change, status in ((engine.delete, 404), (engine.close, 409)):
            engine.put_json("s")
            reply = engine.post_json("s", LARGE)
            change("s")
            turns.all()
            assert reply.status == status

    def test_the_stream_may_become_another(self, engine: Engine, turns: Turns) -> None:
        """A new stream of the same name and another type refuses the body for its type."""
        engine.put_json("s")
        reply = engine.post_json("s", LARGE)
        engine.delete("s")
        engine.put("s")
        turns.all()
        assert reply.status == 409

    def test_the_same_producer_twice(self, engine: Engine, turns: Turns) -> None:
        """Of two requests with the same sequence number one is stored and the other acknowledged."""
        engine.put_json("s")
        replies = [engine.produce("s", "p", 0, 0, LARGE, content_type="application/json") for _ in range(2)]
        turns.all()
        assert sorted(reply.status for reply in replies) == [200, 204]
        assert json.loads(engine.get("s").body) == ITEMS

    def test_a_client_that_goes_stops_the_work(self, engine: Engine, turns: Turns) -> None:
        """Nothing is stored for a client that has gone while its body was split."""
        engine.put_json("s")
        reply = engine.post_json("s", LARGE)
        reply.cancel()
        turns.all()
        assert engine.get("s").body == b"[]"

    def test_the_answer_waits_for_the_commit(self, turns: Turns) -> None:
        """With storage that takes its time the answer comes when the append is durable."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put_json("s")
        storage.finish_all()
        reply = engine.post_json("s", LARGE)
        turns.all()
        assert reply.waits
        storage.finish_all()
        assert reply.status == 204
        turns.all()


class CreateTests:
    def test_a_large_initial_body(self, engine: Engine, turns: Turns) -> None:
        """A stream is created once its messages are split; until then there is none."""
        reply = engine.put_json("s", LARGE)
        assert engine.head("s").status == 404
        turns.all()
        assert reply.status == 201
        assert json.loads(engine.get("s").body) == ITEMS

    def test_a_fork_with_a_large_body(self, engine: Engine, turns: Turns) -> None:
        """A fork's own messages come after those that it inherits."""
        engine.put_json("source", b'["inherited"]')
        reply = engine.fork("fork", "source", LARGE)
        turns.all()
        assert reply.status == 201
        assert json.loads(engine.get("fork").body) == ["inherited", *ITEMS]

    def test_the_name_may_be_taken_meanwhile(self, engine: Engine, turns: Turns) -> None:
        """Who comes first has the name; an equal request finds that stream."""
        large = engine.put_json("s", LARGE)
        assert engine.put_json("s").status == 201
        turns.all()
        assert large.status == 200


def test_it_uses_the_reactors_turns() -> None:
    """Without a fixture: the work is done in calls of the scheduler."""
    clock = Clock()
    done = TimerWheel(clock).in_slices(iter(range(3)))
    clock.advance(0)
    assert done.called
