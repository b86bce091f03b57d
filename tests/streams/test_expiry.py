"""Time-to-live and Expires-At: who renews, who waits, who clears away, and what a wrong clock may do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dstreams.http.context import HttpSettings
from dstreams.storage.interface import StorageError
from dstreams.streams.expiry import CLOCK_QUARANTINE, FORGOTTEN, PERSIST_INTERVAL, PERSIST_SLICE, REAP_SLICE
from tests.support.engine import DelayedStorage, Engine, FailingStorage, Reply, offset

pytestmark = pytest.mark.usefixtures("failures")

PATIENT = HttpSettings(long_poll_timeout=10_000, sse_lifetime=0)


def at(engine: Engine, seconds: float) -> str:
    """An Expires-At, so many seconds from now."""
    return datetime.fromtimestamp(engine.wall() + seconds, UTC).isoformat()


def jump(engine: Engine, seconds: float) -> None:
    """Somebody sets the wall clock."""
    engine.wall_ahead += seconds


def frozen_time(engine: Engine, seconds: float) -> None:
    """Let time pass without anything that waits for it being called."""
    engine.clock.rightNow += seconds


class SlidingTests:
    """Stream-TTL: seconds without use."""

    def test_expires(self) -> None:
        """An unused stream is gone when its time is up, for everybody, and its name is free."""
        engine = Engine()
        engine.put("s", b"old", stream_ttl="10")
        frozen_time(engine, 9.9)
        assert engine.head("s").status == 200
        frozen_time(engine, 0.1)
        for reply in [engine.head("s"), engine.get("s"), engine.poll("s"), engine.sse("s")]:
            assert reply.status == 404
        assert engine.post("s", b"x").status == 404
        assert engine.delete("s").status == 404
        assert engine.fork("f", "s").status == 404
        assert engine.put("s", b"new").status == 201
        assert engine.get("s").body == b"new"

    @pytest.mark.parametrize(
        "use",
        [
            pytest.param(lambda engine: engine.get("s"), id="read"),
            pytest.param(lambda engine: engine.get("s", "now"), id="read now"),
            pytest.param(lambda engine: engine.get("s", offset(1)), id="empty read"),
            pytest.param(lambda engine: engine.get("s", if_none_match=engine.get("s").headers["etag"]), id="304"),
            pytest.param(lambda engine: engine.poll("s", "-1"), id="long-poll"),
            pytest.param(lambda engine: engine.poll("s").cancel(), id="long-poll that waits"),
            pytest.param(lambda engine: engine.follow("s")[0].stop(), id="sse"),
            pytest.param(lambda engine: engine.post("s", b"x"), id="append"),
            pytest.param(lambda engine: engine.produce("s", "q", int(engine.wall()), 0), id="producer"),
        ],
    )
    def test_renewed(self, use: Callable[[Engine], object]) -> None:
        """Every read and write begins the time anew."""
        engine = Engine()
        engine.put("s", b"x", stream_ttl="10")
        for _ in range(5):
            frozen_time(engine, 7)
            use(engine)
        assert engine.head("s").status == 200
        frozen_time(engine, 10)
        assert engine.head("s").status == 404

    def test_renewed_by_a_close(self) -> None:
        """So does a close; one that finds the stream closed is no write."""
        engine = Engine()
        engine.put("s", stream_ttl="10")
        frozen_time(engine, 7)
        engine.close("s")
        frozen_time(engine, 7)
        assert engine.close("s").status == 204
        frozen_time(engine, 3)
        assert engine.head("s").status == 404

    @pytest.mark.parametrize(
        "ask",
        [
            pytest.param(lambda engine: engine.head("s"), id="head"),
            pytest.param(lambda engine: engine.put("s", stream_ttl="10"), id="put"),
            pytest.param(lambda engine: engine.put("s", stream_ttl="11"), id="another put"),
            pytest.param(lambda engine: engine.post("s", b""), id="empty append"),
            pytest.param(lambda engine: engine.post_json("s", b"1"), id="append of another type"),
            pytest.param(lambda engine: engine.post("s", b"x" * 20_000_000), id="too large an append"),
            pytest.param(lambda engine: engine.produce("s", "p", 0, 0), id="duplicate"),
            pytest.param(lambda engine: engine.produce("s", "p", 0, 7), id="gap"),
            pytest.param(lambda engine: engine.get("s", offset(99)), id="bad offset"),
            pytest.param(lambda engine: engine.sse("s", offset(99)), id="bad offset of sse"),
            pytest.param(lambda engine: engine.poll("s", offset(99)), id="bad offset of a long-poll"),
            pytest.param(lambda engine: engine.fork("f", "s"), id="fork"),
            pytest.param(lambda engine: engine.ask("OPTIONS", "s"), id="preflight"),
        ],
    )
    def test_not_renewed(self, ask: Callable[[Engine], object]) -> None:
        """What neither reads nor writes doesn't."""
        engine = Engine()
        engine.put("s", stream_ttl="10")
        engine.produce("s", "p", 0, 0)
        frozen_time(engine, 7)
        ask(engine)
        frozen_time(engine, 3)
        assert engine.head("s").status in {404, 410}

    def test_zero(self) -> None:
        """A stream with no time to live is gone at once, and can be made again."""
        engine = Engine()
        assert engine.put("s", b"x", stream_ttl="0").status == 201
        assert engine.head("s").status == 404
        assert engine.put("s", b"x", stream_ttl="0").status == 201
        engine.pass_time(3)
        assert engine.used == 0

    def test_longest(self) -> None:
        """Nor does the largest value break anything."""
        engine = Engine()
        assert engine.put("s", stream_ttl=str(2**53 - 1)).status == 201
        engine.pass_time(1000, 100)
        assert engine.head("s").headers["stream-ttl"] == str(2**53 - 1)

    def test_wall_clock_doesn_t_matter(self) -> None:
        """Setting the wall clock expires nothing."""
        engine = Engine()
        engine.put("s", b"x", stream_ttl="10")
        for seconds in (1e6, -3e6):
            jump(engine, seconds)
            engine.pass_time(4)
            assert engine.get("s").body == b"x"

    def test_uncommitted(self) -> None:
        """The time begins when the stream is durable."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", stream_ttl="10")
        frozen_time(engine, 50)
        append = engine.post("s", b"x")
        storage.finish_all()
        assert append.status == 204
        frozen_time(engine, 9)
        assert engine.head("s").status == 200
        frozen_time(engine, 1)
        assert engine.head("s").status == 404

    def test_failed_create_leaves_nothing(self, failures: list[str]) -> None:
        """Creates that fail leave nothing to watch, whatever was appended meanwhile."""
        storage = DelayedStorage()
        engine = Engine(storage)
        for _ in range(10):
            engine.put("s", stream_ttl="10")
            engine.post("s", b"x")
            storage.fail()
        assert engine.streams._expiry._used == {}
        assert engine.streams._expiry._idle_deadlines == []
        failures.clear()


class LiveReaderTests:
    """A stream that is being followed is in use."""

    def test_long_poll(self) -> None:
        """It doesn't expire while somebody waits; the time begins when the last one has gone."""
        engine = Engine(settings=PATIENT)
        engine.put("s", stream_ttl="10")
        polls = [engine.poll("s"), engine.poll("s")]
        engine.pass_time(100)
        polls[0].cancel()
        engine.pass_time(100)
        assert engine.head("s").status == 200
        polls[1].cancel()
        engine.pass_time(9)
        assert engine.head("s").status == 200
        engine.pass_time(1)
        assert engine.head("s").status == 404

    def test_sse(self) -> None:
        """So it is with SSE readers."""
        engine = Engine(settings=PATIENT)
        engine.put("s", stream_ttl="10")
        body, _ = engine.follow("s")
        engine.pass_time(100)
        assert engine.head("s").status == 200
        body.stop()
        engine.pass_time(9)
        assert engine.head("s").status == 200
        engine.pass_time(3)
        assert engine.streams.statistics().streams == 0

    def test_followed_fork(self) -> None:
        """A reader of a fork doesn't use its source: that expires, and stays for the fork."""
        engine = Engine(settings=PATIENT)
        engine.put("s", b"x", stream_ttl="10")
        engine.fork("f", "s", stream_ttl="1000")
        engine.follow("f")
        engine.pass_time(12)
        assert engine.head("s").status == 410
        assert engine.get("f").body == b"x"

    def test_deleted_all_the_same(self) -> None:
        """An explicit delete doesn't ask who reads."""
        engine = Engine(settings=PATIENT)
        engine.put("s", stream_ttl="10")
        poll = engine.poll("s")
        assert engine.delete("s").status == 204
        engine.turn()
        assert poll.status == 404


