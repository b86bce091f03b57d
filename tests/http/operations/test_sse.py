"""Server-sent events: what a reader gets, however slow it is and whatever happens to its stream."""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
import weakref
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.http.context import HttpSettings
from dstreams.http.messages import Body, Frame
from dstreams.http.operations.sse import MAX_FRAMES, PIECE_BYTES
from dstreams.protocol.cursors import EPOCH, INTERVAL_SECONDS
from dstreams.protocol.sse import LINE_BYTES
from dstreams.runtime.timers import CALLS_PER_TURN
from dstreams.storage.interface import StorageDamaged
from dstreams.streams.limits import StoreLimits
from tests.support.engine import (
    START,
    WALL,
    DelayedStorage,
    Engine,
    FakeSink,
    FetchingStorage,
    controls,
    cursors,
    events,
    offset,
    payloads,
)

pytestmark = pytest.mark.usefixtures("failures")

HUGE = StoreLimits(total_bytes=1 << 30, stream_bytes=1 << 30)
KIB = 1024
NOW = (WALL - EPOCH) // INTERVAL_SECONDS
"""The number of the cursor interval when a test begins."""
NEVER = HttpSettings(sse_lifetime=0)


def caught_up(engine: Engine, name: str = "s", cursor: object = None) -> tuple[Body, FakeSink]:
    """A reader that has all there is, with nothing in its connection."""
    body, sink = engine.follow(name, cursor=cursor)
    sink.take()
    return body, sink


class HeadTests:
    """The answer before its events."""

    @pytest.mark.parametrize(
        ("content_type", "encoding"),
        [
            ("text/plain", None),
            ("text/html; charset=utf-8", None),
            ("application/json", None),
            ("application/json; charset=utf-8", None),
            ("application/octet-stream", "base64"),
            ("application/x-ndjson", "base64"),
            ("image/png", "base64"),
        ],
    )
    def test_headers(self, content_type: str, encoding: str | None) -> None:
        """An event stream that nothing on the way keeps, changes or holds back; binary ones say so."""
        engine = Engine()
        engine.put("s", content_type=content_type)
        reply = engine.sse("s")
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers.get("stream-sse-data-encoding") == encoding
        assert reply.live.length is None
        assert not {"etag", "stream-next-offset", "location"} & set(reply.headers)

    @pytest.mark.parametrize("at", [offset(7), offset(9), "0_0", "", "later"])
    def test_bad_offset(self, at: str) -> None:
        """An offset that isn't one of the stream's gets its 400 before anything is streamed."""
        engine = Engine()
        engine.put_json("s", b"[10,20]")
        assert engine.sse("s", at).code == "INVALID_OFFSET"

    def test_missing_offset(self) -> None:
        """A live read needs an offset."""
        engine = Engine()
        engine.put("s")
        assert engine.ask("GET", "s", query="live=sse").status == 400

    def test_no_stream(self) -> None:
        """404 where there is nothing, 410 where there was."""
        engine = Engine()
        assert engine.sse("s").status == 404
        engine.put("s")
        engine.fork("f", "s")
        engine.delete("s")
        assert engine.sse("s").status == 410

    def test_checked_offset_leaves_nothing(self) -> None:
        """A client that leaves while its offset is looked up leaves no reader behind."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put_json("s", b"[10,20]")
        reply = engine.sse("s", offset(3))
        reply.cancel()
        storage.fetch_all()
        assert engine.streams.statistics().live_readers == 0

    def test_body_that_is_never_started(self) -> None:
        """A body that is stopped before it began leaves no reader behind."""
        engine = Engine()
        engine.put("s")
        engine.sse("s").live.stop()
        assert engine.streams.statistics().live_readers == 0


class EventTests:
    """Data and control events."""

    @pytest.mark.parametrize("at", ["-1", "now", START])
    def test_empty_stream(self, at: str) -> None:
        """A reader at the tail is told at once where it stands."""
        engine = Engine()
        engine.put("s")
        _, sink = engine.follow("s", at)
        assert events(sink.data) == [
            ("control", f'{{"streamNextOffset":"{START}","streamCursor":"{NOW:.0f}","upToDate":true}}')
        ]
        assert not sink.finished

    def test_catch_up(self) -> None:
        """What is there comes first, with one control event after it."""
        engine = Engine()
        engine.put("s", b"a")
        engine.post("s", b"b")
        _, sink = engine.follow("s")
        assert [kind for kind, _ in events(sink.data)] == ["data", "control"]
        assert payloads(sink.data) == b"ab"
        assert controls(sink.data)[0]["streamNextOffset"] == offset(2)
        assert controls(sink.data)[0]["upToDate"] is True

    def test_from_now(self) -> None:
        """``now`` skips what is there."""
        engine = Engine()
        engine.put("s", b"old")
        _, sink = engine.follow("s", "now")
        engine.post("s", b"new")
        engine.turn()
        assert payloads(sink.data) == b"new"
        assert [control["streamNextOffset"] for control in controls(sink.data)] == [offset(3), offset(6)]

    def test_appends_of_one_turn_are_one_event(self) -> None:
        """What is appended in one turn of the reactor comes as one data event."""
        engine = Engine()
        engine.put("s")
        _, sink = caught_up(engine)
        for body in (b"a", b"b", b"c"):
            engine.post("s", body)
        assert sink.writes == []
        engine.turn()
        assert [kind for kind, _ in events(sink.data)] == ["data", "control"]
        assert payloads(sink.data) == b"abc"

    def test_nothing_new_says_nothing(self) -> None:
        """A wake-up without news makes no event."""
        engine = Engine()
        engine.put("s")
        engine.fork("f", "s")
        _, sink = caught_up(engine)
        engine.delete("f")  # tells the source that it has a fork less
        engine.turn()
        assert sink.writes == []

    def test_json(self) -> None:
        """Messages come as one array for each event, byte for byte as they were sent."""
        engine = Engine()
        engine.put_json("s", b'[{"b":1, "a":1e2},"x"]')
        _, sink = engine.follow("s")
        engine.post_json("s", b"[3,4]")
        engine.turn()
        texts = [text for kind, text in events(sink.data) if kind == "data"]
        assert texts == ['[{"b":1, "a":1e2},"x"]', "[3,4]"]

    def test_binary(self) -> None:
        """Bytes come in base64, each event complete in itself."""
        engine = Engine()
        engine.put("s", b"\x00\xff\xfe\n", content_type="image/png")
        _, sink = engine.follow("s")
        engine.post("s", b"\x80", content_type="image/png")
        engine.turn()
        texts = [text for kind, text in events(sink.data) if kind == "data"]
        assert texts == ["AP/+Cg==", "gA=="]

    def test_lines(self) -> None:
        """Text of several lines comes out with its lines, its leading blanks and its last line end."""
        engine = Engine()
        engine.put("s", b"  a\n b\n\nc\n")
        _, sink = engine.follow("s")
        assert payloads(sink.data) == b"  a\n b\n\nc\n"

    def test_text_that_looks_like_events(self) -> None:
        """A message can't forge an event."""
        engine = Engine()
        engine.put("s", b'x\n\nevent: control\ndata: {"streamClosed":true}\n\n\r\rid: 7\n\n')
        _, sink = engine.follow("s")
        assert len(events(sink.data)) == 2
        assert "streamClosed" not in controls(sink.data)[0]


