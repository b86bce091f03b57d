"""What clients see while a commit is under way, when it fails, and when they leave (design.md section 3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.logger import capturedLogs, formatEvent

from dstreams.http.messages import Response
from dstreams.model.changes import Append, Create, Delete
from dstreams.model.state import StreamState
from dstreams.runtime.pending import as_deferred
from dstreams.storage.interface import Charges, StorageError, StorageFull
from dstreams.streams.limits import StoreLimits, Usage
from tests.support.engine import START, DelayedStorage, Engine, FailingStorage, Reply, controls, offset, payloads

pytestmark = pytest.mark.usefixtures("failures")


def delayed() -> tuple[Engine, DelayedStorage]:
    """A server whose storage waits, with nothing in it."""
    storage = DelayedStorage()
    return Engine(storage), storage


def with_stream(body: bytes = b"", **headers: str) -> tuple[Engine, DelayedStorage]:
    """The same with one stream, ``s``."""
    engine, storage = delayed()
    made = engine.put("s", body, **headers)
    storage.finish_all()
    assert made.status == 201
    return engine, storage


class DurableOnlyTests:
    """Readers see what is durable, and nothing else."""

    def test_append_is_acknowledged_when_it_is_durable(self) -> None:
        """An append is answered when its commit is done, not before."""
        engine, storage = with_stream()
        reply = engine.post("s", b"abc")
        assert reply.waits
        storage.finish()
        assert reply.status == 204
        assert reply.next_offset == offset(3)

    def test_catch_up_read(self) -> None:
        """A read returns nothing of an append in flight, and no tail that includes it."""
        engine, storage = with_stream(b"old")
        engine.post("s", b"new")
        read = engine.get("s")
        assert (read.body, read.next_offset) == (b"old", offset(3))
        assert read.headers["stream-up-to-date"] == "true"
        storage.finish()
        assert engine.get("s").body == b"oldnew"

    def test_offset_beyond_the_durable_tail(self) -> None:
        """The offset that an append in flight will give doesn't exist yet."""
        engine, storage = with_stream(b"old")
        engine.post("s", b"new")
        assert engine.get("s", offset(6)).code == "INVALID_OFFSET"
        storage.finish()
        assert engine.get("s", offset(6)).status == 200

    def test_now(self) -> None:
        """``offset=now`` is the durable tail."""
        engine, _ = with_stream(b"old")
        engine.post("s", b"new")
        assert engine.get("s", "now").next_offset == offset(3)

    def test_head(self) -> None:
        """HEAD tells the durable tail and the durable closure."""
        engine, storage = with_stream(b"old")
        engine.close("s", b"new")
        head = engine.head("s")
        assert head.next_offset == offset(3)
        assert "stream-closed" not in head.headers
        storage.finish()
        head = engine.head("s")
        assert (head.next_offset, head.headers["stream-closed"]) == (offset(6), "true")

    def test_long_poll(self) -> None:
        """A long-poll is answered when the append is durable."""
        engine, storage = with_stream()
        poll = engine.poll("s")
        engine.post("s", b"new")
        engine.turn()
        assert poll.waits
        storage.finish()
        engine.turn()
        assert (poll.status, poll.body) == (200, b"new")

    def test_sse(self) -> None:
        """An SSE reader gets an append when it is durable, and the closure with it."""
        engine, storage = with_stream()
        _, sink = engine.follow("s")
        sink.take()
        engine.close("s", b"new")
        engine.turn()
        assert sink.data == b""
        storage.finish()
        engine.turn()
        assert payloads(sink.data) == b"new"
        assert controls(sink.data)[-1]["streamClosed"] is True
        assert sink.finished

    def test_create_is_invisible_until_durable(self) -> None:
        """A stream exists for readers once its creation is durable."""
        engine, storage = delayed()
        made = engine.put("s", b"first")
        assert made.waits
        assert engine.head("s").status == engine.get("s").status == engine.poll("s").status == 404
        storage.finish()
        assert made.status == 201
        assert engine.get("s").body == b"first"

    def test_delete_is_visible_when_durable(self) -> None:
        """Until its deletion is durable a stream can be read."""
        engine, storage = with_stream(b"data")
        gone = engine.delete("s")
        assert gone.waits
        assert engine.get("s").body == b"data"
        assert engine.head("s").status == 200
        storage.finish()
        assert gone.status == 204
        assert engine.head("s").status == 404

    def test_live_readers_outlive_a_delete_in_flight(self) -> None:
        """A long-poll gets its 404, and an SSE reader its end, when the deletion is durable."""
        engine, storage = with_stream()
        poll = engine.poll("s")
        _, sink = engine.follow("s")
        engine.delete("s")
        engine.turn()
        assert poll.waits
        assert not sink.finished
        storage.finish()
        engine.turn()
        assert poll.status == 404
        assert sink.finished

    def test_soft_delete(self) -> None:
        """A source with forks stays readable until its deletion is durable; then it is 410."""
        engine, storage = with_stream(b"data")
        engine.fork("f", "s")
        storage.finish_all()
        poll = engine.poll("s")
        gone = engine.delete("s")
        assert engine.get("s").body == b"data"
        storage.finish()
        engine.turn()
        assert (gone.status, poll.status, engine.get("s").status) == (204, 410, 410)
        assert engine.get("f").body == b"data"

    def test_fork_is_invisible_until_durable(self) -> None:
        """A fork exists for readers once its creation is durable."""
        engine, storage = with_stream(b"data")
        made = engine.fork("f", "s")
        assert engine.get("f").status == 404
        storage.finish()
        assert (made.status, engine.get("f").body) == (201, b"data")

    def test_fork_leaves_its_source_at_the_durable_tail(self) -> None:
        """A fork inherits nothing of an append in flight."""
        engine, storage = with_stream(b"old")
        engine.post("s", b"new")
        fork = engine.fork("f", "s")
        storage.finish_all()
        assert (fork.status, fork.next_offset) == (201, offset(3))
        assert engine.get("f").body == b"old"
        assert engine.get("s").body == b"oldnew"

    def test_fork_offset_in_flight(self) -> None:
        """A fork can't be taken at an offset that isn't durable."""
        engine, storage = with_stream(b"old")
        engine.post("s", b"new")
        fork = engine.fork("f", "s", stream_fork_offset=offset(6))
        storage.finish_all()
        assert fork.status == 400

    def test_sub_offset_in_flight(self) -> None:
        """Nor inside an append that isn't."""
        engine, storage = with_stream(b"old")
        engine.post("s", b"new")
        fork = engine.fork("f", "s", stream_fork_offset=offset(3), stream_fork_sub_offset="1")
        storage.finish_all()
        assert fork.status == 400


