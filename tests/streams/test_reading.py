"""Reads: chains of forks, answers cut at message ends, storage whose bytes must be fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.context import HttpSettings
from dstreams.streams import reading
from dstreams.streams.limits import StoreLimits
from tests.support.engine import START, DelayedStorage, Engine, FakeSink, FetchingStorage, Reply, offset, payloads

pytestmark = pytest.mark.usefixtures("failures")

HUGE = StoreLimits(total_bytes=1 << 30, stream_bytes=1 << 30, fork_depth=1 << 30)


@define(eq=False)
class Library:
    """A server whose storage answers at once or later, with the same outcome."""

    storage: FetchingStorage
    settings: HttpSettings = field(factory=HttpSettings)
    engine: Engine = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.engine = Engine(self.storage, HUGE, self.settings)

    def get(self, name: str, at: str | None = None, **headers: str) -> Reply:
        return self.arrive(self.engine.get(name, at, **headers))

    def arrive(self, reply: Reply) -> Reply:
        self.storage.fetch_all()
        assert not reply.waits
        return reply

    def body(self, reply: Reply) -> bytes:
        """The whole body, however it comes."""
        if isinstance(reply.response.body, bytes):
            return reply.body
        sink = FakeSink()
        length = reply.live.length
        reply.live.start(sink)
        self.storage.fetch_all()
        assert sink.finished
        assert len(sink.data) == length
        return sink.data

    def read_on(self, name: str, at: str = START) -> Iterator[tuple[str, bytes]]:
        """Read answer by answer up to the tail; (next offset, body) of each."""
        while True:
            reply = self.get(name, at)
            assert reply.status == 200
            assert reply.next_offset > at or "stream-up-to-date" in reply.headers
            at = reply.next_offset
            yield at, self.body(reply)
            if "stream-up-to-date" in reply.headers:
                return


@pytest.fixture(params=[True, False], ids=["at once", "later"])
def storage(request: pytest.FixtureRequest) -> FetchingStorage:
    return FetchingStorage(at_once=request.param)


@pytest.fixture
def library(storage: FetchingStorage) -> Library:
    return Library(storage)


def capped(storage: FetchingStorage, limit: int) -> Library:
    return Library(storage, HttpSettings(max_answer_bytes=limit))


class ForkTests:
    """What a fork inherits."""

    def test_fork_of_a_fork(self, library: Library) -> None:
        """Every ancestor gives its part up to where the next one left it."""
        engine = library.engine
        engine.put("a", b"a0")
        engine.post("a", b"a1")
        engine.fork("b", "a", b"b2")
        engine.post("a", b"a2")
        engine.post("b", b"b3")
        engine.fork("c", "b", b"c4")
        engine.post("b", b"b4")
        assert library.body(library.get("c")) == b"a0a1b2b3c4"
        assert library.body(library.get("b")) == b"a0a1b2b3b4"
        assert library.body(library.get("a")) == b"a0a1a2"

    def test_depth(self) -> None:
        """A fork may have so many ancestors; the next one is refused, also while its body is still arriving, but not
        one that is there already.
        """
        engine = Engine(limits=StoreLimits(fork_depth=3))
        engine.put("0", b"0")
        for depth in range(1, 4):
            assert engine.fork(str(depth), str(depth - 1), b"%d" % depth).status == 201
        refused = engine.fork("4", "3")
        assert (refused.status, refused.problem["code"]) == (409, "FORK_TOO_DEEP")
        assert "3 forks deep" in str(refused.problem["detail"])
        request = engine.request("PUT", "4", None, stream_forked_from="/v1/stream/3")
        early = engine.application.validate_head(request)
        assert early is not None
        assert early.status == 409
        assert engine.fork("3", "2").status == 200
        assert engine.fork("other", "2").status == 201
        # What is deleted but kept for its forks counts: it is read all the same.
        engine.delete("1")
        assert engine.fork("4", "3").status == 409

    def test_deeper_ones_that_are_there(self) -> None:
        """When the limit has become lower, deeper forks are read, appended to and deleted as before."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("0", b"0")
        storage.finish_all()
        for depth in range(1, 6):
            engine.fork(str(depth), str(depth - 1), b"%d" % depth)
            storage.finish_all()
        lowered_storage = DelayedStorage(journal=storage.journal)
        lowered = Engine(lowered_storage, StoreLimits(fork_depth=2))
        answers = [lowered.get("5"), lowered.post("5", b"x"), lowered.fork("6", "5"), lowered.delete("5")]
        lowered_storage.finish_all()
        assert [answer.status for answer in answers] == [200, 204, 409, 204]
        assert answers[0].body == b"012345"

    def test_fork_below_its_source_s_own_fork_point(self, library: Library) -> None:
        """Of a source that left its own source further up a fork inherits nothing."""
        engine = library.engine
        engine.put("a", b"r0")
        engine.post("a", b"r1")
        engine.fork("b", "a", b"b2")
        for position, expected in [(0, b""), (2, b"r0"), (4, b"r0r1"), (6, b"r0r1b2")]:
            fork = library.arrive(engine.fork(f"c{position}", "b", stream_fork_offset=offset(position)))
            assert fork.status == 201
            assert fork.next_offset == offset(position)
            assert library.body(library.get(f"c{position}")) == expected
            engine.post(f"c{position}", b"!")
            assert library.body(library.get(f"c{position}")) == expected + b"!"

    def test_resuming_inside_an_ancestor(self, library: Library) -> None:
        """A read goes on from any offset, whichever ancestor it lies in, without repeating anything."""
        engine = library.engine
        engine.put("a", b"a0")
        engine.post("a", b"a2")
        engine.fork("b", "a", b"b4")
        engine.fork("c", "b", b"c6")
        whole = b"a0a2b4c6"
        for position in range(len(whole) + 1):
            assert library.body(library.get("c", offset(position))) == whole[position:]

    def test_source_appends_are_not_inherited(self, library: Library) -> None:
        """What is appended to a source later isn't seen by its forks, nor does it wake their readers."""
        engine = library.engine
        engine.put("a", b"x")
        engine.fork("f", "a")
        poll = engine.poll("f")
        engine.post("a", b"y")
        engine.turn()
        assert poll.waits
        assert library.body(library.get("f")) == b"x"
        poll.cancel()

    def test_deleted_sources(self, library: Library) -> None:
        """Forks read on when their sources are deleted, one after the other."""
        engine = library.engine
        engine.put_json("a", b"[1,2]")
        engine.fork("b", "a", b"3")
        engine.fork("c", "b", b"4")
        for name in "ab":
            assert engine.delete(name).status == 204
            assert library.body(library.get("c")) == b"[1,2,3,4]"
        assert [engine.head(name).status for name in "abc"] == [410, 410, 200]
        assert engine.delete("c").status == 204
        assert [engine.head(name).status for name in "abc"] == [404] * 3
        assert engine.used == 0

    def test_json_across_the_fork_point(self, library: Library) -> None:
        """Inherited and own messages are one array; an offset inside a message is that of its start in all of them."""
        engine = library.engine
        engine.put_json("a", b'[{"a":1},{"b":2}]')
        engine.fork("b", "a", b'{"c":3}')
        assert json.loads(library.body(library.get("b"))) == [{"a": 1}, {"b": 2}, {"c": 3}]
        assert library.body(library.get("b", offset(8))) == b'[{"b":2},{"c":3}]'
        assert library.body(library.get("b", offset(16))) == b'[{"c":3}]'
        for position in range(25):
            whole, inside = library.get("b", offset(position - position % 8)), library.get("b", offset(position))
            assert library.body(inside) == library.body(whole)
            assert inside.headers == whole.headers

    @pytest.mark.parametrize(
        ("anchor", "sub_offset", "inherited"),
        [(0, 1, b"a"), (0, 3, b"abc"), (3, 2, b"abcde"), (3, 3, b"abcdef"), (6, 0, b"abcdef"), (0, 0, b"")],
    )
    def test_sub_offset_in_bytes(self, library: Library, anchor: int, sub_offset: int, inherited: bytes) -> None:
        """A sub-offset takes part of the next append along."""
        engine = library.engine
        engine.put("s", b"abc")
        engine.post("s", b"def")
        fork = library.arrive(
            engine.fork("f", "s", stream_fork_offset=offset(anchor), stream_fork_sub_offset=str(sub_offset))
        )
        assert fork.status == 201
        engine.post("f", b"!")
        assert library.body(library.get("f")) == inherited + b"!"
        assert library.body(library.get("s")) == b"abcdef"

    @pytest.mark.parametrize(
        ("anchor", "sub_offset"), [(0, 4), (3, 4), (6, 1), (2, 2), (0, 10**15), (7, 0), (10**15, 0)]
    )
    def test_sub_offset_past_the_boundary(self, library: Library, anchor: int, sub_offset: int) -> None:
        """It may not go past the end of that append, nor begin past the tail."""
        engine = library.engine
        engine.put("s", b"abc")
        engine.post("s", b"def")
        fork = library.arrive(
            engine.fork("f", "s", stream_fork_offset=offset(anchor), stream_fork_sub_offset=str(sub_offset))
        )
        assert fork.status == 400
        assert engine.head("f").status == 404

    @pytest.mark.parametrize(
        ("anchor", "sub_offset", "messages"),
        [
            (0, 1, [1]),
            (0, 2, [1, 2]),
            (2, 1, [1, 2]),
            (4, 1, [1, 2, 3]),
            (4, 2, None),
            (0, 3, None),
            (1, 0, None),
        ],
    )
    def test_sub_offset_in_messages(
        self, library: Library, anchor: int, sub_offset: int, messages: list[int] | None
    ) -> None:
        """In JSON mode a sub-offset counts messages, up to the end of the append."""
        engine = library.engine
        engine.put_json("s", b"[1,2]")
        engine.post_json("s", b"3")
        fork = library.arrive(
            engine.fork("f", "s", stream_fork_offset=offset(anchor), stream_fork_sub_offset=str(sub_offset))
        )
        if messages is None:
            assert fork.status == 400
        else:
            assert fork.status == 201
            assert json.loads(library.body(library.get("f"))) == messages

    def test_sub_offset_of_a_partial_append(self, library: Library) -> None:
        """The part of an append that a fork inherited ends an append of the fork."""
        engine = library.engine
        engine.put("s", b"abcdef")
        library.arrive(engine.fork("f", "s", stream_fork_offset=START, stream_fork_sub_offset="4"))
        engine.post("f", b"ghi")
        outcomes = {}
        for sub_offset in range(1, 7):
            fork = library.arrive(
                engine.fork(
                    f"g{sub_offset}",
                    "f",
                    stream_fork_offset=offset(2),
                    stream_fork_sub_offset=str(sub_offset),
                )
            )
            outcomes[sub_offset] = fork.status
        assert outcomes == {1: 201, 2: 201, 3: 400, 4: 400, 5: 400, 6: 400}
        assert library.body(library.get("g2")) == b"abcd"

    def test_source_deleted_while_the_fork_point_is_looked_up(self, storage: FetchingStorage) -> None:
        """A fork whose source goes away meanwhile is refused."""
        storage.at_once = False
        library = Library(storage)
        engine = library.engine
        engine.put_json("s", b"[1,2,3]")
        fork = engine.fork("f", "s", stream_fork_offset=offset(2))
        assert fork.waits
        engine.delete("s")
        assert library.arrive(fork).status == 404
        fork = engine.fork("f", "s")
        assert fork.status == 404

    def test_source_recreated_while_the_fork_point_is_looked_up(self, storage: FetchingStorage) -> None:
        """It isn't taken from another stream of the same name."""
        storage.at_once = False
        library = Library(storage)
        engine = library.engine
        engine.put_json("s", b"[1,2,3]")
        fork = engine.fork("f", "s", stream_fork_offset=offset(2))
        engine.delete("s")
        engine.put_json("s", b"[4,5,6,7]")
        assert library.arrive(fork).status == 404

    def test_name_taken_while_the_fork_point_is_looked_up(self, storage: FetchingStorage) -> None:
        """Of two that ask for the same name the first gets it; an equal request finds its fork."""
        storage.at_once = False
        library = Library(storage)
        engine = library.engine
        engine.put_json("s", b"[1,2,3]")
        forks = [engine.fork("f", "s", stream_fork_offset=offset(position)) for position in (2, 4, 2)]
        assert all(fork.waits for fork in forks)
        storage.fetch_all()
        assert [fork.status for fork in forks] == [201, 409, 200]

    def test_client_leaves_while_the_fork_point_is_looked_up(self, storage: FetchingStorage) -> None:
        """Nothing is made for a client that has left before it began."""
        storage.at_once = False
        library = Library(storage)
        engine = library.engine
        engine.put_json("s", b"[1,2,3]")
        engine.fork("f", "s", stream_fork_offset=offset(2)).cancel()
        assert storage.cancelled == 1
        storage.fetch_all()
        assert engine.head("f").status == 404

    def test_broken_index(self, storage: FetchingStorage, failures: list[str]) -> None:
        """A fork point that can't be looked up is the server's fault."""
        library = Library(storage)
        library.engine.put_json("s", b"[1,2,3]")
        storage.failing = True
        fork = library.arrive(library.engine.fork("f", "s", stream_fork_offset=offset(2)))
        assert fork.status == 500
        failures.clear()


