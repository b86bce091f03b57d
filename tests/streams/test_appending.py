"""Appends: the early answer is the answer, and what an append means in each state."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from dstreams.http.messages import Request, Response
from dstreams.streams.limits import StoreLimits
from tests.support.engine import DelayedStorage, Engine, Reply, offset

pytestmark = pytest.mark.usefixtures("failures")

KINDS = {"text": "text/plain", "json": "application/json"}
CLOSURES = ("open", "closed", "closed by p", "closed with data by p")
LIMITS = StoreLimits(total_bytes=1_000_000, stream_bytes=1000)

TYPES = (None, "right", "Right; charset=utf-8", "image/png", "no type", "")
PRODUCERS = (
    None,
    ("p", 1, 3),  # the last one, a duplicate
    ("p", 1, 1),  # an older one
    ("p", 1, 4),  # the next
    ("p", 1, 9),  # one after a gap
    ("p", 0, 0),  # of a stale epoch
    ("p", 2, 0),  # of a new epoch
    ("p", 2, 1),  # of a new epoch that begins wrong
    ("q", 0, 0),  # of a new producer
    ("q", 0, 1),  # of a new producer that begins wrong
)
SEQS = (None, "a", "m", "z")
BODIES = {
    "text": (b"", b"x", b"x" * 990, b"x" * 2000),
    "json": (b"", b"1", b"[]", b"[1,2]", b"[1,", b" ", b'"%b"' % (b"x" * 2000)),
}


def states() -> list[tuple[str, str, bool, bool]]:
    return list(itertools.product(KINDS, CLOSURES, [False, True], [False, True]))


def name_of(kind: str, closure: str, known: bool, seq: bool) -> str:
    return f"{kind}-{closure.replace(' ', '-')}-{known:d}-{seq:d}"


def prepare(engine: Engine, kind: str, closure: str, known: bool, seq: bool) -> str:
    """A stream in one of the states; producer p is at (1, 3) when it is known."""
    name = name_of(kind, closure, known, seq)
    engine.put(name, content_type=KINDS[kind])
    body = b"1"
    if seq:
        assert engine.post(name, body, KINDS[kind], stream_seq="m").status == 204
    last = "with data" in closure
    if known or "by p" in closure:
        for number in range(4):
            closes = {"stream_closed": "true"} if "by p" in closure and number == 3 else {}
            part = body if last or number < 3 or not closes else b""
            reply = engine.produce(name, "p", 1, number, part, content_type=KINDS[kind], **closes)
            assert reply.status in {200, 204}
    if closure == "closed":
        assert engine.close(name).status == 204
    return name


def requests(kind: str) -> Iterator[tuple[dict[str, str], bytes]]:
    """Every combination of headers and body."""
    for content_type, closes, producer, seq, body in itertools.product(
        TYPES, [False, True], PRODUCERS, SEQS, BODIES[kind]
    ):
        headers = {}
        if content_type is not None:
            right = content_type.lower().startswith("right")
            headers["content_type"] = content_type.lower().replace("right", KINDS[kind]) if right else content_type
        if closes:
            headers["stream_closed"] = "true"
        if producer is not None:
            numbers = {"producer_epoch": str(producer[1]), "producer_seq": str(producer[2])}
            headers |= {"producer_id": producer[0], **numbers}
        if seq is not None:
            headers["stream_seq"] = seq
        yield headers, body


def same(early: Response, final: Response) -> bool:
    return (early.status, early.head, early.body) == (final.status, final.head, final.body)


def judged(engine: Engine, request: Request, length: int | None) -> Response | None:
    """What the head alone decides, with the length known or not."""
    head = Request(request.method, request.path, request.query, request.headers, content_length=length)
    return engine.application.validate_head(head)


class JudgeTests:
    """An answer from the head alone is the answer that the complete request gets."""

    @pytest.mark.parametrize(("kind", "closure", "known", "seq"), states())
    def test_early_answer_is_the_answer(self, kind: str, closure: str, known: bool, seq: bool) -> None:
        """Whatever is decided early, the complete request is answered with, byte for byte."""
        engine = Engine(limits=LIMITS)
        name = prepare(engine, kind, closure, known, seq)
        early_answers = 0
        for headers, body in requests(kind):
            request = engine.request("POST", name, body, **headers)
            for length in (len(body), None):
                early = judged(engine, request, length)
                if early is None:
                    continue
                early_answers += 1
                final = engine.application.respond(request)
                assert isinstance(final, Response)
                assert same(early, final), (headers, body, length, early, final)
        assert early_answers > 100

    def test_early_answers(self) -> None:
        """Missing, gone, closed, of another type, a duplicate, too large: all that needs no body."""
        engine = Engine(limits=LIMITS)
        engine.put("s")
        engine.produce("s", "p", 0, 0)
        engine.put("closed", stream_closed="true")
        engine.put("source")
        engine.fork("fork", "source")
        engine.delete("source")
        duplicate = {"producer_id": "p", "producer_epoch": "0", "producer_seq": "0"}
        stale = {"producer_id": "p", "producer_epoch": "0", "producer_seq": "5"}
        text = {"content_type": "text/plain"}
        for name, headers, status in [
            ("missing", text, 404),
            ("source", text, 410),
            ("closed", text, 409),
            ("s", {"content_type": "image/png"}, 409),
            ("s", {}, 400),
            ("s", text | duplicate, 204),
            ("s", text | stale, 409),
        ]:
            early = judged(engine, engine.request("POST", name, b"x", **headers), 1)
            assert early is not None
            assert early.status == status
        early = judged(engine, engine.request("POST", "s", b"x", **text), 5000)
        assert early is not None
        assert early.status == 413

    def test_too_large_never_hides_another_answer(self) -> None:
        """413 comes after 404, 410, 409 and a duplicate's acknowledgement."""
        engine = Engine(limits=LIMITS)
        engine.put("s")
        engine.produce("s", "p", 0, 0, b"x" * 1000)
        again = {"producer_id": "p", "producer_epoch": "0", "producer_seq": "0", "content_type": "text/plain"}
        for request, status in [
            (engine.request("POST", "s", b"x" * 1000, **again), 204),
            (engine.request("POST", "missing", b"x" * 5000, content_type="text/plain"), 404),
            (engine.request("POST", "s", b"x" * 5000, content_type="image/png"), 409),
        ]:
            final = engine.application.respond(request)
            assert isinstance(final, Response)
            assert final.status == status
            early = judged(engine, request, request.content_length)
            assert early is not None
            assert same(early, final)

    def test_judging_changes_nothing(self) -> None:
        """However often a head is judged, the stream and its usage stay as they are."""
        engine = Engine(limits=LIMITS)
        name = prepare(engine, "text", "open", True, True)
        used, read = engine.used, engine.get(name).body
        for headers, body in requests("text"):
            judged(engine, engine.request("POST", name, body, **headers), len(body))
        assert (engine.used, engine.get(name).body) == (used, read)