class WriterTests:
    """Writers are validated against what has been accepted."""

    def test_appends_follow_each_other(self) -> None:
        """An append begins where the accepted one before it ends."""
        engine, storage = with_stream()
        replies = [engine.post("s", body) for body in (b"a", b"bb", b"ccc")]
        storage.finish_all()
        assert [reply.next_offset for reply in replies] == [offset(1), offset(3), offset(6)]
        assert engine.get("s").body == b"abbccc"

    def test_create_then_append(self) -> None:
        """A stream can be appended to while its creation is in flight."""
        engine, storage = delayed()
        made, appended = engine.put("s", b"a"), engine.post("s", b"b")
        storage.finish_all()
        assert (made.status, appended.status, engine.get("s").body) == (201, 204, b"ab")

    def test_producer_goes_on_in_flight(self) -> None:
        """A producer's next sequence number is the one after the last accepted."""
        engine, storage = with_stream()
        replies = [engine.produce("s", "p", 0, seq, b"%d" % seq) for seq in range(4)]
        storage.finish_all()
        assert [reply.status for reply in replies] == [200] * 4
        assert [reply.headers["producer-seq"] for reply in replies] == ["0", "1", "2", "3"]
        assert engine.get("s").body == b"0123"

    def test_producer_known_from_before(self) -> None:
        """Durable producers are known to appends that come while others are in flight."""
        engine, storage = with_stream()
        engine.produce("s", "p", 0, 0)
        storage.finish_all()
        engine.post("s", b"y")
        replies = [engine.produce("s", "p", 0, seq) for seq in (0, 1, 3)]
        storage.finish_all()
        assert [reply.status for reply in replies] == [204, 200, 409]
        assert replies[2].headers["producer-expected-seq"] == "2"

    def test_stream_seq_in_flight(self) -> None:
        """Stream-Seq is compared with the last accepted one."""
        engine, storage = with_stream()
        replies = [engine.post("s", b"x", stream_seq=seq) for seq in ("b", "a", "c")]
        storage.finish_all()
        assert [reply.status for reply in replies] == [204, 409, 204]

    def test_recreate_while_the_delete_is_in_flight(self) -> None:
        """A name can be used again at once; the two streams don't mix."""
        engine, storage = with_stream(b"first life")
        etag = engine.get("s").headers["etag"]
        gone, made, appended = engine.delete("s"), engine.put("s", b"2nd"), engine.post("s", b"!")
        assert engine.get("s").body == b"first life"
        storage.finish()
        assert gone.status == 204
        assert engine.get("s").status == 404
        storage.finish()
        assert (made.status, appended.status) == (201, 204)
        assert engine.get("s").body == b"2nd!"
        assert engine.get("s").headers["etag"] != etag

    def test_many_lives_in_one_flight(self) -> None:
        """However often a name changes hands in flight, the last owner has it."""
        engine, storage = with_stream(b"0")
        replies: list[Reply] = []
        for life in range(1, 4):
            replies += [engine.delete("s"), engine.put("s", b"%d" % life)]
        replies.append(engine.delete("s"))
        assert engine.get("s").body == b"0"
        storage.finish_all()
        assert [reply.status for reply in replies] == [204, 201, 204, 201, 204, 201, 204]
        assert engine.get("s").status == 404
        assert engine.used == 0
        again = engine.put("s", b"4")
        storage.finish_all()
        assert (again.status, engine.get("s").body) == (201, b"4")

    def test_cascade_in_flight(self) -> None:
        """Deleting the last fork takes its source along, also while that one's deletion is in flight."""
        engine, storage = with_stream(b"data")
        engine.fork("f", "s")
        storage.finish_all()
        replies = [engine.delete("s"), engine.delete("f"), engine.put("s", b"new"), engine.put("f", b"new")]
        storage.finish_all()
        assert [reply.status for reply in replies] == [204, 204, 201, 201]
        assert engine.get("s").body == engine.get("f").body == b"new"

    def test_fork_of_a_stream_whose_delete_is_in_flight(self) -> None:
        """A stream that is being deleted has no more forks."""
        engine, storage = with_stream(b"data")
        engine.delete("s")
        fork = engine.fork("f", "s")
        assert fork.waits
        storage.finish_all()
        assert fork.status == 404

    def test_delete_of_a_source_whose_fork_is_in_flight(self) -> None:
        """A fork in flight counts: its source is kept."""
        engine, storage = with_stream(b"data")
        fork, gone = engine.fork("f", "s"), engine.delete("s")
        storage.finish_all()
        assert (fork.status, gone.status) == (201, 204)
        assert (engine.get("s").status, engine.get("f").body) == (410, b"data")