BINARY = "application/octet-stream"


class InsideMessageTests:
    """Offsets that no client was ever given, since they lie inside a message."""

    def test_binary(self, library: Library) -> None:
        """The answer begins where the append begins, whose bytes are of no use in part."""
        library.engine.put("s", b"abc", BINARY)
        library.engine.post("s", b"defg", BINARY)
        bodies = [library.body(library.get("s", offset(position))) for position in range(8)]
        assert bodies == [b"abcdefg"] * 3 + [b"defg"] * 4 + [b""]
        assert library.get("s", offset(8)).code == "INVALID_OFFSET"

    def test_json(self, library: Library) -> None:
        """In JSON mode it begins where the message begins, which may be within an append."""
        library.engine.put_json("s", b"[11,22]")
        library.engine.post_json("s", b"33")
        bodies = [library.body(library.get("s", offset(position))) for position in range(10)]
        assert bodies == [b"[11,22,33]"] * 3 + [b"[22,33]"] * 3 + [b"[33]"] * 3 + [b"[]"]

    def test_text(self, library: Library) -> None:
        """In text they count as they are: a reader of text events may have been given any."""
        library.engine.put("s", b"abc")
        library.engine.post("s", b"def")
        assert [library.body(library.get("s", offset(position))) for position in range(7)] == [
            b"abcdef"[position:] for position in range(7)
        ]

    def test_large_message_before_the_limit(self, storage: FetchingStorage) -> None:
        """An answer that goes back to the start of a message goes at least to its end: no client reads in a circle."""
        library = capped(storage, 2)
        library.engine.put("s", b"aaaaaaaa", BINARY)
        library.engine.post("s", b"b", BINARY)
        inside = library.get("s", offset(7))
        assert (library.body(inside), inside.next_offset) == (b"aaaaaaaa", offset(8))

    def test_fork_inside_a_message(self, library: Library) -> None:
        """The part of a message that a fork inherited is one of its messages."""
        library.engine.put("s", b"abcdef", BINARY)
        library.arrive(library.engine.fork("f", "s", stream_fork_offset=START, stream_fork_sub_offset="3"))
        library.engine.post("f", b"XYZ", BINARY)
        bodies = [library.body(library.get("f", offset(position))) for position in range(7)]
        assert bodies == [b"abcXYZ"] * 3 + [b"XYZ"] * 3 + [b""]

    def test_live(self, library: Library) -> None:
        """Long-polls and SSE readers are answered from the same place."""
        engine = library.engine
        engine.put("s", b"abc", BINARY)
        engine.post("s", b"def", BINARY)
        poll = library.arrive(engine.poll("s", offset(4)))
        assert (library.body(poll), poll.next_offset) == (b"def", offset(6))
        sse = library.arrive(engine.sse("s", offset(4)))
        sink = FakeSink()
        sse.live.start(sink)
        library.storage.fetch_all()
        engine.post("s", b"ghi", BINARY)
        engine.turn()
        library.storage.fetch_all()
        assert payloads(sink.data, encoded=True) == b"defghi"
        sse.live.stop()

    def test_fork_offset(self, library: Library) -> None:
        """A fork is made exactly where it is asked for, or not at all."""
        library.engine.put("s", b"abc", BINARY)
        library.engine.fork("f", "s", stream_fork_offset=offset(2))
        assert library.body(library.get("f")) == b"ab"
        library.engine.put_json("j", b"[11,22]")
        fork = library.arrive(library.engine.fork("g", "j", stream_fork_offset=offset(2)))
        assert fork.status == 400

    def test_condition(self, library: Library) -> None:
        """A tag stands for the bytes that were answered: what begins elsewhere has another one."""
        library.engine.put("s", b"abc", BINARY)
        library.engine.post("s", b"def", BINARY)
        tag = library.get("s", offset(4)).headers["etag"]
        assert library.get("s", offset(3)).headers["etag"] == tag
        assert library.get("s", offset(5), if_none_match=tag).status == 304
        other_paths = tag.replace(":3:", ":4:")
        assert other_paths != tag
        assert library.body(library.get("s", offset(4), if_none_match=other_paths)) == b"def"