class AbsoluteTests:
    """Stream-Expires-At: a point in time."""

    def test_expires(self) -> None:
        """At that time it is gone, however much it is used."""
        engine = Engine()
        engine.put("s", b"x", stream_expires_at=at(engine, 10))
        for _ in range(9):
            engine.pass_time(1)
            assert engine.get("s").status == engine.post("s", b"x").status - 4 == 200
        frozen_time(engine, 1)
        assert engine.get("s").status == 404

    def test_past(self) -> None:
        """A time in the past is taken; the stream is gone at once."""
        engine = Engine()
        assert engine.put("s", stream_expires_at="2001-01-01T00:00:00Z").status == 201
        assert engine.head("s").status == 404
        assert engine.put("s", stream_expires_at="2001-01-01T00:00:00Z").status == 201

    def test_waiters_are_woken(self) -> None:
        """Readers that wait are told when the time comes, not when they time out."""
        engine = Engine(settings=PATIENT)
        engine.put("s", stream_expires_at=at(engine, 10))
        poll = engine.poll("s")
        _, sink = engine.follow("s")
        engine.pass_time(9.9, 0.1)
        assert poll.waits
        assert not sink.finished
        engine.pass_time(0.3, 0.1)
        assert poll.status == 404
        assert sink.finished
        assert engine.streams.statistics().live_readers == 0

    def test_waiters_of_a_source(self) -> None:
        """With forks it is 410."""
        engine = Engine(settings=PATIENT)
        engine.put("s", stream_expires_at=at(engine, 10))
        engine.fork("f", "s", stream_ttl="1000")
        poll = engine.poll("s")
        engine.pass_time(10.5)
        assert poll.status == 410

    def test_clock_put_back_while_waiting(self) -> None:
        """When the wall clock goes back they wait until it comes there again."""
        engine = Engine(settings=PATIENT)
        engine.put("s", stream_expires_at=at(engine, 10))
        poll = engine.poll("s")
        engine.pass_time(5)
        jump(engine, -100)
        engine.pass_time(104)
        assert poll.waits
        engine.pass_time(2)
        assert poll.status == 404

    def test_far_away(self) -> None:
        """A time beyond any timer is waited for in parts."""
        engine = Engine(settings=HttpSettings(long_poll_timeout=1e9))
        engine.put("s", stream_expires_at=at(engine, 200_000))
        poll = engine.poll("s")
        engine.pass_time(199_900, 100)
        assert poll.waits
        engine.pass_time(101)
        assert poll.status == 404

    def test_alarm_ends_with_its_readers(self) -> None:
        """Readers that have gone leave no alarm behind."""
        engine = Engine(settings=PATIENT)
        engine.put("s", stream_expires_at=at(engine, 1000))
        for _ in range(5):
            engine.poll("s").cancel()
        alarms = [timer for timers in engine.wheel._slots.values() for timer in timers if timer.active]
        assert len(alarms) == 1, "the reaper's"