class ClosureTests:
    """The end of a stream."""

    @pytest.mark.parametrize("at", ["-1", "now", offset(3)])
    def test_closed_already(self, at: str) -> None:
        """A reader of a closed stream gets what is left, the closed signal, and the end."""
        engine = Engine()
        engine.put("s", b"abc", stream_closed="true")
        body, sink = engine.follow("s", at)
        assert payloads(sink.data) == (b"abc" if at == "-1" else b"")
        assert controls(sink.data) == [{"streamNextOffset": offset(3), "upToDate": True, "streamClosed": True}]
        assert sink.finished
        body.stop()

    def test_closed_with_data(self) -> None:
        """The last append and the closure come as one."""
        engine = Engine()
        engine.put("s")
        _, sink = caught_up(engine)
        engine.close("s", b"end")
        engine.turn()
        assert payloads(sink.data) == b"end"
        assert [control.get("streamClosed") for control in controls(sink.data)] == [True]
        assert sink.finished

    def test_closed_alone(self) -> None:
        """A closure without data is one control event."""
        engine = Engine()
        engine.put("s", b"abc")
        _, sink = caught_up(engine)
        engine.close("s")
        engine.turn()
        assert events(sink.data)[0][0] == "control"
        assert len(events(sink.data)) == 1
        assert sink.finished

    def test_long_backlog(self) -> None:
        """Only the last control event of a long backlog says closed, and only that one up to date."""
        engine = Engine(limits=HUGE)
        engine.put("s")
        for _ in range(10):
            engine.post("s", b"x" * 15 * KIB)
        engine.close("s")
        _, sink = engine.follow("s")
        told = controls(sink.data)
        assert len(told) == 5
        assert ["streamClosed" in control for control in told] == [False] * 4 + [True]
        assert ["upToDate" in control for control in told] == [False] * 4 + [True]
        assert sink.finished

    def test_nothing_is_left(self) -> None:
        """A reader that has ended watches nothing, and its timer is gone."""
        engine = Engine()
        engine.put("s")
        _, sink = caught_up(engine)
        engine.close("s")
        engine.turn()
        assert engine.streams.statistics().live_readers == 0
        engine.pass_time(100)
        assert len(events(sink.data)) == 1


_EVENT = re.compile(rb"(?s)event: (.*?)\n.*?\nid:(.*?)\n\n")


class EventIdTests:
    """Browsers: an ``EventSource`` sends the id of its last event when it reconnects."""

    @pytest.mark.parametrize("content_type", ["text/plain", "application/json", "image/png"])
    def test_ids(self, content_type: str) -> None:
        """The id of every event is the offset to continue from."""
        engine = Engine()
        engine.put("s", b"12", content_type=content_type)
        _, sink = engine.follow("s")
        end = engine.get("s").headers["stream-next-offset"]
        engine.close("s", b"3456", content_type=content_type)
        engine.turn()
        last = engine.get("s").headers["stream-next-offset"]
        assert _EVENT.findall(sink.data) == [
            (kind, at.encode()) for at in (end, last) for kind in (b"data", b"control")
        ]
        assert re.sub(_EVENT, b"", sink.data) == b""

    def test_first_control_event(self) -> None:
        """A reader that begins at the tail learns where it is before the first message."""
        engine = Engine()
        engine.put("s", b"abc")
        _, sink = engine.follow("s", "now")
        assert _EVENT.findall(sink.data) == [(b"control", offset(3).encode())]

    def test_held_back_bytes(self) -> None:
        """The beginning of a character is sent again to a reader that reconnects before the rest is there."""
        engine = Engine()
        engine.put("s", b"abc\xe2\x82")
        _, sink = engine.follow("s")
        assert {at for _, at in _EVENT.findall(sink.data)} == {offset(3).encode()}
        engine.post("s", b"\xac")
        _, sink = engine.follow("s", last_event_id=offset(3))
        assert payloads(sink.data) == "€".encode()

    @pytest.mark.parametrize("at", ["-1", "now", offset(1), "0000000000000000_0000000000000099"])
    def test_overrides_the_offset(self, at: str) -> None:
        """A browser repeats the URL, so the header takes precedence; no cache may store the response."""
        engine = Engine()
        engine.put("s", b"abc")
        reply = engine.sse("s", at, last_event_id=offset(2))
        assert reply.status == 200
        assert reply.headers["cache-control"] == "no-store, no-transform"
        assert reply.headers["vary"] == "Last-Event-ID"
        _, sink = engine.follow("s", at, last_event_id=offset(2))
        assert payloads(sink.data) == b"c"

    @pytest.mark.parametrize("value", ["", "7", "0_0", "abc, abc", f"{offset(1)}, {offset(2)}"])
    def test_not_an_offset(self, value: str) -> None:
        """Anything that isn't an offset is ignored: a browser would repeat it and give up at a 400."""
        engine = Engine()
        engine.put("s", b"abc")
        reply = engine.sse("s", offset(1), last_event_id=value)
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        _, sink = engine.follow("s", offset(1), last_event_id=value)
        assert payloads(sink.data) == b"bc"

    def test_beyond_the_tail(self) -> None:
        """The stream isn't the one that the browser read: 400, which ends its reconnecting."""
        engine = Engine()
        engine.put("s", b"abc")
        assert engine.sse("s", last_event_id=offset(4)).code == "INVALID_OFFSET"

    def test_inside_a_message(self) -> None:
        """An offset inside a message means the message's start, as in the URL."""
        engine = Engine()
        engine.put_json("s", b"[10,20]")
        _, sink = engine.follow("s", last_event_id=offset(4))
        assert payloads(sink.data) == b"[20]"

    @pytest.mark.parametrize("query", ["offset=-1", "offset=-1&live=long-poll"])
    def test_other_reads(self, query: str) -> None:
        """Other reads ignore the header."""
        engine = Engine()
        engine.put("s", b"abc")
        assert engine.ask("GET", "s", query=query, last_event_id=offset(2)).body == b"abc"

    def test_end_of_a_closed_stream(self) -> None:
        """204: nothing else makes a browser stop."""
        engine = Engine()
        engine.put("s", b"abc", stream_closed="true")
        reply = engine.sse("s", last_event_id=offset(3))
        assert reply.status == 204
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["stream-next-offset"] == offset(3)
        assert reply.headers["stream-closed"] == "true"
        assert "content-type" not in reply.headers
        assert engine.streams.statistics().live_readers == 0

    @pytest.mark.parametrize(("closed", "resumed"), [("true", None), ("true", 2), ("false", 3)])
    def test_otherwise_200(self, closed: str, resumed: int | None) -> None:
        """Without the header, before the tail, and on an open stream there are events."""
        engine = Engine()
        engine.put("s", b"abc", stream_closed=closed)
        header = {} if resumed is None else {"last_event_id": offset(resumed)}
        _, sink = engine.follow("s", offset(3), **header)
        assert len(controls(sink.data)) == 1
        assert sink.finished == (closed == "true")

    def test_deleted(self) -> None:
        """A stream that is gone is 404 as always."""
        engine = Engine()
        assert engine.sse("s", last_event_id=offset(3)).status == 404

    @given(st.data())
    def test_lost_connections(self, data: st.DataObject) -> None:
        """Wherever connections break, a browser gets every byte once, then stops."""
        kind = data.draw(st.sampled_from(["text/plain", "application/json", "image/png"]))
        alphabet = st.sampled_from("1€\n ") if kind != "application/json" else st.sampled_from("123")
        bodies = data.draw(st.lists(st.text(alphabet, min_size=1, max_size=5).map(str.encode), min_size=1, max_size=6))
        engine = Engine()
        engine.put("s", content_type=kind)
        received, last, pending = b"", {}, list(bodies)
        cuts = data.draw(st.lists(st.integers(0, 400), max_size=10))
        while (reply := engine.sse("s", **last)).status != 204:
            sink = FakeSink()
            reply.live.start(sink)
            if pending:
                engine.post("s", pending.pop(0), content_type=kind)
                if not pending:
                    engine.close("s")
                engine.turn()
            reply.live.stop()
            # A browser drops an event whose blank line hasn't arrived.
            arrived = sink.data[: cuts.pop()] if cuts else sink.data
            arrived = arrived[: arrived.rfind(b"\n\n") + 2] if b"\n\n" in arrived else b""
            received += payloads(arrived, encoded=kind == "image/png")
            for _, at in _EVENT.findall(arrived):
                last = {"last_event_id": at.decode()}
        if kind == "application/json":
            assert [int(part) for part in re.findall(rb"\d+", received)] == [int(body) for body in bodies]
        else:
            assert received == b"".join(bodies)