class CapTests:
    """Answers end at a message, near the limit."""

    @pytest.mark.parametrize(
        ("limit", "answers"),
        [
            (1, [b"aa", b"b", b"cccc", b"dd"]),
            (2, [b"aa", b"b", b"cccc", b"dd"]),
            (3, [b"aab", b"cccc", b"dd"]),
            (6, [b"aab", b"ccccdd"]),
            (7, [b"aabcccc", b"dd"]),
            (8, [b"aabcccc", b"dd"]),
            (9, [b"aabccccdd"]),
        ],
    )
    def test_cut(self, storage: FetchingStorage, limit: int, answers: list[bytes]) -> None:
        """As many whole messages as fit, one at least."""
        library = capped(storage, limit)
        library.engine.put("s", b"aa")
        for body in (b"b", b"cccc", b"dd"):
            library.engine.post("s", body)
        assert [body for _, body in library.read_on("s")] == answers

    def test_up_to_date_and_closed_come_with_the_last(self, storage: FetchingStorage) -> None:
        """Only the answer that reaches the tail says so, and that the stream is closed."""
        library = capped(storage, 2)
        library.engine.put("s", b"aa")
        library.engine.close("s", b"bb")
        first, second = library.get("s"), library.get("s", offset(2))
        assert "stream-up-to-date" not in first.headers
        assert "stream-closed" not in first.headers
        assert (second.headers["stream-up-to-date"], second.headers["stream-closed"]) == ("true", "true")

    def test_json(self, storage: FetchingStorage) -> None:
        """Every answer is an array of its own."""
        library = capped(storage, 5)
        library.engine.put_json("s", b'[1,22,"long message",3]')
        assert [body for _, body in library.read_on("s")] == [b"[1,22]", b'["long message"]', b"[3]"]

    def test_long_poll(self, storage: FetchingStorage) -> None:
        """So is that of a long-poll, and it doesn't claim to be up to date."""
        library = capped(storage, 2)
        library.engine.put("s", b"aa")
        library.engine.post("s", b"bb")
        poll = library.arrive(library.engine.poll("s", "-1"))
        assert (poll.body, poll.next_offset) == (b"aa", offset(2))
        assert "stream-up-to-date" not in poll.headers
        assert "stream-cursor" in poll.headers

    @given(data=st.data())
    def test_any_lineage_and_limit(self, data: st.DataObject) -> None:
        """In any chain of forks, from any position, an answer holds the whole messages that fit. It begins at the
        position in text, and else at the start of the message there.
        """
        content_type = data.draw(st.sampled_from(["text/plain", BINARY]), label="type")
        storage = FetchingStorage(at_once=data.draw(st.booleans(), label="at once"))
        engine = Engine(storage)
        ends: list[int] = []
        text = b""
        name = ""
        for depth in range(data.draw(st.integers(1, 4), label="depth")):
            if not depth:
                engine.put("0", content_type=content_type)
            else:
                cut = data.draw(st.integers(0, len(text)), label="fork point")
                fork = engine.fork(str(depth), name, stream_fork_offset=offset(cut))
                storage.fetch_all()
                assert fork.status == 201
                text = text[:cut]
                ends = [end for end in ends if end < cut] + [cut] * (cut > 0)
            name = str(depth)
            for size in data.draw(st.lists(st.integers(1, 5), max_size=4), label="appends"):
                message = bytes(97 + (len(text) + index) % 26 for index in range(size))
                engine.post(name, message, content_type)
                text += message
                ends.append(len(text))
        start = data.draw(st.integers(0, len(text)), label="start")
        limit = data.draw(st.integers(1, len(text) + 2), label="limit")
        found = engine.streams.read(engine.streams.find(name), start, limit)
        if not isinstance(found, reading.Slice):
            slices: list[reading.Slice] = []
            found.addCallback(slices.append)
            storage.fetch_all()
            found = slices[0]
        if content_type == BINARY and start < len(text):
            start = max((end for end in ends if end <= start), default=0)
        assert found.start == start
        after = [end for end in ends if end > start]
        fitting = [end for end in after if end <= start + limit]
        assert found.end == (fitting[-1] if fitting else after[0] if after else start)
        assert found.up_to_date == (found.end == len(text))
        if len(found):
            read = found.read(found.start, found.end)
            parts: list[bytes] = [read] if isinstance(read, bytes) else []
            if not isinstance(read, bytes):
                read.addCallback(parts.append)
                storage.fetch_all()
            assert parts == [text[start : found.end]]

    @pytest.mark.parametrize("at_once", [True, False])
    def test_deep_chain_of_forks(self, at_once: bool) -> None:
        """A chain of any depth can be read, with any limit."""
        storage = FetchingStorage(at_once=True)
        library = capped(storage, 5000)
        library.engine.put("0", b"0,")
        for depth in range(1, 1500):
            assert library.engine.fork(str(depth), str(depth - 1), b"%d," % depth).status == 201
        storage.at_once = at_once
        expected = b"".join(b"%d," % depth for depth in range(1500))
        assert b"".join(body for _, body in library.read_on("1499")) == expected
        _, sink = library.engine.follow("1499")
        storage.fetch_all()
        assert payloads(sink.data) == expected
        storage.at_once = True
        for depth in range(1500):
            assert library.engine.delete(str(depth)).status == 204
        assert library.engine.used == 0