class OutcomesThatRestOnChangesInFlightTests:
    """An answer that rests on changes in flight waits for them."""

    def test_duplicate_waits(self) -> None:
        """A producer's repetition of an append in flight is acknowledged with that append."""
        engine, storage = with_stream()
        first, again = engine.produce("s", "p", 0, 0), engine.produce("s", "p", 0, 0)
        assert first.waits
        assert again.waits
        storage.finish()
        assert (first.status, again.status) == (200, 204)
        assert engine.get("s").body == b"x"

    def test_duplicate_of_an_append_in_the_next_group(self) -> None:
        """It waits for the commit that holds the append, not for the one before."""
        engine, storage = with_stream()
        engine.post("s", b"a")
        engine.produce("s", "p", 0, 0)
        again = engine.produce("s", "p", 0, 0)
        storage.finish()
        assert again.waits
        storage.finish()
        assert again.status == 204

    def test_duplicate_of_a_failed_append(self, failures: list[str]) -> None:
        """When the append fails, so does its repetition; sent once more it is stored."""
        engine, storage = with_stream()
        engine.produce("s", "p", 0, 0)
        again = engine.produce("s", "p", 0, 0)
        storage.fail()
        assert again.status == 503
        once_more = engine.produce("s", "p", 0, 0)
        storage.finish_all()
        assert (once_more.status, engine.get("s").body) == (200, b"x")
        failures.clear()

    def test_repeated_put_waits(self) -> None:
        """A PUT that finds a stream in flight is answered when that is durable."""
        engine, storage = delayed()
        first, again = engine.put("s"), engine.put("s")
        assert again.waits
        storage.finish()
        assert (first.status, again.status) == (201, 200)

    def test_repeated_close_waits(self) -> None:
        """A close that finds a close in flight is answered when that is durable."""
        engine, storage = with_stream()
        first, again = engine.close("s"), engine.close("s")
        assert again.waits
        storage.finish()
        assert (first.status, again.status) == (204, 204)

    @pytest.mark.parametrize(
        ("refused", "status"),
        [
            pytest.param(lambda engine: engine.post("s", b"x"), 409, id="append to a closed stream"),
            pytest.param(lambda engine: engine.put("s", stream_ttl="5"), 409, id="put of another configuration"),
            pytest.param(lambda engine: engine.produce("s", "p", 0, 0), 409, id="producer"),
        ],
    )
    def test_refusal_waits(self, refused: Callable[[Engine], Reply], status: int) -> None:
        """A refusal is given when the change that it rests on is durable."""
        engine, storage = with_stream()
        engine.close("s")
        reply = refused(engine)
        assert reply.waits
        storage.finish()
        assert reply.status == status

    def test_refusal_after_a_delete_waits(self) -> None:
        """404 for a stream being deleted, when that is durable."""
        engine, storage = with_stream()
        engine.delete("s")
        replies = [engine.post("s", b"x"), engine.delete("s"), engine.close("s")]
        assert all(reply.waits for reply in replies)
        storage.finish()
        assert [reply.status for reply in replies] == [404] * 3

    def test_refusal_that_rests_on_a_failed_change(self, failures: list[str]) -> None:
        """When that change fails, the client is told to try again, not that it was refused."""
        engine, storage = with_stream()
        engine.close("s")
        append = engine.post("s", b"x")
        storage.fail()
        assert append.status == 503
        assert append.headers["retry-after"] == "1"
        append = engine.post("s", b"x")
        storage.finish_all()
        assert append.status == 204
        failures.clear()

    def test_head_alone_decides_nothing_in_flight(self) -> None:
        """While a commit is under way no request is judged by its head."""
        engine, storage = with_stream()
        engine.close("s")
        asked = engine.request("POST", "s", None, content_type="text/plain")
        assert engine.application.validate_head(asked) is None
        storage.finish()
        answer = engine.application.validate_head(asked)
        assert answer is not None
        assert answer.status == 409