class GoneTests:
    """A stream that goes away under its readers."""

    def test_deleted(self) -> None:
        """The reader's answer ends, with what was published before."""
        engine = Engine()
        engine.put("s")
        _, sink = caught_up(engine)
        engine.delete("s")
        engine.turn()
        assert sink.finished
        assert engine.streams.statistics().live_readers == 0

    def test_soft_deleted(self) -> None:
        """So it does when the stream stays for its forks."""
        engine = Engine()
        engine.put("s")
        engine.fork("f", "s")
        _, sink = caught_up(engine)
        _, other = caught_up(engine, "f")
        engine.delete("s")
        engine.turn()
        assert sink.finished
        assert not other.finished

    def test_recreated_in_the_same_turn(self) -> None:
        """A reader never slides into another stream of the same name."""
        engine = Engine()
        engine.put("s", b"old")
        _, sink = caught_up(engine)
        engine.delete("s")
        engine.put("s", b"old and new")
        engine.turn()
        assert sink.data == b""
        assert sink.finished

    def test_deleted_while_paused(self) -> None:
        """A reader that is behind ends when it would catch up."""
        engine = Engine()
        engine.put("s")
        body, sink = engine.follow("s", room=1)
        engine.post("s", b"x")
        engine.delete("s")
        engine.turn()
        assert not sink.finished
        body.resume()
        assert sink.finished
        assert engine.streams.statistics().live_readers == 0

    def test_deleted_before_it_began(self) -> None:
        """A reader whose stream goes between answer and body gets an empty one."""
        engine = Engine()
        engine.put("s")
        reply = engine.sse("s")
        engine.delete("s")
        sink = FakeSink()
        reply.live.start(sink)
        assert (sink.data, sink.finished) == (b"", True)
        assert engine.streams.statistics().live_readers == 0

    def test_deleted_while_fetching(self) -> None:
        """A reader whose bytes are being fetched gets them, then the end."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s", b"data")
        _, sink = engine.follow("s")
        engine.delete("s")
        engine.turn()
        assert not sink.finished
        storage.fetch_all()
        assert payloads(sink.data) == b"data"
        assert sink.finished

    def test_client_leaves(self) -> None:
        """A client that leaves is told nothing more, and nothing of it is left."""
        engine = Engine()
        engine.put("s")
        body, sink = caught_up(engine)
        body.stop()
        assert engine.streams.statistics().live_readers == 0
        engine.post("s", b"x")
        engine.pass_time(100)
        body.resume()
        assert sink.writes == []
        assert not sink.finished

    def test_client_leaves_between_publication_and_wake_up(self) -> None:
        """Nor is one that leaves in the turn in which something was published."""
        engine = Engine()
        engine.put("s")
        body, sink = caught_up(engine)
        _, other = caught_up(engine)
        engine.post("s", b"x")
        body.stop()
        engine.turn()
        assert sink.writes == []
        assert payloads(other.data) == b"x"

    def test_client_leaves_while_others_are_woken(self) -> None:
        """A reader may go because of what another one does."""
        engine = Engine()
        engine.put("s")
        readers = [caught_up(engine) for _ in range(5)]

        class Domino(FakeSink):
            def write_frame(self, frame: Frame) -> bool:
                for body, _ in readers:
                    body.stop()
                return super().write_frame(frame)

        sink = Domino()
        body = engine.sse("s", "now").live
        body.start(sink)
        engine.post("s", b"x")
        engine.turn()
        assert payloads(sink.data) == b"x"
        assert engine.streams.statistics().live_readers == 1


class BackPressureTests:
    """Connections that are slower than their stream."""

    def test_paused_reader_gets_nothing(self) -> None:
        """Nothing is queued for a reader whose connection is full; it catches up when that has drained."""
        engine = Engine()
        engine.put("s")
        body, sink = engine.follow("s", room=1)
        assert len(sink.writes) == 1
        for number in range(100):
            engine.post("s", b"%02d" % number)
            engine.turn()
        assert len(sink.writes) == 1
        sink.room = None
        body.resume()
        assert payloads(sink.data) == b"".join(b"%02d" % number for number in range(100))
        assert len(sink.writes) == 2

    def test_catch_up_stops_when_full(self) -> None:
        """A long backlog is sent as the connection takes it."""
        engine = Engine(limits=HUGE)
        engine.put("s")
        for number in range(10):
            engine.post("s", b"%d" % number * 20 * KIB)
        body, sink = engine.follow("s", room=1)
        for count in range(1, 10):
            assert len(sink.writes) == count
            assert not payloads(sink.data).endswith(b"9")
            sink.room = 1
            body.resume()
        assert payloads(sink.data) == b"".join(b"%d" % number * 20 * KIB for number in range(10))

    def test_paused_reader_keeps_its_stream_alive(self) -> None:
        """It is a reader still: its stream doesn't expire."""
        engine = Engine()
        engine.put("s", stream_ttl="5")
        engine.follow("s", room=1)
        engine.pass_time(20)
        assert engine.head("s").status == 200

    def test_heartbeat_may_fill_the_connection(self) -> None:
        """A reader that a heartbeat has paused goes on as any other."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        body, sink = caught_up(engine)
        sink.room = 1
        engine.pass_time(16)
        assert sink.take() == b":\n\n"
        engine.post("s", b"x")
        engine.pass_time(30)
        assert sink.writes == []
        sink.room = None
        body.resume()
        assert payloads(sink.data) == b"x"

    @given(data=st.data())
    def test_every_byte_exactly_once(self, data: st.DataObject) -> None:
        """Whatever the order of appends, wake-ups, pauses and fetches, a reader gets every byte once."""
        storage = FetchingStorage(at_once=data.draw(st.booleans(), label="at once"))
        kind = data.draw(st.sampled_from(["text/plain", "application/json", "image/png"]), label="type")
        engine = Engine(storage)
        engine.put("s", content_type=kind)
        body, sink = engine.follow("s", room=data.draw(st.sampled_from([None, 1, 2]), label="room"))
        sent: list[bytes] = []
        steps = st.sampled_from(["append", "append", "turn", "resume", "fill", "fetch", "beat"])
        for step in data.draw(st.lists(steps, max_size=30), label="steps"):
            if step == "append":
                message = b"%d" % len(sent) if kind == "application/json" else "é€😀"[len(sent) % 3].encode()
                part = message if kind == "application/json" else message[: 1 + len(sent) % 2]
                sent.append(part)
                engine.post("s", part, content_type=kind)
            elif step == "turn":
                engine.turn()
            elif step == "resume":
                sink.room = None
                body.resume()
            elif step == "fill":
                sink.room = 1
            elif step == "fetch":
                storage.fetch()
            else:
                engine.pass_time(15, 5)
        engine.close("s", content_type=kind)
        engine.turn()
        sink.room = None
        body.resume()
        storage.fetch_all()
        assert sink.finished
        if kind == "application/json":
            texts = [text for kind, text in events(sink.data) if kind == "data"]
            assert [value for text in texts for value in json.loads(text)] == [json.loads(part) for part in sent]
        elif kind == "image/png":
            assert payloads(sink.data, encoded=True) == b"".join(sent)
        else:
            text = b"".join(re.findall(rb"event: data\ndata:(.*)\nid:.*\n\n", sink.data)).decode()
            assert text == b"".join(sent).decode("utf-8", "replace")
        offsets = [control["streamNextOffset"] for control in controls(sink.data)]
        assert offsets == sorted(offsets, key=str)


class SharingTests:
    """Events are formatted once."""

    def test_caught_up_readers_get_the_same_object(self) -> None:
        """All readers at the tail are written the same frame, and the same chunk of it."""
        engine = Engine()
        engine.put("s")
        sinks = [caught_up(engine)[1] for _ in range(10)]
        engine.post("s", b"x")
        engine.turn()
        frames = [sink.frames[-1] for sink in sinks]
        assert all(frame is frames[0] for frame in frames)
        assert frames[0].chunked is frames[-1].chunked

    def test_readers_of_different_ages(self) -> None:
        """A reader that holds a cursor of its own doesn't make the others' frames be formatted again."""
        engine = Engine()
        engine.put("s")
        sinks = [caught_up(engine, cursor=cursor)[1] for cursor in [None, int(NOW) + 50] * 5]
        engine.post("s", b"x")
        engine.turn()
        assert len({id(sink.frames[-1]) for sink in sinks[::2]}) == 1
        assert all(cursors(sink.data)[-1] > NOW + 50 for sink in sinks[1::2])

    def test_slow_readers_in_between(self) -> None:
        """Nor do readers that are behind."""
        engine = Engine()
        engine.put("s", "é".encode()[:1])  # they hold a beginning of a character back: another place
        sinks = []
        for number in range(20):
            sink = FakeSink()
            engine.sse("s", "-1" if number % 2 else offset(1)).live.start(sink)
            sinks.append(sink)
        engine.post("s", "é".encode()[1:] + b"x")
        engine.turn()
        assert len({id(sink.frames[-1]) for sink in sinks[::2]}) == 1
        assert len({id(sink.frames[-1]) for sink in sinks[1::2]}) == 1
        assert payloads(sinks[1].data) == "éx".encode()

    def test_several_frames_in_one_wake_up(self) -> None:
        """When one turn brings more than an event may hold, each of the events is formatted once."""
        engine = Engine(limits=HUGE)
        engine.put("s")
        sinks = [caught_up(engine)[1] for _ in range(3)]
        for _ in range(4):
            engine.post("s", b"x" * 20 * KIB)
        engine.turn()
        assert [len(sink.frames) for sink in sinks] == [5, 5, 5]
        for number in range(1, 5):
            assert len({id(sink.frames[number]) for sink in sinks}) == 1

    def test_kept_frames_are_bounded(self) -> None:
        """Readers at different positions don't make a wake-up keep a frame for each of them."""
        engine = Engine()
        engine.put("s", b"x")
        readers = []
        for _ in range(5 * MAX_FRAMES):
            readers.append(engine.follow("s", room=1))
            engine.post("s", b"x")
            engine.turn()
        engine.post("s", b"x")
        # Their clients read on while the wake-up is under way.
        for body, sink in readers:
            sink.room = None
            body.resume()
        [audience] = engine.streams._audiences.values()
        assert audience.frames is not None
        assert len(audience.frames) == MAX_FRAMES
        engine.turn()
        assert all(payloads(sink.data) == b"x" * (5 * MAX_FRAMES + 2) for _, sink in readers)

    def test_frames_are_let_go(self) -> None:
        """After a wake-up nobody holds what was formatted for it, but the connections that still send it."""
        engine = Engine(limits=HUGE)
        engine.put("s")
        sinks = [caught_up(engine)[1] for _ in range(2)]
        _, late = engine.follow("s")
        engine.post("s", b"x" * 20 * KIB)
        engine.turn()
        held = weakref.ref(_key(sinks[0].frames[-1]))
        assert held() is not None
        for sink in (*sinks, late):
            sink.frames.clear()
            sink.writes.clear()
        gc.collect()
        assert held() is None