class LargeBodyTests:
    """Answers that are fetched while they are sent."""

    @pytest.mark.parametrize("json_mode", [False, True])
    def test_pieces(self, library: Library, json_mode: bool) -> None:
        """A large answer comes in bounded pieces with its length known beforehand."""
        if json_mode:
            made = library.engine.put_json("s", b"[%b]" % b",".join(b'"%07d"' % number for number in range(100_000)))
            while made.waits:  # a large body is split in several turns
                library.engine.turn()
            expected = b"[%b]" % b",".join(b'"%07d"' % number for number in range(100_000))
        else:
            expected = b"".join(b"%07d" % number for number in range(100_000))
            library.engine.put("s", expected)
        reply = library.get("s")
        assert reply.live.length == len(expected)
        sink = FakeSink()
        reply.live.start(sink)
        library.storage.fetch_all()
        assert sink.finished
        assert sink.data == expected
        assert max(map(len, sink.writes)) <= 256 * 1024 + 1

    def test_across_forks(self, library: Library) -> None:
        """So does one whose bytes lie in several streams."""
        engine = library.engine
        engine.put("a", b"a" * 300_000)
        engine.fork("b", "a", b"b" * 300_000)
        engine.fork("c", "b", b"c" * 300_000)
        assert library.body(library.get("c")) == b"a" * 300_000 + b"b" * 300_000 + b"c" * 300_000

    def test_slow_client(self, library: Library) -> None:
        """A piece is fetched only when the client has taken the one before."""
        library.engine.put("s", b"x" * 1_000_000)
        reply = library.get("s")
        sink = FakeSink(room=1)
        reply.live.start(sink)
        library.storage.fetch_all()
        for count in range(1, 4):
            assert len(sink.writes) == count
            assert not sink.finished
            library.storage.fetch_all()
            assert len(sink.writes) == count
            sink.room = 1
            reply.live.resume()
            library.storage.fetch_all()
        assert sink.finished
        assert sink.data == b"x" * 1_000_000

    def test_needless_resume(self, storage: FetchingStorage) -> None:
        """Resuming while a piece is being fetched sends nothing twice."""
        library = Library(storage)
        library.engine.put("s", bytes(range(256)) * 4000)
        reply = library.get("s")
        sink = FakeSink()
        reply.live.start(sink)
        for _ in range(10):
            reply.live.resume()
            storage.fetch()
        storage.fetch_all()
        reply.live.resume()
        assert sink.finished
        assert sink.data == bytes(range(256)) * 4000

    def test_client_leaves(self, library: Library) -> None:
        """Nothing is written after the client has gone, and nothing more is fetched."""
        library.engine.put("s", b"x" * 1_000_000)
        reply = library.get("s")
        sink = FakeSink(room=1)
        reply.live.start(sink)
        reply.live.stop()
        written = len(sink.writes)
        library.storage.fetch_all()
        reply.live.resume()
        assert len(sink.writes) == written
        assert not library.storage.waiting
        assert not sink.finished

    def test_stream_deleted_meanwhile(self, library: Library) -> None:
        """An answer that has begun is completed although its stream is deleted."""
        library.engine.put("s", b"x" * 1_000_000)
        reply = library.get("s")
        sink = FakeSink(room=1)
        reply.live.start(sink)
        library.storage.fetch_all()
        library.engine.delete("s")
        library.engine.put("s", b"y" * 1_000_000)
        sink.room = None
        reply.live.resume()
        library.storage.fetch_all()
        assert sink.data == b"x" * 1_000_000

    def test_stream_appended_to_meanwhile(self, library: Library) -> None:
        """It holds what was there when it was asked for."""
        library.engine.put("s", b"x" * 1_000_000)
        reply = library.get("s")
        library.engine.close("s", b"more")
        assert library.body(reply) == b"x" * 1_000_000
        assert "stream-closed" not in reply.headers

    def test_broken_read(self, library: Library, failures: list[str]) -> None:
        """An answer that can't be completed is cut, so that the client notices."""
        library.engine.put("s", b"x" * 1_000_000)
        reply = library.get("s")
        sink = FakeSink(room=1)
        reply.live.start(sink)
        library.storage.fetch_all()
        library.storage.failing = True
        reply.live.resume()
        library.storage.fetch_all()
        assert sink.aborted
        assert len(failures) == 1
        failures.clear()