class CreateJudgeTests:
    """The same for creates."""

    FORKS: tuple[dict[str, str], ...] = (
        {},
        {"stream_forked_from": "/v1/stream/source"},
        {"stream_forked_from": "/v1/stream/source", "stream_fork_offset": offset(2)},
        {"stream_forked_from": "/v1/stream/source", "stream_fork_offset": offset(99)},
        {"stream_forked_from": "/v1/stream/source", "stream_fork_sub_offset": "1"},
        {"stream_forked_from": "/v1/stream/missing"},
        {"stream_forked_from": "/v1/stream/tombstone"},
        {"stream_forked_from": "/v1/stream/__ds/x"},
        {"stream_forked_from": "//"},
        {"stream_fork_offset": offset(0)},
        {"stream_forked_from": "source", "stream_fork_offset": "now"},
    )
    LIVES: tuple[dict[str, str], ...] = (
        {},
        {"stream_ttl": "60"},
        {"stream_expires_at": "2040-01-01T00:00:00Z"},
        {"stream_ttl": "60", "stream_expires_at": "2040-01-01T00:00:00Z"},
        {"stream_ttl": "-1"},
    )

    def test_early_answer_is_the_answer(self) -> None:
        """Whatever is decided early, the complete request is answered with, byte for byte."""
        engine = Engine(limits=LIMITS)
        for kind, has in KINDS.items():
            engine.put(kind, b"1", has)
            engine.put(f"closed-{kind}", b"1", has, stream_closed="true")
            engine.put(f"ttl-{kind}", b"1", has, stream_ttl="60")
        engine.put("tombstone")
        engine.put_json("source", b"[1,2]")
        engine.fork("kept", "tombstone")
        engine.fork("a-fork", "source")
        engine.delete("tombstone")
        early_answers = 0
        names = (
            "text",
            "json",
            "closed-text",
            "closed-json",
            "ttl-text",
            "tombstone",
            "a-fork",
            "new",
            "__ds/s",
        )
        types = (None, "text/plain", "application/json", "no type")
        bodies = (b"", b"1", b"[]", b"[1,", b"x" * 2000)
        for name, content_type, closed, fork, life in itertools.product(
            names, types, ["true", "false"], self.FORKS, self.LIVES
        ):
            headers: dict[str, str] = {"stream_closed": closed, **fork, **life}
            if content_type is not None:
                headers["content_type"] = content_type
            for body, known in itertools.product(bodies, [True, False]):
                request = engine.request("PUT", name, body, **headers)
                length = len(body) if known else None
                early = judged(engine, request, length)
                if early is None:
                    continue
                early_answers += 1
                final = engine.application.respond(request)
                assert isinstance(final, Response)
                assert same(early, final), (name, headers, body, length, early, final)
        assert early_answers > 1000

    def test_full_store(self) -> None:
        """Too large for what is left: the same words early and late."""
        engine = Engine(limits=StoreLimits(total_bytes=5000, stream_bytes=100_000))
        engine.put("s")
        for request in [
            engine.request("PUT", "t", b"x" * 4500, content_type="text/plain"),
            engine.request("POST", "s", b"x" * 4500, content_type="text/plain"),
            engine.request("POST", "s", b"x" * 2_950, content_type="text/plain"),
        ]:
            early = judged(engine, request, request.content_length)
            final = engine.application.respond(request)
            assert isinstance(final, Response)
            assert early is None or same(early, final)
            assert early is not None or final.status == 204