def _key(frame: Frame) -> Frame:
    return frame


class CursorTests:
    """Cursors never go backwards (PROTOCOL 10.1)."""

    def test_current_interval(self) -> None:
        """Without a cursor of the client's, the number of the current interval."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        _, sink = engine.follow("s")
        for _ in range(3):
            engine.pass_time(20)
            engine.post("s", b"x")
            engine.turn()
        assert cursors(sink.data) == [NOW, NOW + 1, NOW + 2, NOW + 3]

    @pytest.mark.parametrize("ahead", [0, 1, 100, 10**9])
    def test_client_at_or_ahead(self, ahead: int) -> None:
        """A client gets a cursor above its own, and none below that until the time has come there."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        _, sink = engine.follow("s", cursor=int(NOW) + ahead)
        for _ in range(3):
            engine.pass_time(20)
            engine.post("s", b"x")
            engine.turn()
        told = cursors(sink.data)
        assert told[0] > NOW + ahead
        assert told == sorted(told)

    def test_client_behind(self) -> None:
        """A client that comes back later gets the current one."""
        engine = Engine()
        engine.put("s")
        _, sink = engine.follow("s", cursor=int(NOW) - 5)
        assert cursors(sink.data) == [NOW]

    @pytest.mark.parametrize("cursor", ["abc", "-1", "9" * 101])
    def test_cursor_that_is_none(self, cursor: str) -> None:
        """What isn't a cursor of ours is none."""
        engine = Engine()
        engine.put("s")
        _, sink = engine.follow("s", cursor=cursor)
        assert cursors(sink.data) == [NOW]

    @pytest.mark.parametrize("cursor", [None, 7, NOW + 2])
    def test_clock_set_back(self, cursor: float | None) -> None:
        """When the wall clock goes back, cursors stay where they are."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        _, sink = engine.follow("s", cursor=None if cursor is None else int(cursor))
        for jump in (100, -60, -400, 500):
            engine.wall_ahead += jump
            engine.post("s", b"x")
            engine.turn()
        told = cursors(sink.data)
        assert told == sorted(told)
        assert len(told) == 5

    def test_clock_set_back_shares_again(self) -> None:
        """Readers that once were ahead share frames again when time has caught up with them."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        sinks = [caught_up(engine, cursor=int(NOW))[1], caught_up(engine)[1]]
        engine.pass_time(7200, 10)
        engine.post("s", b"x")
        engine.turn()
        assert sinks[0].frames[-1] is sinks[1].frames[-1]

    def test_none_when_closed(self) -> None:
        """Nobody comes back to a closed stream: no cursor."""
        engine = Engine()
        engine.put("s", b"x", stream_closed="true")
        _, sink = engine.follow("s", cursor=int(NOW) + 5)
        assert cursors(sink.data) == []