class FetchedTests:
    """Bytes that come later."""

    def test_read_is_answered_when_they_come(self) -> None:
        """A read waits for its bytes."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s", b"abc")
        reply = engine.get("s")
        assert reply.waits
        storage.fetch_all()
        assert reply.body == b"abc"

    def test_tail_of_the_time_of_asking(self) -> None:
        """A read doesn't see what is committed while it waits."""
        storage = FetchingStorage()
        engine = Engine(storage, settings=HttpSettings(max_answer_bytes=2))
        engine.put_json("s", b"[1]")
        reply = engine.get("s")
        engine.close("s", b"[2]", content_type="application/json")
        storage.fetch_all()
        assert reply.body == b"[1]"
        assert "stream-closed" not in reply.headers

    def test_not_modified_needs_no_bytes(self) -> None:
        """304 is answered without fetching anything."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s", b"abc")
        first = engine.get("s")
        storage.fetch_all()
        again = engine.get("s", if_none_match=first.headers["etag"])
        assert again.status == 304

    def test_client_leaves(self) -> None:
        """A client that leaves cancels its read; its bytes are of no use to anybody."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("a", b"abc")
        engine.fork("f", "a", b"def")
        engine.get("f").cancel()
        assert storage.cancelled == 2
        storage.fetch_all()

    def test_broken_read(self, library: Library, failures: list[str]) -> None:
        """A read that fails is the server's fault, and is logged; the cause isn't the client's business."""
        library.engine.put("a", b"abc")
        library.engine.fork("f", "a", b"def")
        library.storage.failing = True
        for name in "af":
            reply = library.get(name)
            assert reply.status == 500
            assert b"disk" not in reply.body
        failures.clear()