class GroupTests:
    """Group commit."""

    def test_what_arrives_during_a_commit_goes_out_together(self) -> None:
        """Appends, creates, closes and deletes of all streams that come meanwhile make one group."""
        engine, storage = with_stream()
        engine.post("s", b"1")
        first = len(storage.groups)
        engine.put("t", b"2")
        engine.post("s", b"3")
        engine.produce("s", "p", 0, 0)
        engine.close("t")
        engine.delete("s")
        assert len(storage.groups) == first
        storage.finish()
        group = storage.groups[-1]
        assert [type(change) for change in group] == [Create, Append, Append, Append, Delete]
        storage.finish()
        assert not storage.busy

    def test_no_group_waits_for_company(self) -> None:
        """A change that comes alone is committed alone, at once."""
        engine, storage = with_stream()
        engine.post("s", b"1")
        assert len(storage.groups[-1]) == 1
        assert storage.busy

    def test_acknowledged_in_order(self) -> None:
        """Appends of one group are acknowledged in the order of their acceptance."""
        engine, storage = with_stream()
        order: list[int] = []

        def acknowledged(_: Response, number: int) -> None:
            order.append(number)

        for number in range(5):
            outcome = engine.application.respond(engine.request("POST", "s", b"x", content_type="text/plain"))
            as_deferred(outcome).addCallback(acknowledged, number)
        storage.finish_all()
        assert order == [0, 1, 2, 3, 4]

    def test_change_submitted_while_acknowledging(self) -> None:
        """A client that goes on as soon as it is acknowledged finds everything in place."""
        engine, storage = with_stream()
        replies: list[Reply] = []
        outcome = engine.application.respond(engine.request("POST", "s", b"a", content_type="text/plain"))
        as_deferred(outcome).addCallback(lambda _: replies.append(engine.post("s", b"b")))
        storage.finish_all()
        assert replies[0].next_offset == offset(2)
        assert engine.get("s").body == b"ab"

    def test_one_wake_up_for_a_group(self) -> None:
        """Readers get what one group held as one event."""
        engine, storage = with_stream()
        _, sink = engine.follow("s")
        sink.take()
        engine.post("s", b"a")
        storage.finish()
        for body in (b"b", b"c", b"d"):
            engine.post("s", body)
        storage.finish_all()
        engine.turn()
        assert payloads(sink.data) == b"abcd"
        assert len(controls(sink.data)) == 1