class HeartbeatTests:
    """Comments that keep middleboxes from cutting quiet streams."""

    def test_quiet_stream(self) -> None:
        """A comment after every 15 seconds of silence."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        _, sink = caught_up(engine)
        engine.pass_time(14.5)
        assert sink.writes == []
        engine.pass_time(1)
        assert sink.writes == [b":\n\n"]
        engine.pass_time(47)
        assert sink.writes == [b":\n\n"] * 4

    def test_busy_stream(self) -> None:
        """None while there are events; the silence counts from the last one."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        _, sink = caught_up(engine)
        for _ in range(10):
            engine.pass_time(10)
            engine.post("s", b"x")
            engine.turn()
        assert b":\n\n" not in sink.writes
        sink.take()
        engine.pass_time(16)
        assert sink.writes == [b":\n\n"]

    def test_shared(self) -> None:
        """All readers get the same bytes."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        sinks = [caught_up(engine)[1] for _ in range(2)]
        engine.pass_time(16)
        assert sinks[0].frames[-1] is sinks[1].frames[-1]

    def test_paused_reader(self) -> None:
        """None is queued for a connection that is full."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        _, sink = engine.follow("s", room=1)
        engine.pass_time(100)
        assert len(sink.writes) == 1

    def test_while_fetching(self) -> None:
        """A reader whose bytes take long to fetch is kept alive, too."""
        storage = FetchingStorage()
        engine = Engine(storage, settings=NEVER)
        engine.put("s", b"data")
        _, sink = engine.follow("s")
        engine.pass_time(16)
        assert sink.take() == b":\n\n"
        storage.fetch_all()
        assert payloads(sink.data) == b"data"

    def test_never_inside_an_event(self) -> None:
        """None gets between the pieces of a large event."""
        engine = Engine(limits=HUGE, settings=NEVER)
        engine.put("s", b"x" * 1024 * KIB)
        body, sink = engine.follow("s", room=1)
        for _ in range(80):
            engine.pass_time(16)
            sink.room = 1
            body.resume()
        assert payloads(sink.data.replace(b":\n\n", b"")) == b"x" * 1024 * KIB
        assert b"x:\n\n" not in sink.data


class RotationTests:
    """Readers are asked to come back after a while."""

    def test_lifetime(self) -> None:
        """A reader ends after its lifetime, give or take a tenth, and at once after a control event."""
        engine = Engine(settings=HttpSettings(sse_lifetime=60, sse_heartbeat=1000))
        engine.put("s")
        sinks = [caught_up(engine)[1] for _ in range(100)]
        engine.pass_time(53.9)
        assert not any(sink.finished for sink in sinks)
        ended = []
        for _ in range(140):
            engine.pass_time(0.1, 0.1)
            ended.append(sum(sink.finished for sink in sinks))
        assert ended[-1] == 100
        assert len(set(ended)) > 20, "they end together"
        assert all(sink.writes == [] for sink in sinks)

    def test_busy_stream(self) -> None:
        """A stream with many events ends as well."""
        engine = Engine(settings=HttpSettings(sse_lifetime=60))
        engine.put("s")
        _, sink = caught_up(engine)
        for _ in range(70):
            engine.post("s", b"x")
            engine.pass_time(1)
        assert sink.finished
        assert events(sink.data)[-1][0] == "control"

    def test_never(self) -> None:
        """0 means never."""
        engine = Engine(settings=NEVER)
        engine.put("s")
        _, sink = caught_up(engine)
        engine.pass_time(100_000, 10)
        assert not sink.finished

    def test_inside_a_large_event(self) -> None:
        """A reader in the middle of an event gets the rest of it first."""
        engine = Engine(limits=HUGE, settings=HttpSettings(sse_lifetime=10))
        engine.put("s", b"x" * 1024 * KIB)
        body, sink = engine.follow("s", room=1)
        engine.pass_time(20)
        assert not sink.finished
        sink.room = None
        body.resume()
        assert sink.finished
        assert payloads(sink.data) == b"x" * 1024 * KIB
        assert events(sink.data)[-1][0] == "control"

    def test_before_the_first_event(self) -> None:
        """A reader that has got nothing yet gets its first control event before the end."""
        storage = FetchingStorage()
        engine = Engine(storage, settings=HttpSettings(sse_lifetime=10))
        engine.put("s", b"data")
        _, sink = engine.follow("s")
        engine.pass_time(20)
        assert not sink.finished
        storage.fetch_all()
        assert payloads(sink.data) == b"data"
        assert sink.finished

    def test_nothing_is_lost(self) -> None:
        """Coming back with the last offset and cursor, a reader misses nothing and repeats nothing."""
        engine = Engine(settings=HttpSettings(sse_lifetime=5))
        engine.put("s")
        at, cursor, received = "-1", 0, b""
        for number in range(100):
            _, sink = engine.follow("s", at, cursor)
            for step in range(7):
                engine.post("s", b"%d.%d " % (number, step))
                engine.pass_time(1)
            assert sink.finished
            received += payloads(sink.data)
            last = controls(sink.data)[-1]
            assert int(str(last["streamCursor"])) > cursor
            at, cursor = str(last["streamNextOffset"]), int(str(last["streamCursor"]))
        assert received + engine.get("s", at).body == engine.get("s").body