class DelayedAndFetchedTests:
    """Storage that takes its time for both: commits and reads."""

    def test_fork(self) -> None:
        """A fork waits for its point, then for its commit; readers see it after that."""
        disk = DelayedStorage()
        storage = FetchingStorage(disk)
        engine = Engine(storage)
        made = engine.put_json("s", b"[1,2,3]")
        disk.finish()
        fork = engine.fork("f", "s", b"4", stream_fork_offset=offset(2), stream_fork_sub_offset="1")
        storage.fetch_all()
        assert disk.busy
        assert fork.waits
        assert engine.get("f").status == 404
        disk.finish()
        assert (made.status, fork.status) == (201, 201)
        read = engine.get("f")
        storage.fetch_all()
        assert read.body == b"[1,2,4]"

    def test_source_closed_and_deleted_in_flight(self) -> None:
        """What is in flight when the point is found counts: a source that is being deleted has no new forks."""
        disk = DelayedStorage()
        storage = FetchingStorage(disk)
        engine = Engine(storage)
        engine.put_json("s", b"[1,2,3]")
        disk.finish()
        fork = engine.fork("f", "s", stream_fork_offset=offset(2))
        gone = engine.delete("s")
        storage.fetch_all()
        assert fork.waits
        disk.finish_all()
        assert (gone.status, fork.status) == (204, 404)

    def test_live_readers(self) -> None:
        """Long-polls and SSE readers get what is committed, when it has been fetched."""
        disk = DelayedStorage()
        storage = FetchingStorage(disk)
        engine = Engine(storage)
        engine.put("s")
        disk.finish()
        poll = engine.poll("s")
        _, sink = engine.follow("s")
        for body in (b"a", b"b"):
            engine.post("s", body)
        disk.finish()
        engine.turn()
        assert storage.waiting == 2
        disk.finish()
        engine.turn()
        storage.fetch_all()
        assert poll.body == b"a"
        assert payloads(sink.data) == b"ab"