class ForkTests:
    """Expiry of forks and of their sources (PROTOCOL 4.2)."""

    @pytest.mark.parametrize("source", [{}, {"stream_ttl": "10"}, {"stream_expires_at": "2030-01-01T00:00:00Z"}])
    @pytest.mark.parametrize("fork", [{}, {"stream_ttl": "99"}, {"stream_expires_at": "2031-01-01T00:00:00Z"}])
    def test_table(self, source: dict[str, str], fork: dict[str, str]) -> None:
        """A fork has its own life if it asks for one, else its source's."""
        engine = Engine()
        engine.put("s", b"", "text/plain", **source)
        engine.fork("f", "s", b"", **fork)
        head = engine.head("f").headers
        asked = fork or source
        assert head.get("stream-ttl") == asked.get("stream_ttl")
        assert head.get("stream-expires-at", "")[:4] == asked.get("stream_expires_at", "")[:4]
        assert engine.fork("f", "s", b"", **fork).status == 200

    def test_refreshed_independently(self) -> None:
        """The inherited window slides by the fork's own use."""
        engine = Engine()
        engine.put("s", b"x", stream_ttl="10")
        engine.fork("f", "s")
        for _ in range(3):
            frozen_time(engine, 7)
            engine.get("f")
        assert engine.head("s").status == 410
        assert engine.get("f").body == b"x"

    def test_expired_source(self) -> None:
        """An expired source with forks is as one that was deleted: 410, name kept, data there for them."""
        engine = Engine()
        engine.put("s", b"x", stream_ttl="10")
        engine.fork("f", "s", stream_ttl="1000")
        frozen_time(engine, 10)
        assert engine.get("s").status == 410
        assert engine.put("s").code == "PATH_BLOCKED"
        assert engine.fork("g", "s").code == "FORK_FROM_TOMBSTONE"
        assert engine.post("s", b"x").status == engine.delete("s").status == 410
        assert engine.get("f").body == b"x"
        engine.delete("f")
        assert engine.head("s").status == 404
        assert engine.used == 0

    def test_expired_fork_takes_its_source_along(self) -> None:
        """The last fork's expiry clears away a soft-deleted source, without anybody's asking."""
        engine = Engine()
        engine.put("s", b"x")
        engine.fork("f", "s", stream_ttl="10")
        engine.fork("g", "f", stream_ttl="20")
        engine.delete("s")
        engine.pass_time(12)
        assert engine.head("f").status == 410
        engine.pass_time(10)
        assert engine.streams.statistics().streams == 0
        assert engine.used == 0