class EmptyBodyTests:
    """Bodies with nothing in them."""

    @pytest.mark.parametrize("content_type", ["text/plain", "image/png", "no type", ""])
    def test_close_alone_needs_no_type(self, content_type: str) -> None:
        """A close without a body isn't refused for its type."""
        engine = Engine()
        engine.put("s")
        assert engine.close("s", content_type=content_type).status == 204

    def test_append(self) -> None:
        """An append of nothing is refused."""
        engine = Engine()
        engine.put("s")
        assert engine.post("s").code == "EMPTY_BODY"

    def test_repetition(self) -> None:
        """So is one that says it repeats an append: a POST with nothing in it is malformed."""
        engine = Engine()
        engine.put("s")
        engine.produce("s", "p", 0, 0)
        assert engine.produce("s", "p", 0, 0, b"").code == "EMPTY_BODY"
        assert engine.produce("s", "p", 0, 0, b"", stream_closed="true").status == 204
        assert "stream-closed" not in engine.head("s").headers

    def test_empty_array(self) -> None:
        """An append of an empty array is refused, unless it closes."""
        engine = Engine()
        engine.put_json("s")
        assert engine.post_json("s", b"[]").code == "EMPTY_ARRAY"
        assert engine.post_json("s", b" [ ] ", stream_closed="true").status == 204
        assert engine.get("s").body == b"[]"

    @pytest.mark.parametrize("body", [b" ", b"\n", b"\t\r\n"])
    def test_blank_json(self, body: bytes) -> None:
        """Blanks aren't JSON."""
        engine = Engine()
        engine.put_json("s")
        assert engine.post_json("s", body).code == "INVALID_JSON"
        assert engine.post_json("s", body, stream_closed="true").code == "INVALID_JSON"


