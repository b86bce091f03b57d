"""Long-poll: an answer now if there is something new, else when there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dstreams.http.context import HttpSettings
from dstreams.http.messages import Response
from dstreams.protocol.cursors import EPOCH, INTERVAL_SECONDS
from tests.support.engine import START, WALL, DelayedStorage, Engine, FetchingStorage, Reply, offset

pytestmark = pytest.mark.usefixtures("failures")

NOW = int((WALL - EPOCH) // INTERVAL_SECONDS)


def nothing_left(engine: Engine) -> bool:
    """Whether no reader waits, and no timer would call one."""
    waiting = [timer for timers in engine.wheel._slots.values() for timer in timers if timer.active]
    return engine.streams.statistics().live_readers == 0 and not waiting


class AtOnceTests:
    """What needs no waiting."""

    def test_data_is_there(self) -> None:
        """What lies after the offset comes at once, with a cursor."""
        engine = Engine()
        engine.put("s", b"abc")
        poll = engine.poll("s", offset(1))
        assert (poll.status, poll.body) == (200, b"bc")
        assert poll.next_offset == offset(3)
        assert poll.headers["stream-up-to-date"] == "true"
        assert poll.headers["stream-cursor"] == str(NOW)
        assert poll.headers["content-type"] == "text/plain"
        assert poll.headers["etag"]
        assert nothing_left(engine)

    def test_json(self) -> None:
        """As an array, in JSON mode."""
        engine = Engine()
        engine.put_json("s", b"[1,2]")
        assert engine.poll("s", "-1").body == b"[1,2]"

    @pytest.mark.parametrize("at", ["now", offset(3)])
    def test_closed(self, at: str) -> None:
        """At the end of a closed stream nobody waits: 204, closed, no cursor needed."""
        engine = Engine()
        engine.put("s", b"abc", stream_closed="true")
        poll = engine.poll("s", at)
        assert poll.status == 204
        assert poll.headers["stream-closed"] == poll.headers["stream-up-to-date"] == "true"
        assert poll.next_offset == offset(3)
        assert "stream-cursor" not in poll.headers
        assert poll.body == b""
        assert nothing_left(engine)

    def test_last_data_of_a_closed_stream(self) -> None:
        """The last data says that nothing follows."""
        engine = Engine()
        engine.put("s", b"abc", stream_closed="true")
        poll = engine.poll("s", "-1")
        assert (poll.status, poll.body, poll.headers["stream-closed"]) == (200, b"abc", "true")

    def test_not_modified(self) -> None:
        """304 for a client that has it."""
        engine = Engine()
        engine.put("s", b"abc")
        etag = engine.poll("s", "-1").headers["etag"]
        poll = engine.poll("s", "-1", if_none_match=etag)
        assert (poll.status, poll.body) == (304, b"")
        assert poll.headers["stream-cursor"] == str(NOW)

    @pytest.mark.parametrize("at", [offset(7), offset(9), "x"])
    def test_bad_offset(self, at: str) -> None:
        """An offset that isn't one of the stream's isn't waited at."""
        engine = Engine()
        engine.put_json("s", b"[10,20]")
        assert engine.poll("s", at).code == "INVALID_OFFSET"
        assert nothing_left(engine)

    def test_no_stream(self) -> None:
        """404 where there is nothing, 410 where there was, 400 without an offset."""
        engine = Engine()
        assert engine.poll("s").status == 404
        engine.put("s")
        engine.fork("f", "s")
        engine.delete("s")
        assert engine.poll("s").status == 410
        assert engine.ask("GET", "f", query="live=long-poll").status == 400

    def test_inherited_data(self) -> None:
        """A fork's inherited data is there."""
        engine = Engine()
        engine.put("s", b"abc")
        engine.fork("f", "s")
        assert engine.poll("f", offset(1)).body == b"bc"