class ReaperTests:
    """Expired streams are cleared away in the background."""

    def test_without_a_request(self) -> None:
        """An expired stream is removed, and what it cost given back, without anybody's asking."""
        engine = Engine()
        engine.put("a", b"x" * 1000, stream_ttl="10")
        engine.put("b", b"x" * 1000, stream_expires_at=at(engine, 10))
        engine.put("c", b"x")
        engine.pass_time(9)
        assert engine.streams.statistics().streams == 3
        engine.pass_time(3)
        assert engine.streams.statistics().streams == 1
        assert engine.delete("c").status == 204
        assert engine.used == 0

    def test_in_slices(self) -> None:
        """However many expire together, a turn of the reactor removes a bounded number of them."""
        engine = Engine()
        for number in range(2000):
            engine.put(f"s{number}", stream_ttl="10")
        engine.pass_time(9)
        left = [2000]
        while left[-1]:
            engine.clock.advance(0.05)
            left.append(engine.streams.statistics().streams)
            assert left[-2] - left[-1] <= REAP_SLICE
            assert len(left) < 200

    def test_renewed_streams_are_left(self) -> None:
        """Used streams stay, and aren't looked at again before their time."""
        engine = Engine()
        engine.put("s", stream_ttl="10")
        for _ in range(20):
            engine.pass_time(6)
            engine.get("s")
        assert engine.head("s").status == 200
        assert len(engine.streams._expiry._idle_deadlines) == 1

    def test_rests_when_there_is_nothing(self) -> None:
        """Without streams that expire no timer runs."""
        engine = Engine()
        engine.put("s", stream_ttl="1")
        engine.pass_time(5)
        assert engine.clock.getDelayedCalls() == []
        engine.put("s", stream_ttl="1")
        engine.pass_time(5)
        assert engine.streams.statistics().streams == 0

    def test_deleted_streams_leave_nothing(self) -> None:
        """Streams that are deleted long before their time leave no deadlines behind for ever."""
        engine = Engine()
        engine.put("stays", stream_ttl="50")
        lives = ({"stream_ttl": "99999999"}, {"stream_expires_at": at(engine, 1e8)})
        for number in range(5 * FORGOTTEN):
            engine.put("s", b"", "text/plain", **lives[number % 2])
            engine.delete("s")
            engine.clock.advance(0)
        expiry = engine.streams._expiry
        assert len(expiry._idle_deadlines) + len(expiry._absolute_deadlines) <= 3 * FORGOTTEN
        assert len(expiry._used) == 1
        engine.pass_time(52)
        assert engine.head("stays").status == 404
        assert engine.used == 0

    def test_failing_storage(self, failures: list[str]) -> None:
        """A stream that can't be removed answers 404 to readers, and is removed when storage works again."""
        storage = FailingStorage()
        engine = Engine(storage)
        engine.put("s", b"x", stream_ttl="10")
        storage.error = StorageError("disk")
        engine.pass_time(15)
        assert engine.get("s").status == 404
        assert engine.post("s", b"x").status == 503
        assert engine.put("s").status == 503
        assert engine.streams.statistics().streams == 1
        storage.error = None
        engine.pass_time(2)
        assert engine.streams.statistics().streams == 0
        assert engine.used == 0
        failures.clear()

    def test_no_append_to_the_dead(self, failures: list[str]) -> None:
        """A stream that is over isn't brought back by an append that comes when its removal has failed."""

        class FailsOnce(FailingStorage):
            def commit(self, changes: object) -> None:
                error, self.error = self.error, None
                if error is not None:
                    raise error
                super().commit(changes)  # type: ignore[arg-type]

        storage = FailsOnce()
        engine = Engine(storage)
        engine.put("s", b"x", stream_ttl="10")
        frozen_time(engine, 10)
        storage.error = StorageError("disk")
        assert engine.post("s", b"x").status == 503
        assert engine.post("s", b"x").status == 404
        failures.clear()

    def test_storage_that_takes_nothing_any_more(self) -> None:
        """When it is known that nothing can be removed it isn't tried, by whoever asks and by the reaper."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", b"x", stream_ttl="10")
        storage.finish_all()
        groups = len(storage.groups)
        storage.failure = "the disk is full"
        engine.pass_time(15)
        assert engine.get("s").status == 404
        assert engine.post("s", b"x").status == engine.put("s").status == 503
        assert len(storage.groups) == groups

    def test_removal_under_way(self) -> None:
        """While the removal is under way the stream is gone for readers; the name is free for writers."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", b"old", stream_ttl="10")
        storage.finish_all()
        engine.pass_time(12)
        assert storage.busy
        assert engine.get("s").status == 404
        made = engine.put("s", b"new")
        storage.finish_all()
        assert made.status == 201
        assert engine.get("s").body == b"new"
        assert len(storage.groups) == 3

    def test_failed_removal_is_tried_again(self, failures: list[str]) -> None:
        """A removal that fails later is tried again, although nobody asks."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", stream_ttl="10")
        storage.finish_all()
        engine.pass_time(12)
        storage.fail()
        assert not storage.busy
        engine.pass_time(2)
        storage.finish()
        assert engine.streams.statistics().streams == 0
        assert engine.used == 0
        failures.clear()

    def test_asked_for_while_the_removal_fails(self, failures: list[str]) -> None:
        """So is one that a reader has begun."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", stream_ttl="10")
        storage.finish_all()
        frozen_time(engine, 10)
        assert engine.get("s").status == 404
        engine.pass_time(3)
        storage.fail()
        engine.pass_time(2)
        storage.finish()
        assert engine.streams.statistics().streams == 0
        failures.clear()