class StreamSeqTests:
    """Stream-Seq: the application's own order."""

    @pytest.mark.parametrize(
        ("last", "given", "accepted"),
        [
            ("a", "b", True),
            ("a", "a", False),
            ("b", "a", False),
            ("9", "10", False),  # compared byte by byte, not as numbers
            ("a", "aa", True),
            ("Z", "a", True),
            ("é", "z", False),
        ],
    )
    def test_order(self, last: str, given: str, accepted: bool) -> None:
        """Values must grow, byte by byte."""
        engine = Engine()
        engine.put("s")
        engine.post("s", b"x", stream_seq=last)
        assert engine.post("s", b"x", stream_seq=given).status == (204 if accepted else 409)

    def test_remembered_when_accepted(self) -> None:
        """Only an accepted append moves it."""
        engine = Engine(limits=LIMITS)
        engine.put_json("s")
        assert engine.post_json("s", b"[", stream_seq="z").status == 400
        assert engine.post_json("s", b'"%b"' % (b"x" * 5000), stream_seq="z").status == 413
        assert engine.post("s", b"1", "text/plain", stream_seq="z").status == 409
        assert engine.post_json("s", b"1", stream_seq="a").status == 204

    def test_close_alone(self) -> None:
        """A close without data neither checks nor moves it."""
        engine = Engine()
        engine.put("s")
        engine.post("s", b"x", stream_seq="b")
        assert engine.close("s", stream_seq="a").status == 204

    def test_not_inherited(self) -> None:
        """A fork begins without."""
        engine = Engine()
        engine.put("s")
        engine.post("s", b"x", stream_seq="m")
        engine.fork("f", "s")
        assert engine.post("f", b"x", stream_seq="a").status == 204

    def test_detail_is_bounded(self) -> None:
        """A refusal doesn't repeat a value of any length."""
        engine = Engine()
        engine.put("s")
        engine.post("s", b"x", stream_seq="x" * 500)
        reply = engine.post("s", b"x", stream_seq="a" * 5000)
        assert reply.status in {400, 409}
        assert len(reply.body) < 1000