class WaitingTests:
    """What does."""

    @pytest.mark.parametrize("at", ["now", START, "-1"])
    def test_append(self, at: str) -> None:
        """The next append answers it, once this turn is over."""
        engine = Engine()
        engine.put("s")
        poll = engine.poll("s", at)
        engine.post("s", b"a")
        engine.post("s", b"b")
        assert poll.waits
        engine.turn()
        assert (poll.status, poll.body) == (200, b"ab")
        assert poll.headers["etag"] == engine.get("s", START).headers["etag"]
        assert nothing_left(engine)

    def test_close(self) -> None:
        """So does a close: 204 and the end."""
        engine = Engine()
        engine.put("s", b"x")
        poll = engine.poll("s")
        engine.close("s")
        engine.turn()
        assert poll.status == 204
        assert poll.headers["stream-closed"] == "true"

    def test_append_and_close(self) -> None:
        """Both in one: the data, and that nothing follows."""
        engine = Engine()
        engine.put("s")
        poll = engine.poll("s")
        engine.close("s", b"end")
        engine.turn()
        assert (poll.status, poll.body, poll.headers["stream-closed"]) == (200, b"end", "true")

    def test_all_are_answered(self) -> None:
        """However many wait."""
        engine = Engine()
        engine.put("s")
        polls = [engine.poll("s") for _ in range(100)]
        engine.post("s", b"x")
        engine.turn()
        assert {poll.body for poll in polls} == {b"x"}

    def test_other_streams_are_left_alone(self) -> None:
        """An append wakes the readers of its own stream only."""
        engine = Engine()
        engine.put("s")
        engine.put("t")
        poll = engine.poll("s")
        engine.post("t", b"x")
        engine.turn()
        assert poll.waits
        poll.cancel()

    def test_client_that_closes_its_side(self) -> None:
        """Whoever can still listen when the wait is cancelled gets what the time-out would give."""
        engine = Engine()
        engine.put("s")
        poll = engine.poll("s")
        poll.cancel()
        assert poll.status == 204
        assert poll.headers["stream-up-to-date"] == "true"

    @pytest.mark.parametrize("refused", [b"", b"[", b"[]"])
    def test_refused_append(self, refused: bytes) -> None:
        """An append that is refused wakes nobody."""
        engine = Engine()
        engine.put_json("s")
        poll = engine.poll("s")
        assert engine.post_json("s", refused).status == 400
        engine.turn()
        assert poll.waits
        poll.cancel()

    def test_news_that_is_none(self) -> None:
        """A wake-up that brings nothing for this reader leaves it waiting, with its time-out."""
        engine = Engine()
        engine.put("s")
        engine.fork("f", "s")
        poll = engine.poll("s")
        engine.pass_time(10)
        engine.delete("f")
        engine.turn()
        assert poll.waits
        engine.pass_time(21)
        assert poll.status == 204


class GoneTests:
    """A stream that goes away."""

    def test_delete(self) -> None:
        """404, at once."""
        engine = Engine()
        engine.put("s")
        poll = engine.poll("s")
        engine.delete("s")
        engine.turn()
        assert poll.code == "NOT_FOUND"
        assert nothing_left(engine)

    def test_soft_delete(self) -> None:
        """410, at once."""
        engine = Engine()
        engine.put("s")
        engine.fork("f", "s")
        poll = engine.poll("s")
        engine.delete("s")
        engine.turn()
        assert poll.code == "GONE"
        assert nothing_left(engine)

    def test_recreated_in_the_same_turn(self) -> None:
        """It isn't answered from another stream of the same name."""
        engine = Engine()
        engine.put("s", b"ab")
        poll = engine.poll("s")
        engine.delete("s")
        engine.put("s", b"abcd")
        engine.turn()
        assert poll.status == 404

    def test_append_and_delete_in_one_turn(self) -> None:
        """Data that is gone again isn't delivered."""
        engine = Engine()
        engine.put("s")
        poll = engine.poll("s")
        engine.post("s", b"x")
        engine.delete("s")
        engine.turn()
        assert poll.status == 404