class CharacterTests:
    """Text isn't cut inside a character."""

    @pytest.mark.parametrize("character", ["é", "€", "😀"])
    def test_split_across_appends(self, character: str) -> None:
        """A character that comes in several appends comes in one event."""
        engine = Engine()
        engine.put("s", b"a")
        _, sink = caught_up(engine)
        encoded = character.encode()
        for byte in encoded:
            engine.post("s", bytes([byte]))
            engine.turn()
        assert payloads(sink.data) == encoded
        assert len(events(sink.data)) == 2

    def test_offset_stays_before_it(self) -> None:
        """Until it is complete the offset lies before it, so that nobody comes back into the middle."""
        engine = Engine()
        engine.put("s", b"ab\xe2\x82")
        _, sink = engine.follow("s")
        assert payloads(sink.data) == b"ab"
        assert controls(sink.data)[0]["streamNextOffset"] == offset(2)
        _, again = engine.follow("s", offset(2))
        engine.post("s", b"\xac!")
        engine.turn()
        assert payloads(again.data) == "€!".encode()
        assert payloads(sink.data) == "ab€!".encode()

    def test_split_at_the_end_of_an_event(self) -> None:
        """Nor is it cut where a long backlog is."""
        engine = Engine(limits=HUGE)
        engine.put("s")
        text = "€".encode() * 200_000
        for begin in range(0, len(text), 1000):
            engine.post("s", text[begin : begin + 1000])
        _, sink = engine.follow("s")
        assert payloads(sink.data) == text
        assert "\ufffd" not in sink.data.decode()

    @pytest.mark.parametrize("beginning", [b"\xe2", b"\xe2\x82", b"\r"])
    @pytest.mark.parametrize("at_once", [True, False])
    def test_large_message_behind_the_beginning_of_one(self, beginning: bytes, at_once: bool) -> None:
        """A beginning that is held back doesn't hold up a message too large to come with it."""
        whole = {b"\xe2": "€", b"\xe2\x82": "€", b"\r": "\n"}[beginning]
        storage = FetchingStorage(at_once=at_once)
        engine = Engine(storage, limits=HUGE)
        engine.put("s", beginning)
        rest = "€".encode()[len(beginning) :] if beginning != b"\r" else b"\n"
        engine.post("s", rest + b"x" * 1024 * KIB)
        engine.post("s", b"more")
        reply, sink = engine.sse("s"), FakeSink()
        storage.fetch_all()
        reply.live.start(sink)
        storage.fetch_all()
        assert payloads(sink.data) == whole.encode() + b"x" * 1024 * KIB + b"more"
        engine.post("s", b"!")
        engine.turn()
        storage.fetch_all()
        assert payloads(sink.data).endswith(b"more!")

    def test_line_end_across_appends(self) -> None:
        """CR and LF in two appends are one line end."""
        engine = Engine()
        engine.put("s", b"a\r")
        _, sink = engine.follow("s")
        engine.post("s", b"\nb")
        engine.turn()
        texts = [text for kind, text in events(sink.data) if kind == "data"]
        assert "".join(texts) == "a\nb"

    @pytest.mark.parametrize(("rest", "sent"), [(b"\xe2\x82", "\ufffd".encode()), (b"\r", b"\n")])
    def test_never_completed(self, rest: bytes, sent: bytes) -> None:
        """When the stream closes, what is left of one is sent: U+FFFD, or a line end."""
        engine = Engine()
        engine.put("s", b"ab" + rest)
        _, sink = caught_up(engine)
        engine.close("s")
        engine.turn()
        assert sink.finished
        assert controls(sink.data)[-1]["streamNextOffset"] == offset(2 + len(rest))
        assert b"data:" + sent in sink.data

    def test_invalid_bytes_hold_nothing_up(self) -> None:
        """Bytes that can't become a character are sent at once, as U+FFFD."""
        engine = Engine()
        engine.put("s", b"ab\xff")
        _, sink = engine.follow("s")
        assert "data:ab\ufffd\n".encode() in sink.data