class ProducerTests:
    """Idempotent producers."""

    def test_all_outcomes(self) -> None:
        """New, next, repeated, gap, new epoch, stale epoch, wrong beginning: PROTOCOL 5.2.1."""
        engine = Engine()
        engine.put("s")
        for epoch, seq, status, headers in [
            (0, 1, 409, {"producer-expected-seq": "0", "producer-received-seq": "1"}),
            (0, 0, 200, {"producer-epoch": "0", "producer-seq": "0"}),
            (0, 1, 200, {"producer-epoch": "0", "producer-seq": "1"}),
            (0, 0, 204, {"producer-epoch": "0", "producer-seq": "1"}),
            (0, 3, 409, {"producer-expected-seq": "2", "producer-received-seq": "3"}),
            (5, 1, 400, {}),
            (5, 0, 200, {"producer-epoch": "5", "producer-seq": "0"}),
            (4, 0, 403, {"producer-epoch": "5"}),
            (5, 0, 204, {"producer-epoch": "5", "producer-seq": "0"}),
        ]:
            reply = engine.produce("s", "p", epoch, seq)
            told = {name: text for name, text in reply.headers.items() if name.startswith("producer")}
            assert (reply.status, told) == (status, headers)
        assert engine.get("s").body == b"xxx"

    def test_independent(self) -> None:
        """Producers know nothing of each other, nor of the same name on another stream."""
        engine = Engine()
        for name in "st":
            engine.put(name)
            for producer in "pq":
                assert engine.produce(name, producer, 0, 0).status == 200
        engine.fork("f", "s")
        assert engine.produce("f", "p", 0, 0).status == 200

    def test_refused_append_moves_nothing(self) -> None:
        """An append that is refused doesn't use its number up."""
        engine = Engine(limits=LIMITS)
        engine.put_json("s")
        json_type = "application/json"
        assert engine.produce("s", "p", 0, 0, b"[", content_type=json_type).status == 400
        big = b'"%b"' % (b"x" * 5000)
        assert engine.produce("s", "p", 0, 0, big, content_type=json_type).status == 413
        assert engine.produce("s", "p", 0, 0, b"[]", content_type=json_type).status == 400
        assert engine.produce("s", "p", 0, 0, b"1", content_type="text/plain").status == 409
        assert engine.produce("s", "p", 0, 0, b"1", content_type=json_type).status == 200

    def test_close_is_repeated(self) -> None:
        """The tuple that closed a stream is acknowledged again, no other one (PROTOCOL 5.2.1)."""
        engine = Engine()
        engine.put("s")
        engine.produce("s", "p", 1, 0)
        engine.produce("s", "q", 0, 0)
        assert engine.produce("s", "p", 1, 1, b"end", stream_closed="true").status == 200

        def outcome(reply: Reply) -> tuple[int, str | None]:
            return reply.status, reply.headers.get("stream-closed")

        for body in (b"end", b""):
            again = engine.produce("s", "p", 1, 1, body, stream_closed="true")
            assert outcome(again) == (204, "true")
            assert again.headers["producer-seq"] == "1"
        assert outcome(engine.produce("s", "p", 1, 0)) == (409, "true")
        assert outcome(engine.produce("s", "p", 1, 2)) == (409, "true")
        assert outcome(engine.produce("s", "q", 0, 0)) == (409, "true")
        assert outcome(engine.produce("s", "p", 2, 0)) == (409, "true")
        assert outcome(engine.produce("s", "r", 0, 0)) == (409, "true")
        fenced = engine.produce("s", "p", 0, 1, b"end", stream_closed="true")
        assert (fenced.status, fenced.headers["producer-epoch"]) == (403, "1")
        assert engine.get("s").body == b"xxend"

    def test_same_tuple_on_a_stream_closed_otherwise(self) -> None:
        """On a stream that was closed without a producer there is no such tuple."""
        engine = Engine()
        engine.put("s")
        engine.produce("s", "p", 0, 0)
        engine.close("s")
        assert engine.produce("s", "p", 0, 0).status == 409
        assert engine.produce("s", "p", 0, 0, b"", stream_closed="true").status == 409
        assert engine.close("s").status == 204
        assert engine.close("s", b"x").status == 409


class ClosedTests:
    """Closed streams."""

    def test_closed_comes_first(self) -> None:
        """Of several reasons to refuse, the closure is told (PROTOCOL 5.2)."""
        engine = Engine()
        engine.put_json("s", b"1", stream_closed="true")
        for reply in [
            engine.post("s", b"x"),
            engine.post("s", b"x", content_type=""),
            engine.post_json("s", b"["),
            engine.post_json("s", b"x" * 20_000_000),
            engine.post_json("s"),
            engine.produce("s", "p", 0, 7),
            engine.ask("POST", "s", b"x"),
        ]:
            assert reply.code == "STREAM_CLOSED"
            assert reply.headers["stream-closed"] == "true"
            assert reply.next_offset == offset(2)

    @pytest.mark.parametrize("value", ["false", "1", "yes", "", "truth", "true, true"])
    def test_other_values(self, value: str) -> None:
        """Anything but ``true`` is as no header."""
        engine = Engine()
        engine.put("s", stream_closed=value)
        assert "stream-closed" not in engine.head("s").headers
        assert engine.post("s", b"x", stream_closed=value).status == 204
        assert "stream-closed" not in engine.head("s").headers

    def test_any_letter_case(self) -> None:
        """``TRUE`` is true."""
        engine = Engine()
        engine.put("s")
        assert engine.close("s", stream_closed="TRUE").headers["stream-closed"] == "true"