class TimeoutTests:
    """Nothing happens."""

    def test_answer(self) -> None:
        """204 with the tail, a cursor, and that the reader is up to date."""
        engine = Engine(settings=HttpSettings(long_poll_timeout=7))
        engine.put("s", b"abc")
        poll = engine.poll("s")
        engine.pass_time(6.9, 0.1)
        assert poll.waits
        engine.pass_time(0.3, 0.1)
        assert poll.status == 204
        assert poll.next_offset == offset(3)
        assert poll.headers["stream-up-to-date"] == "true"
        assert poll.headers["stream-cursor"] == str(NOW)
        assert poll.headers["cache-control"] == "no-store"
        assert "stream-closed" not in poll.headers
        assert "content-type" not in poll.headers
        assert nothing_left(engine)

    def test_append_in_the_turn_of_the_timeout(self) -> None:
        """Data that came just before the time was up is delivered, not passed over."""
        engine = Engine(settings=HttpSettings(long_poll_timeout=7))
        engine.put("s")
        poll = engine.poll("s")
        engine.pass_time(6.5)
        engine.wheel.call_later(0.3, lambda: engine.post("s", b"x"))
        engine.pass_time(1, 1)
        assert (poll.status, poll.body) == (200, b"x")

    def test_deleted_in_the_turn_of_the_timeout(self) -> None:
        """So is the loss of its stream."""
        engine = Engine(settings=HttpSettings(long_poll_timeout=7))
        engine.put("s")
        poll = engine.poll("s")
        engine.clock.callLater(7.05, lambda: engine.delete("s"))
        engine.clock.advance(8)
        assert poll.status == 404


class CursorTests:
    """Cursors never go backwards (PROTOCOL 10.1)."""

    def test_of_the_time_of_the_answer(self) -> None:
        """The interval in which the answer is given counts, not that of the question."""
        engine = Engine()
        engine.put("s")
        poll = engine.poll("s")
        engine.pass_time(25)
        engine.post("s", b"x")
        engine.turn()
        assert poll.headers["stream-cursor"] == str(NOW + 1)

    @pytest.mark.parametrize("ahead", [0, 1, 500, 10**9])
    def test_client_at_or_ahead(self, ahead: int) -> None:
        """A client at the current interval or ahead of it gets a higher one, with data and without."""
        engine = Engine()
        engine.put("s", b"x")
        poll = engine.poll("s", "-1", NOW + ahead)
        assert 1 <= int(poll.headers["stream-cursor"]) - NOW - ahead <= 180
        poll = engine.poll("s", "now", NOW + ahead)
        engine.pass_time(31)
        assert int(poll.headers["stream-cursor"]) > NOW + ahead

    def test_chain(self) -> None:
        """Following its own cursors a client never sees one twice, however fast it asks."""
        engine = Engine()
        engine.put("s", b"x")
        cursor = None
        for _ in range(100):
            told = int(engine.poll("s", "-1", cursor).headers["stream-cursor"])
            assert cursor is None or told > cursor
            cursor = told

    def test_clock_set_back(self) -> None:
        """Nor when the wall clock goes back."""
        engine = Engine()
        engine.put("s", b"x")
        told = int(engine.poll("s", "-1").headers["stream-cursor"])
        engine.wall_ahead -= 10_000
        assert int(engine.poll("s", "-1", told).headers["stream-cursor"]) > told