class CharsetTests:
    """Text streams that aren't UTF-8, and say so."""

    LATIN = "text/plain; charset=ISO-8859-1"

    def test_text(self) -> None:
        """Events have the characters; offsets and other reads have the stored bytes."""
        engine = Engine()
        engine.put("s", "gr\u00fcn".encode("latin-1"), content_type=self.LATIN)
        _, sink = engine.follow("s")
        assert payloads(sink.data).decode() == "gr\u00fcn"
        assert controls(sink.data)[0]["streamNextOffset"] == offset(4)
        assert engine.get("s").body == b"gr\xfcn"

    def test_no_byte_waits(self) -> None:
        """A byte that begins a character in UTF-8 is one on its own; only a CR waits."""
        engine = Engine()
        engine.put("s", b"a\xc3", content_type=self.LATIN)
        _, sink = engine.follow("s")
        assert payloads(sink.data).decode() == "a\u00c3"
        engine.post("s", b"\xa9\r", content_type=self.LATIN)
        engine.turn()
        engine.post("s", b"\n", content_type=self.LATIN)
        engine.turn()
        assert payloads(sink.data).decode() == "a\u00c3\u00a9\n"
        assert controls(sink.data)[-1]["streamNextOffset"] == offset(5)

    def test_large_message(self) -> None:
        """A message whose event is much larger than itself arrives whole, in bounded pieces."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"\x81" * 600 * KIB, content_type="text/plain; charset=windows-1252")
        _, sink = engine.follow("s")
        assert payloads(sink.data).decode() == "\ufffd" * 600 * KIB
        assert max(map(len, sink.writes)) <= 512 * KIB


def put(engine: Engine, body: bytes, content_type: str) -> None:
    """Create a stream whose first append may be so large that it is split in several turns."""
    reply = engine.put("s", body, content_type=content_type)
    while reply.waits:
        engine.turn()
    assert reply.status == 201


class LargeEventTests:
    """Messages larger than what is handed to a connection at a time."""

    def test_bounded_pieces(self) -> None:
        """A huge message comes in one event, in bounded writes."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 5000 * KIB)
        _, sink = engine.follow("s")
        assert max(map(len, sink.writes)) <= PIECE_BYTES + KIB
        assert [kind for kind, _ in events(sink.data)] == ["data", "control"]
        assert payloads(sink.data) == b"x" * 5000 * KIB

    def test_slow_connection(self) -> None:
        """Piece by piece, as the connection takes them; then the rest of the stream."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 2000 * KIB)
        body, sink = engine.follow("s", room=1)
        engine.post("s", b"more")
        engine.turn()
        writes = 0
        while len(sink.writes) > writes:
            writes = len(sink.writes)
            sink.room = 1
            body.resume()
        assert payloads(sink.data) == b"x" * 2000 * KIB + b"more"
        assert writes > 8

    def test_closed_meanwhile(self) -> None:
        """A stream that is closed while its last message is being sent ends with the closed signal."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 2000 * KIB)
        body, sink = engine.follow("s", room=2)
        engine.close("s")
        engine.turn()
        sink.room = None
        body.resume()
        assert sink.finished
        assert controls(sink.data)[-1]["streamClosed"] is True

    def test_closed_before(self) -> None:
        """The last event of a closed stream may be a large one."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 2000 * KIB, stream_closed="true")
        body, sink = engine.follow("s", room=2)
        assert not sink.finished
        sink.room = None
        body.resume()
        assert sink.finished
        assert payloads(sink.data) == b"x" * 2000 * KIB

    def test_deleted_meanwhile(self) -> None:
        """An event that has been begun is completed although its stream is deleted."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 2000 * KIB)
        body, sink = engine.follow("s", room=2)
        engine.delete("s")
        engine.turn()
        assert not sink.finished
        sink.room = None
        body.resume()
        assert payloads(sink.data) == b"x" * 2000 * KIB
        assert sink.finished

    def test_client_leaves_meanwhile(self) -> None:
        """A client that leaves in the middle leaves nothing behind."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 2000 * KIB)
        body, sink = engine.follow("s", room=2)
        body.stop()
        body.resume()
        assert len(sink.writes) == 2
        assert engine.streams.statistics().live_readers == 0

    @pytest.mark.parametrize("at_once", [True, False])
    def test_json(self, at_once: bool) -> None:
        """A large JSON message has a line of its own between the brackets; others are arrays on one line, as usual."""
        storage = FetchingStorage(at_once=at_once)
        engine = Engine(storage, limits=HUGE)
        large = b'"%b"' % (b"x" * 1024 * KIB)
        put(engine, b"[1,2,%b,3,4]" % large, "application/json")
        reply, sink = engine.sse("s"), FakeSink()
        storage.fetch_all()
        reply.live.start(sink)
        storage.fetch_all()
        data = [text for kind, text in events(sink.data) if kind == "data"]
        assert data == ["[1,2]", f"[\n{large.decode()}\n]", "[3,4]"]

    @pytest.mark.parametrize("content_type", ["text/plain", "image/png"])
    def test_between_small_messages(self, content_type: str) -> None:
        """A large message has an event to itself, and the offsets between the events are those of the messages."""
        engine = Engine(limits=HUGE)
        messages = [b"a" * 10, b"b" * 100 * KIB, b"c" * 33 * KIB, b"d" * 5]
        engine.put("s", content_type=content_type)
        for message in messages:
            engine.post("s", message, content_type=content_type)
        _, sink = engine.follow("s")
        is_binary = content_type == "image/png"
        assert payloads(sink.data, encoded=is_binary) == b"".join(messages)
        ends = [offset(sum(map(len, messages[: count + 1]))) for count in range(4)]
        assert [control["streamNextOffset"] for control in controls(sink.data)] == ends
        if is_binary:
            assert max(map(len, sink.data.split(b"\n"))) <= LINE_BYTES + len(b"data:")

    @given(st.data())
    def test_lines_are_short(self, data: st.DataObject) -> None:
        """No line is longer than 32 KiB, except that of a single message."""
        kind = data.draw(st.sampled_from(["text/plain", "application/json", "image/png"]))
        engine = Engine(limits=HUGE)
        engine.put("s", content_type=kind)
        sizes = data.draw(
            st.lists(st.sampled_from([3, 20, 1000, 16_000, 32_000, LINE_BYTES - 17, LINE_BYTES]), max_size=6)
        )
        for size in sizes:
            message = b'"%b"' % (b"1" * (size - 2)) if kind == "application/json" else b"1" * size
            engine.post("s", message, content_type=kind)
        _, sink = engine.follow("s")
        assert max(map(len, sink.data.split(b"\n"))) <= LINE_BYTES + len(b"data:")
        texts = [text for kind, text in events(sink.data) if kind == "data"]
        if kind == "application/json":
            assert [len(value) for text in texts for value in json.loads(text)] == [size - 2 for size in sizes]
        else:
            assert payloads(sink.data, encoded=kind == "image/png") == b"1" * sum(sizes)

    def test_held_back_at_its_end(self) -> None:
        """A large event that ends inside a character ends before it, and its rest comes with what follows."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 100 * KIB + b"\xe2\x82")
        _, sink = engine.follow("s")
        assert controls(sink.data)[-1]["streamNextOffset"] == offset(100 * KIB)
        engine.post("s", b"\xac" + b"y" * 100 * KIB)
        engine.turn()
        assert payloads(sink.data) == b"x" * 100 * KIB + "€".encode() + b"y" * 100 * KIB

    def test_newer_cursor(self) -> None:
        """The control event after a large event has a cursor ahead of the client's."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 100 * KIB)
        _, sink = engine.follow("s", cursor=int(NOW) + 5)
        assert cursors(sink.data)[-1] > NOW + 5

    @pytest.mark.parametrize("at_once", [True, False])
    def test_damaged_in_the_middle(self, at_once: bool) -> None:
        """When a piece can't be read, the connection is cut, and no control event makes the event look complete."""
        storage = FetchingStorage(at_once=at_once)
        engine = Engine(storage, limits=HUGE)
        engine.put("s", b"x" * 1024 * KIB)
        reply, sink = engine.sse("s"), FakeSink(room=3)
        storage.fetch_all()
        reply.live.start(sink)
        storage.fetch_all()
        assert len(sink.writes) == 3
        storage.error, storage.failing = StorageDamaged("it is damaged", 1, "here"), True
        sink.room = None
        reply.live.resume()
        storage.fetch_all()
        assert sink.aborted
        assert b"control" not in sink.data
        assert engine.streams.statistics().live_readers == 0

    @pytest.mark.parametrize(
        ("content_type", "message"),
        [
            ("text/plain", b"x" * 10_000_000),
            ("text/plain", b"\n" * 10_000_000),
            ("text/plain", b"\xff" * 10_000_000),
            ("image/png", b"x" * 10_000_000),
            ("application/json", b'["%b"]' % (b"x" * 10_000_000)),
        ],
        ids=["text", "newlines", "not UTF-8", "binary", "json"],
    )
    def test_stalled_readers(self, content_type: str, message: bytes) -> None:
        """200 readers of a 10 MB message, whose clients don't read, hold less than 64 MB."""
        engine = Engine(limits=HUGE)
        put(engine, message, content_type)
        tracemalloc.start()
        try:
            readers = [self.stalled_reader(engine) for _ in range(200)]
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 64_000_000
        # A transport of uvloop's asks for a pause at 64 KiB.
        assert sum(sink.unsent for sink in readers) < 64_000_000
        assert all(sink.unsent >= 64 * KIB for sink in readers)

    @staticmethod
    def stalled_reader(engine: Engine) -> StalledSink:
        reply, sink = engine.sse("s"), StalledSink()
        sink.body = reply.live
        reply.live.start(sink)
        return sink


class StalledSink(FakeSink):
    """The connection of a client that doesn't read: full when 64 KiB wait."""

    body: Body | None = None

    @property
    def unsent(self) -> int:
        return sum(map(len, self.writes))

    def write(self, data: bytes) -> bool:
        super().write(data)
        return self.unsent < 64 * KIB