class LimitTests:
    """How much may be stored."""

    def test_exactly_full(self) -> None:
        """The limits are inclusive."""
        engine = Engine(DelayedStorage(), StoreLimits(total_bytes=1 << 20, stream_bytes=10))
        made = engine.put("s", b"12345")
        full = engine.post("s", b"67890")
        more = engine.post("s", b"!")
        storage = engine.storage
        assert isinstance(storage, DelayedStorage)
        storage.finish_all()
        assert (made.status, full.status, more.status) == (201, 204, 413)

    def test_close_of_a_full_stream(self) -> None:
        """A close adds nothing, so that it never is too large; not even after a limit was lowered."""
        storage = DelayedStorage()
        engine = Engine(storage)
        engine.put("s", b"x" * 1000)
        engine.put("t", b"x" * 1000)
        storage.finish_all()
        lowered = Engine(DelayedStorage(journal=storage.journal), StoreLimits(100, 100))
        append, close = lowered.post("s", b"x"), lowered.close("s")
        empty = lowered.post("t", b"")
        assert isinstance(lowered.storage, DelayedStorage)
        lowered.storage.finish_all()
        assert append.status == 413
        assert close.status == 204
        assert empty.status == 400

    def test_json_is_counted_as_stored(self) -> None:
        """In JSON mode the separators count, blanks around messages don't."""
        engine = Engine(limits=StoreLimits(total_bytes=1 << 20, stream_bytes=10))
        engine.put_json("s")
        assert engine.post_json("s", b"[ 1 , 2 , 3 , 4 , 5 ]").status == 204
        assert engine.post_json("s", b"6").code == "PAYLOAD_TOO_LARGE"

    def test_refused_create_leaves_nothing(self) -> None:
        """A create that is too large leaves no stream and no usage behind."""
        engine = Engine(limits=LIMITS)
        assert engine.put("s", b"x" * 2000).status == 413
        assert engine.put_json("s", b"[").status == 400
        assert engine.head("s").status == 404
        assert engine.used == 0

    def test_forks_count_their_own(self) -> None:
        """What a fork inherits isn't counted again."""
        engine = Engine(limits=LIMITS)
        engine.put("s", b"x" * 1000)
        engine.fork("f", "s")
        assert engine.post("f", b"y" * 1000).status == 204
        assert engine.post("f", b"y").status == 413

    def test_room_comes_back(self) -> None:
        """Deleting makes room; a soft-deleted stream keeps it until its last fork goes."""
        engine = Engine(limits=StoreLimits(total_bytes=6000, stream_bytes=3000))
        engine.put("a", b"x" * 3000)
        assert engine.put("b", b"x" * 3000).status == 413
        engine.fork("f", "a")
        engine.delete("a")
        assert engine.put("b", b"x" * 3000).status == 413
        engine.delete("f")
        assert engine.put("b", b"x" * 3000).status == 201

    def test_charges(self) -> None:
        """Streams, messages, producers and what is kept of their headers count, not only their bytes."""
        engine = Engine()
        charges = engine.storage.charges
        used = [engine.used]

        def cost() -> int:
            used.append(engine.used)
            return used[-1] - used[-2]

        engine.put("s")
        assert cost() >= charges.stream
        engine.post("s", b"12345")
        assert cost() == 5 + charges.message
        engine.produce("s", "p" * 100, 0, 0, b"1")
        assert cost() == 1 + charges.message + charges.producer + 100
        engine.produce("s", "p" * 100, 0, 1, b"1")
        assert cost() == 1 + charges.message
        engine.post("s", b"1", stream_seq="x" * 400)
        assert cost() >= 400
        engine.post("s", b"1", stream_seq="y")
        assert cost() < 0
        engine.delete("s")
        assert engine.used == 0