class LeavingTests:
    """Clients that go away."""

    def test_nothing_is_left(self) -> None:
        """A client that leaves leaves no reader and no timer behind."""
        engine = Engine()
        engine.put("s")
        engine.poll("s").cancel()
        assert nothing_left(engine)
        engine.post("s", b"x")
        engine.pass_time(60)

    def test_between_publication_and_wake_up(self) -> None:
        """One that leaves in the turn of a publication takes nobody along."""
        engine = Engine()
        engine.put("s")
        polls = [engine.poll("s") for _ in range(3)]
        engine.post("s", b"x")
        polls[1].cancel()
        engine.turn()
        assert [polls[0].body, polls[2].body] == [b"x", b"x"]
        assert nothing_left(engine)

    def test_because_of_another_s_answer(self) -> None:
        """A reader may go while others are being answered."""
        engine = Engine()
        engine.put("s")
        outcomes = [
            engine.application.respond(engine.request("GET", "s", query="offset=now&live=long-poll")) for _ in range(5)
        ]
        answered: list[Response] = []

        def domino(response: Response) -> None:
            answered.append(response)
            for other in outcomes:
                assert not isinstance(other, Response)
                other.cancel()

        for outcome in outcomes:
            assert not isinstance(outcome, Response)
            outcome.addCallback(domino)
        engine.post("s", b"x")
        engine.turn()
        assert len(answered) == 5
        assert nothing_left(engine)

    def test_while_bytes_are_fetched(self) -> None:
        """One that leaves while its answer is fetched cancels that."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s")
        poll = engine.poll("s")
        engine.post("s", b"x")
        engine.turn()
        assert poll.waits
        poll.cancel()
        assert storage.cancelled == 1
        storage.fetch_all()
        assert nothing_left(engine)


class ShutdownTests:
    """The server stops."""

    def test_waiting(self) -> None:
        """Those that wait get their 204."""
        engine = Engine()
        engine.put("s")
        polls = [engine.poll("s") for _ in range(3)]
        engine.streams.end_live()
        engine.turn()
        assert [poll.status for poll in polls] == [204] * 3
        assert all("stream-cursor" in poll.headers for poll in polls)
        assert nothing_left(engine)

    def test_with_news(self) -> None:
        """Or what was published in this very turn."""
        engine = Engine()
        engine.put("s")
        poll = engine.poll("s")
        engine.post("s", b"x")
        engine.streams.end_live()
        engine.turn()
        assert poll.body == b"x"
        engine.turn()

    def test_late(self) -> None:
        """One that comes while the server stops doesn't begin to wait."""
        engine = Engine()
        engine.put("s")
        engine.streams.end_live()
        engine.turn()
        poll = engine.poll("s")
        assert poll.status == 204
        assert "stream-cursor" in poll.headers
        assert "stream-closed" not in poll.headers
        assert nothing_left(engine)


class StorageTests:
    """Storage that takes its time, or breaks."""

    def test_fetched(self) -> None:
        """The answer comes when its bytes do; what is published meanwhile isn't in it."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put_json("s")
        poll = engine.poll("s")
        engine.post_json("s", b"1")
        engine.turn()
        engine.post_json("s", b"2")
        engine.turn()
        storage.fetch_all()
        assert poll.body == b"[1]"
        assert poll.next_offset == offset(2)

    def test_deleted_while_fetched(self) -> None:
        """An answer that is being fetched when its stream is deleted is given."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s")
        poll = engine.poll("s")
        engine.post("s", b"x")
        engine.turn()
        engine.delete("s")
        engine.turn()
        storage.fetch_all()
        assert poll.body == b"x"

    @pytest.mark.parametrize("at_once", [True, False])
    @pytest.mark.parametrize(
        "happens",
        [
            pytest.param(lambda engine, poll: engine.turn(), id="wake-up"),
            pytest.param(lambda engine, poll: engine.streams.end_live(), id="end"),
        ],
    )
    def test_broken(self, at_once: bool, happens: Callable[[Engine, Reply], None], failures: list[str]) -> None:
        """When the bytes can't be read the answer is 500, and nothing of the reader is left."""
        storage = FetchingStorage(at_once=at_once)
        engine = Engine(storage)
        engine.put("s")
        poll = engine.poll("s")
        storage.failing = True
        engine.post("s", b"x")
        happens(engine, poll)
        storage.fetch_all()
        assert poll.status == 500
        assert nothing_left(engine)
        failures.clear()

    def test_commit_after_the_timeout(self) -> None:
        """What isn't durable when the time is up isn't news."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s")
        storage.finish()
        poll = engine.poll("s")
        engine.post("s", b"x")
        engine.pass_time(31)
        assert (poll.status, poll.next_offset) == (204, START)
        storage.finish()