class ClockTests:
    """The wall clock is set while streams wait for their Expires-At."""

    def everything(self, engine: Engine) -> list[Reply]:
        return [engine.head("s"), engine.get("s"), engine.poll("s"), engine.sse("s")]

    def test_jump_forward_and_back(self) -> None:
        """What a wrong clock hides is hidden only: when it is put right the data is there."""
        engine = Engine()
        engine.put("s", b"data", stream_expires_at=at(engine, 3600))
        engine.pass_time(10)
        jump(engine, 86_400)
        for _ in range(10):
            assert [reply.status for reply in self.everything(engine)] == [404] * 4
            engine.pass_time(50)
        jump(engine, -86_400)
        assert engine.get("s").body == b"data"
        assert engine.post("s", b"!").status == 204

    def test_writers_meanwhile(self) -> None:
        """Meanwhile writers are told to wait: what they meant to write to may be there still."""
        engine = Engine()
        engine.put("s", b"data", stream_expires_at=at(engine, 3600))
        jump(engine, 86_400)
        engine.pass_time(2)
        replies = [
            engine.post("s", b"x"),
            engine.close("s"),
            engine.delete("s"),
            engine.put("s", b"new"),
            engine.fork("f", "s"),
        ]
        assert [reply.status for reply in replies] == [503] * 5
        assert all(reply.headers["retry-after"] == "1" for reply in replies)
        jump(engine, -86_400)
        assert engine.get("s").body == b"data"

    def test_removed_when_the_clock_stays(self) -> None:
        """A clock that stays where it was put is believed after a while."""
        engine = Engine()
        engine.put("s", b"data", stream_expires_at=at(engine, 3600))
        engine.pass_time(10)
        jump(engine, 86_400)
        engine.pass_time(CLOCK_QUARANTINE - 10)
        assert engine.streams.statistics().streams == 1
        engine.pass_time(20)
        assert engine.streams.statistics().streams == 0
        assert engine.put("s", b"new").status == 201

    def test_every_jump_begins_it_anew(self) -> None:
        """So long as somebody plays with the clock nothing is removed."""
        engine = Engine()
        engine.put("s", b"data", stream_expires_at=at(engine, 3600))
        for _ in range(10):
            jump(engine, 7200)
            engine.pass_time(CLOCK_QUARANTINE / 2)
        assert engine.streams.statistics().streams == 1

    def test_small_corrections(self) -> None:
        """Corrections of a second now and then are none of that."""
        engine = Engine()
        engine.put("s", b"data", stream_expires_at=at(engine, 100))
        for _ in range(5):
            jump(engine, 1)
            engine.pass_time(10)
        engine.pass_time(47)
        assert engine.streams.statistics().streams == 0

    def test_drift_while_nobody_looked(self) -> None:
        """Nor is a drift that came while no stream had an Expires-At."""
        engine = Engine()
        jump(engine, 50)
        engine.put("s", b"data", stream_expires_at=at(engine, 10))
        engine.pass_time(12)
        assert engine.streams.statistics().streams == 0

    def test_waiters(self) -> None:
        """A waiting reader isn't told anything wrong by a jump that is undone."""
        engine = Engine(settings=PATIENT)
        engine.put("s", stream_expires_at=at(engine, 3600))
        poll = engine.poll("s")
        jump(engine, 1800)
        engine.pass_time(10)
        jump(engine, -1800)
        engine.pass_time(3500)
        assert poll.waits
        engine.post("s", b"x")
        engine.turn()
        assert poll.body == b"x"