class FailureTests:
    """A failed commit leaves nothing behind."""

    @pytest.mark.parametrize(
        ("error", "status"), [(StorageError("disk"), 503), (StorageFull("disk"), 507), (OSError("disk"), 503)]
    )
    def test_answer(self, error: Exception, status: int, failures: list[str]) -> None:
        """503 for a broken storage, 507 for a full one; the cause is for the log only."""
        engine, storage = with_stream()
        reply = engine.post("s", b"x")
        with capturedLogs() as events:
            storage.fail(error)
        failures.clear()
        assert reply.status == status
        assert b"disk" not in reply.body
        assert ["disk" in str(formatEvent(event)) + str(event.get("log_failure")) for event in events] == [True]

    def test_full_is_said_once(self) -> None:
        """Clients that keep asking don't fill the log of a full disk; when it is full again, that is said again."""
        engine, storage = with_stream()
        with capturedLogs() as events:
            for _ in range(3):
                engine.post("s", b"x")
                storage.fail(StorageFull("no room"))
            engine.post("s", b"x")
            storage.finish()
            engine.post("s", b"x")
            storage.fail(StorageFull("no room"))
        said = [formatEvent(event) for event in events if "the storage is full" in formatEvent(event)]
        assert said == ["the storage is full, changes are refused: no room"] * 2

    def test_the_end_is_said_once(self, failures: list[str]) -> None:
        """That the storage takes no more changes isn't said again for every change that it refuses."""
        storage = DelayedStorage()
        engine = Engine(storage)
        for attempt in range(3):
            reply = engine.put(f"s{attempt}")
            storage.failure = "a sync failed"
            storage.fail(StorageError("a sync failed"))
            assert reply.status == 503
        assert len(failures) == 1
        failures.clear()

    def test_everything_accepted_after_it_fails(self, failures: list[str]) -> None:
        """Changes that wait for the next commit fail with the one under way: they rest on it."""
        engine, storage = with_stream(b"old")
        replies = [
            engine.post("s", b"1"),
            engine.post("s", b"2"),
            engine.put("t"),
            engine.close("s"),
            engine.delete("s"),
        ]
        groups = len(storage.groups)
        storage.fail()
        assert [reply.status for reply in replies] == [503] * 5
        assert len(storage.groups) == groups, "the failed changes were tried again"
        assert not storage.busy
        failures.clear()

    def test_tail_is_rolled_back(self, failures: list[str]) -> None:
        """The next append begins at the durable tail."""
        engine, storage = with_stream(b"old")
        engine.post("s", b"lost")
        storage.fail()
        assert engine.get("s").body == b"old"
        reply = engine.post("s", b"new")
        storage.finish()
        assert reply.next_offset == offset(6)
        assert engine.get("s").body == b"oldnew"
        failures.clear()

    def test_names_are_rolled_back(self, failures: list[str]) -> None:
        """A create that failed leaves the name free, a delete that failed leaves the stream."""
        engine, storage = with_stream(b"data")
        engine.put("t", b"lost")
        engine.delete("s")
        engine.put("s", b"lost too")
        storage.fail()
        assert engine.get("s").body == b"data"
        assert engine.get("t").status == 404
        made, appended = engine.put("t", stream_ttl="9"), engine.post("s", b"!")
        storage.finish_all()
        assert (made.status, appended.status) == (201, 204)
        assert engine.get("s").body == b"data!"
        failures.clear()

    def test_producers_are_rolled_back(self, failures: list[str]) -> None:
        """A producer whose appends failed goes on from its last durable one."""
        engine, storage = with_stream()
        engine.produce("s", "p", 0, 0)
        storage.finish()
        engine.produce("s", "p", 0, 1)
        engine.produce("s", "p", 1, 0)
        engine.produce("s", "q", 7, 0)
        storage.fail()
        replies = [engine.produce("s", "p", 0, 1), engine.produce("s", "q", 0, 0)]
        storage.finish_all()
        assert [reply.status for reply in replies] == [200, 200]
        failures.clear()

    def test_stream_seq_is_rolled_back(self, failures: list[str]) -> None:
        """So does a writer with Stream-Seq."""
        engine, storage = with_stream()
        engine.post("s", b"x", stream_seq="b")
        storage.fail()
        reply = engine.post("s", b"x", stream_seq="a")
        storage.finish()
        assert reply.status == 204
        failures.clear()

    def test_closure_is_rolled_back(self, failures: list[str]) -> None:
        """A close that failed leaves the stream open."""
        engine, storage = with_stream()
        engine.close("s", b"end")
        storage.fail()
        reply = engine.post("s", b"x")
        storage.finish()
        assert reply.status == 204
        assert "stream-closed" not in engine.head("s").headers
        failures.clear()

    def test_fork_counts_are_rolled_back(self, failures: list[str]) -> None:
        """A fork that failed doesn't keep its source; a fork's deletion that failed does."""
        engine, storage = with_stream(b"data")
        engine.fork("f", "s")
        storage.fail()
        engine.delete("s")
        storage.finish()
        assert engine.get("s").status == 404

        engine.put("s", b"data")
        storage.finish_all()
        engine.fork("f", "s")
        storage.finish_all()
        engine.delete("f")
        storage.fail()
        engine.delete("s")
        storage.finish()
        assert engine.get("s").status == 410
        assert engine.get("f").body == b"data"
        failures.clear()

    def test_soft_delete_is_rolled_back(self, failures: list[str]) -> None:
        """A soft delete that failed leaves the source as it was."""
        engine, storage = with_stream(b"data")
        engine.fork("f", "s")
        storage.finish_all()
        engine.delete("s")
        storage.fail()
        assert engine.get("s").body == b"data"
        reply = engine.post("s", b"!")
        storage.finish()
        assert reply.status == 204
        failures.clear()

    def test_usage_is_rolled_back(self, failures: list[str]) -> None:
        """What was counted for failed changes is counted no more, and what was counted out is again."""
        engine, storage = with_stream(b"data")
        used = engine.used
        for _ in range(3):
            engine.post("s", b"x" * 100)
            engine.produce("s", "p", 0, 0)
            engine.put("t", b"y" * 100)
            engine.delete("s")
            storage.fail()
            assert engine.used == used
        failures.clear()

    def test_failures_cost_the_same_however_many_streams_there_are(
        self, failures: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A failed commit is undone without a look at the streams that it doesn't concern."""
        engine, storage = with_stream()
        for number in range(100):
            engine.put(f"s{number}")
        storage.finish_all()
        used, looks = engine.used, 0
        cost = Usage.cost

        def counting(self: Usage, state: StreamState) -> int:
            nonlocal looks
            looks += 1
            return cost(self, state)

        monkeypatch.setattr(Usage, "cost", counting)
        engine.post("s", b"x")
        engine.delete("s1")
        storage.fail()
        assert engine.used == used
        assert looks <= 1
        failures.clear()

    def test_usage_of_a_delete_in_flight(self) -> None:
        """A stream deleted while its appends are in flight is counted out whole, producers included."""
        engine, storage = with_stream()
        for seq in range(3):
            engine.produce("s", "durable producer", 0, seq)
        storage.finish_all()
        engine.post("s", b"in flight")
        engine.produce("s", "another producer", 0, 0)
        engine.delete("s")
        storage.finish_all()
        assert engine.used == 0

    def test_limits_count_what_is_in_flight(self) -> None:
        """Appends in flight count against the limits."""
        storage = DelayedStorage(charges=Charges())
        engine = Engine(storage, StoreLimits(total_bytes=10, stream_bytes=6))
        engine.put("s")
        replies = [engine.post("s", b"12345"), engine.post("s", b"12"), engine.put("t", b"123456")]
        storage.finish_all()
        assert [reply.status for reply in replies] == [204, 413, 413]

    def test_nothing_of_it_is_recovered(self, failures: list[str]) -> None:
        """A store opened again holds what was acknowledged, and nothing else."""
        engine, storage = with_stream(b"old")
        engine.post("s", b"lost")
        engine.put("t", b"lost")
        storage.fail()
        kept = engine.post("s", b"kept")
        storage.finish()
        assert kept.status == 204
        again = Engine(DelayedStorage(journal=storage.journal))
        assert again.get("s").body == b"oldkept"
        assert again.get("t").status == 404
        assert again.used == engine.used
        failures.clear()

    def test_live_readers_go_on(self, failures: list[str]) -> None:
        """A failed append wakes nobody; the next one is delivered."""
        engine, storage = with_stream()
        poll = engine.poll("s")
        _, sink = engine.follow("s")
        sink.take()
        engine.post("s", b"lost")
        storage.fail()
        engine.turn()
        assert poll.waits
        engine.post("s", b"kept")
        storage.finish()
        engine.turn()
        assert poll.body == payloads(sink.data) == b"kept"
        failures.clear()

    @pytest.mark.parametrize(
        ("error", "status"), [(StorageError("disk"), 503), (StorageFull("disk"), 507), (OSError("disk"), 503)]
    )
    def test_commit_that_raises_at_once(self, error: Exception, status: int, failures: list[str]) -> None:
        """A storage that refuses before it begins is as one that fails later; it isn't stuck afterwards."""
        engine, storage = with_stream(b"old")
        used = engine.used
        storage.refusal = error
        replies = [engine.post("s", b"lost"), engine.put("t"), engine.delete("s")]
        assert [reply.status for reply in replies] == [status] * 3
        assert engine.used == used
        storage.refusal = None
        kept = engine.post("s", b"new")
        storage.finish_all()
        assert (kept.status, engine.get("s").body) == (204, b"oldnew")
        failures.clear()

    @pytest.mark.parametrize(
        ("error", "status"), [(StorageError("disk"), 503), (StorageFull("disk"), 507), (MemoryError(), 503)]
    )
    def test_immediate_storage(self, error: Exception, status: int, failures: list[str]) -> None:
        """Storage that commits at once fails at once: the same answers, the same roll-back."""
        storage = FailingStorage()
        engine = Engine(storage)
        engine.put("s", b"old")
        used = engine.used
        storage.error = error
        replies = [engine.post("s", b"x"), engine.put("t"), engine.delete("s"), engine.close("s")]
        assert [reply.status for reply in replies] == [status] * 4
        assert engine.get("s").body == b"old"
        assert engine.used == used
        storage.error = None
        assert engine.post("s", b"new").status == 204
        assert engine.get("s").body == b"oldnew"
        failures.clear()


class LeavingTests:
    """Clients that go away."""

    def test_append_is_published_without_its_client(self) -> None:
        """Publication belongs to the commit: readers get an append whose writer has left."""
        engine, storage = with_stream()
        poll = engine.poll("s")
        append = engine.post("s", b"data")
        append.cancel()
        storage.finish()
        engine.turn()
        assert poll.body == engine.get("s").body == b"data"

    def test_the_others_are_answered(self) -> None:
        """A client that leaves takes none of its group along."""
        engine, storage = with_stream()
        replies = [engine.post("s", b"%d" % number) for number in range(4)]
        replies[0].cancel()
        replies[2].cancel()
        storage.finish_all()
        assert [replies[1].status, replies[3].status] == [204, 204]
        assert engine.get("s").body == b"0123"

    def test_leaving_before_a_failure(self, failures: list[str]) -> None:
        """A failed commit whose clients have left is logged once and hurts nobody."""
        engine, storage = with_stream()
        engine.post("s", b"1").cancel()
        engine.post("s", b"2").cancel()
        storage.fail()
        assert len(failures) == 1
        reply = engine.post("s", b"3")
        storage.finish()
        assert reply.status == 204
        failures.clear()

    @pytest.mark.parametrize(
        "ask",
        [
            pytest.param(lambda engine: engine.produce("s", "p", 0, 0), id="duplicate"),
            pytest.param(lambda engine: engine.put("s"), id="repeated put"),
            pytest.param(lambda engine: engine.post("s", b""), id="refusal"),
            pytest.param(lambda engine: engine.delete("s"), id="delete"),
            pytest.param(lambda engine: engine.fork("f", "s"), id="fork"),
        ],
    )
    def test_leaving_while_waiting_for_others(self, ask: Callable[[Engine], Reply]) -> None:
        """So does one that waits for changes of others."""
        engine, storage = with_stream()
        first = engine.produce("s", "p", 0, 0)
        ask(engine).cancel()
        storage.finish_all()
        assert first.status == 200


class ClosingTests:
    """The end of a server."""

    def test_close_waits_for_commits(self) -> None:
        """Storage is closed when all that was accepted is committed."""
        engine, storage = with_stream()
        first, second = engine.post("s", b"1"), engine.post("s", b"2")
        closed: list[object] = []
        engine.streams.close().addCallback(closed.append)
        storage.finish()
        assert closed == []
        storage.finish()
        assert closed == [None]
        assert storage.closed
        assert (first.status, second.status) == (204, 204)

    def test_close_after_a_failure(self, failures: list[str]) -> None:
        """A last commit that fails doesn't keep the storage open."""
        engine, storage = with_stream()
        engine.post("s", b"1")
        closed: list[object] = []
        engine.streams.close().addCallback(closed.append)
        storage.fail()
        assert storage.closed
        assert closed == [None]
        failures.clear()

    def test_close_without_commits(self) -> None:
        """With nothing in flight it is closed at once."""
        engine, storage = with_stream()
        engine.streams.close()
        assert storage.closed


class RecoveryTests:
    """The same state comes out of the changes that were committed."""

    def test_everything_comes_back(self) -> None:
        """Data, closure, producers, Stream-Seq, forks, soft deletes and usage are those of before."""
        engine, storage = delayed()
        engine.put("a", b"1")
        engine.produce("a", "p", 3, 0, b"2")
        engine.post("a", b"3", stream_seq="m")
        storage.finish_all()
        engine.fork("f", "a")
        storage.finish_all()
        engine.fork("g", "f", b"!")
        engine.put("closed", b"end", stream_closed="true")
        engine.put("deleted", b"x")
        storage.finish_all()
        engine.delete("a")
        engine.delete("deleted")
        storage.finish_all()

        again = Engine(DelayedStorage(journal=storage.journal))
        assert again.get("a").status == 410
        assert again.get("f").body == b"123"
        assert again.get("g").body == b"123!"
        assert again.get("closed").headers["stream-closed"] == "true"
        assert again.get("deleted").status == 404
        assert again.used == engine.used
        assert again.get("f", START).headers["etag"] == engine.get("f", START).headers["etag"]