class ShutdownTests:
    """The server stops."""

    def test_idle_readers(self) -> None:
        """Readers that have all end at once, after their last control event."""
        engine = Engine()
        engine.put("s", b"x")
        _, sink = caught_up(engine)
        engine.streams.end_live()
        engine.turn()
        assert sink.finished
        assert sink.writes == []
        assert engine.streams.statistics().live_readers == 0

    def test_reader_inside_an_event(self) -> None:
        """One in the middle of an event gets the rest of it."""
        engine = Engine(limits=HUGE)
        engine.put("s", b"x" * 2000 * KIB)
        body, sink = engine.follow("s", room=2)
        engine.post("s", b"more")
        engine.streams.end_live()
        engine.turn()
        assert not sink.finished
        sink.room = None
        body.resume()
        assert sink.finished
        assert payloads(sink.data) == b"x" * 2000 * KIB

    def test_paused_reader(self) -> None:
        """One that is behind between two events ends there, and can come back from there."""
        engine = Engine()
        engine.put("s")
        _, sink = engine.follow("s", room=1)
        engine.post("s", b"x")
        engine.turn()
        engine.streams.end_live()
        engine.turn()
        assert sink.finished
        assert controls(sink.data)[-1]["streamNextOffset"] == START

    def test_reader_that_comes_late(self) -> None:
        """A reader that comes while the server stops gets one event and the end."""
        engine = Engine(limits=HUGE)
        engine.put("s")
        for _ in range(4):
            engine.post("s", b"x" * 200 * KIB)
        engine.streams.end_live()
        engine.turn()
        _, sink = engine.follow("s")
        assert sink.finished
        assert payloads(sink.data) == b"x" * 200 * KIB
        _, sink = engine.follow("s", "now")
        assert sink.finished
        assert len(controls(sink.data)) == 1
        assert engine.streams.statistics().live_readers == 0

    def test_reader_that_fetches(self) -> None:
        """One that has got nothing yet gets its first event before the end."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s", b"data")
        _, sink = engine.follow("s")
        engine.streams.end_live()
        engine.turn()
        assert not sink.finished
        storage.fetch_all()
        assert payloads(sink.data) == b"data"
        assert sink.finished

    def test_one_broken_reader(self, failures: list[str]) -> None:
        """A reader that can't be ended doesn't keep the others from ending."""
        engine = Engine()
        engine.put("s")

        class Broken(FakeSink):
            def finish(self) -> None:
                raise ZeroDivisionError

        for _ in range(3):
            engine.sse("s").live.start(Broken())
        sinks = [caught_up(engine)[1] for _ in range(5)]
        engine.streams.end_live()
        engine.turn()
        assert all(sink.finished for sink in sinks)
        failures.clear()


class BrokenStorageTests:
    """Bytes that can't be read."""

    @pytest.mark.parametrize("at_once", [True, False])
    def test_reader_is_cut(self, at_once: bool, failures: list[str]) -> None:
        """The connection is cut, so that the client comes back; nothing of the reader is left."""
        storage = FetchingStorage(at_once=at_once)
        engine = Engine(storage)
        engine.put("s")
        _, sink = caught_up(engine)
        storage.failing = True
        engine.post("s", b"x")
        engine.turn()
        storage.fetch_all()
        assert sink.aborted
        assert engine.streams.statistics().live_readers == 0
        engine.pass_time(100)
        assert len(failures) == 1
        failures.clear()

    @pytest.mark.parametrize("at_once", [True, False])
    def test_at_the_start(self, at_once: bool, failures: list[str]) -> None:
        """So is it when the first bytes can't be read."""
        storage = FetchingStorage(at_once=at_once)
        engine = Engine(storage)
        engine.put("s", b"x")
        reply = engine.sse("s")
        storage.failing = True
        sink = FakeSink()
        reply.live.start(sink)
        storage.fetch_all()
        assert sink.aborted
        assert engine.streams.statistics().live_readers == 0
        failures.clear()

    @pytest.mark.parametrize("at_once", [True, False])
    def test_when_resumed(self, at_once: bool, failures: list[str]) -> None:
        """So is it when it would catch up."""
        storage = FetchingStorage(at_once=at_once)
        engine = Engine(storage)
        engine.put("s")
        body, sink = engine.follow("s", room=1)
        engine.post("s", b"x")
        engine.turn()
        storage.failing = True
        body.resume()
        storage.fetch_all()
        assert sink.aborted
        failures.clear()

    def test_other_streams_go_on(self, failures: list[str]) -> None:
        """Readers of other streams are woken all the same."""
        storage = FetchingStorage(at_once=True)
        engine = Engine(storage)
        engine.put("s")
        engine.put("t")
        _, sink = caught_up(engine)
        polls = [engine.poll("t") for _ in range(3)]
        storage.failing = True
        engine.post("s", b"x")
        engine.close("t")
        engine.turn()
        assert sink.aborted
        assert [poll.status for poll in polls] == [204] * 3
        failures.clear()


class FetchedTests:
    """Storage whose bytes come later."""

    def test_publications_while_fetching(self) -> None:
        """What is published while a reader fetches follows in its turn."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s", b"a")
        _, sink = engine.follow("s")
        for body in (b"b", b"c"):
            engine.post("s", body)
            engine.turn()
        assert sink.writes == []
        storage.fetch_all()
        assert payloads(sink.data) == b"abc"

    def test_client_leaves_while_fetching(self) -> None:
        """A client that leaves meanwhile is written nothing."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s", b"a")
        body, sink = engine.follow("s")
        body.stop()
        storage.fetch_all()
        assert sink.writes == []

    def test_closed_while_fetching(self) -> None:
        """A closure that comes meanwhile is told after the bytes."""
        storage = FetchingStorage()
        engine = Engine(storage)
        engine.put("s", b"a")
        _, sink = engine.follow("s")
        engine.close("s", b"b")
        engine.turn()
        storage.fetch_all()
        assert payloads(sink.data) == b"ab"
        assert sink.finished


class DelayedTests:
    """Storage that commits later."""

    @pytest.mark.parametrize("change", [lambda e: e.close("s"), lambda e: e.delete("s")])
    def test_publication_comes_with_the_commit(self, change: Callable[[Engine], object]) -> None:
        """Closure and deletion reach readers when they are durable."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s")
        storage.finish()
        _, sink = caught_up(engine)
        change(engine)
        engine.turn()
        assert not sink.finished
        storage.finish()
        engine.turn()
        assert sink.finished


class CrowdTests:
    """A stream with many readers."""

    def test_a_turn_wakes_a_bounded_number(self) -> None:
        """Readers are woken in several turns; appends meanwhile reach each once, and one that left gets none."""
        engine = Engine()
        engine.put("s")
        readers = [engine.follow("s") for _ in range(3 * CALLS_PER_TURN)]
        for _, sink in readers:
            sink.take()
        engine.post("s", b"a")
        engine.streams._wake()
        woken = [sink for _, sink in readers if sink.writes]
        assert 0 < len(woken) <= CALLS_PER_TURN
        left = next(body for body, sink in readers if not sink.writes)
        left.stop()
        engine.post("s", b"b")
        engine.turn()
        for body, sink in readers:
            assert payloads(sink.data) == (b"" if body is left else b"ab")
        assert engine.streams._waking == deque()