class PersistenceTests:
    """Renewed TTLs reach the storage late, and together."""

    def test_in_bulk(self) -> None:
        """Any number of reads of any number of streams costs one commit after a while, none at once."""
        storage = DelayedStorage()
        engine = Engine(storage)
        for name in "abc":
            engine.put(name, stream_ttl="1000")
        storage.finish_all()
        groups = len(storage.groups)
        for _ in range(20):
            engine.get("a")
            engine.get("b")
            engine.pass_time(1)
        assert len(storage.groups) == groups
        engine.pass_time(PERSIST_INTERVAL)
        storage.finish_all()
        assert len(storage.groups) == groups + 1
        assert len(storage.groups[-1]) == 2

    def test_many_in_slices(self) -> None:
        """Many are committed part by part, each after the one before; what is left at the end goes then."""
        storage, count = DelayedStorage(), 5 * PERSIST_SLICE
        engine = Engine(storage)
        for number in range(count):
            engine.put(f"s{number}", stream_ttl="1000")
        storage.finish_all()
        groups = len(storage.groups)
        for number in range(count):
            engine.get(f"s{number}")
        engine.pass_time(PERSIST_INTERVAL + 1)
        assert [len(group) for group in storage.groups[groups:]] == [PERSIST_SLICE]
        storage.finish()
        engine.pass_time(1)
        assert [len(group) for group in storage.groups[groups:]] == [PERSIST_SLICE] * 2
        engine.get("s0")
        engine.streams.close()
        storage.finish_all()
        touched = [change.stream_id for group in storage.groups[groups:] for change in group]
        assert len(set(touched)) == count
        assert len(touched) <= count + 1

    def test_not_where_nothing_lasts(self) -> None:
        """Storage that forgets everything isn't bothered."""
        storage = DelayedStorage(persistent=False)
        engine = Engine(storage)
        engine.put("s", stream_ttl="1000")
        storage.finish_all()
        engine.get("s")
        engine.pass_time(100)
        assert len(storage.groups) == 1

    def test_recovered(self) -> None:
        """After a restart a stream has at least the time it had left."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", b"x", stream_ttl="100")
        storage.finish_all()
        engine.pass_time(80)
        engine.get("s")
        engine.streams.close()
        storage.finish_all()
        again = Engine(DelayedStorage(journal=storage.journal), wall_ahead=engine.wall())
        again.pass_time(99)
        assert again.get("s").body == b"x"
        again.pass_time(99)
        assert again.head("s").status == 200
        again.pass_time(1)
        assert again.head("s").status == 404

    def test_over_while_it_was_down(self) -> None:
        """One whose time was up while the server was down is gone."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", b"x", stream_ttl="100")
        storage.finish_all()
        again = Engine(DelayedStorage(journal=storage.journal), wall_ahead=engine.wall() + 200)
        assert again.head("s").status == 404

    def test_failed(self, failures: list[str]) -> None:
        """Renewals that can't be kept hurt nobody; the next ones are tried again."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", b"x", stream_ttl="1000")
        storage.finish_all()
        engine.get("s")
        engine.pass_time(PERSIST_INTERVAL + 1)
        storage.fail()
        assert engine.get("s").body == b"x"
        engine.pass_time(PERSIST_INTERVAL + 1)
        storage.finish()
        assert not storage.busy
        failures.clear()
