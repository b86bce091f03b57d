"""Changes as bytes."""

from __future__ import annotations

from array import array
from contextlib import suppress
from itertools import accumulate

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstreams.model.changes import (
    Append,
    Change,
    Create,
    Delete,
    ForkPoint,
    SoftDelete,
    StreamConfig,
    Touch,
)
from dstreams.model.ends import MANY, ManyEnds
from dstreams.protocol.content_types import parse_content_type
from dstreams.protocol.headers import MAX_INTEGER
from dstreams.protocol.producers import Producer
from dstreams.storage.config_json import MalformedRecord, config_members, members_config
from dstreams.storage.files.records import decode, encode

IDS = st.integers(min_value=0, max_value=(1 << 63) - 1)
TIMES = st.floats(min_value=0, max_value=1e11)
POSITIONS = st.integers(min_value=0, max_value=1 << 50)
NUMBERS = st.integers(min_value=0, max_value=MAX_INTEGER)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
TYPES = st.sampled_from(
    [parse_content_type(raw) for raw in (b"application/json", b"text/plain; charset=utf-8", b"a/b")]
)
CONFIGS = st.one_of(
    st.builds(StreamConfig, TYPES, st.none() | NUMBERS, st.none()),
    st.builds(StreamConfig, TYPES, st.none(), TIMES),
)
FORKS = st.builds(ForkPoint, IDS, NAMES, POSITIONS, st.none() | POSITIONS, NUMBERS, st.booleans())
PRODUCERS = st.builds(Producer, st.text(st.characters(max_codepoint=255), min_size=1, max_size=512), NUMBERS, NUMBERS)
MESSAGES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@st.composite
def creates(draw: st.DrawFn) -> Create:
    fork, messages = draw(st.none() | FORKS), draw(MESSAGES)
    start = 0 if fork is None else fork.position
    ends = tuple(accumulate(map(len, messages), initial=start))[1:]
    stream_id, name, config = draw(IDS), draw(NAMES), draw(CONFIGS)
    return Create(stream_id, name, config, fork, b"".join(messages), ends, draw(st.booleans()), draw(TIMES))


@st.composite
def appends(draw: st.DrawFn) -> Append:
    start, messages = draw(POSITIONS), draw(MESSAGES)
    ends = tuple(accumulate(map(len, messages), initial=start))[1:]
    producer, stream_seq = draw(st.none() | PRODUCERS), draw(st.none() | st.binary(max_size=300))
    stream_id, closes = draw(IDS), draw(st.booleans())
    return Append(stream_id, start, b"".join(messages), ends, producer, stream_seq, closes, draw(TIMES))


ID_LISTS = st.lists(IDS, max_size=5).map(tuple)
CHANGES = st.one_of(
    creates(),
    appends(),
    st.builds(Delete, ID_LISTS, ID_LISTS, TIMES),
    st.builds(SoftDelete, IDS, TIMES),
    st.builds(Touch, IDS, TIMES),
)


def members(change: Change) -> tuple[object, ...]:
    """A change's kind and values; changes themselves are never equal."""
    return type(change), *(getattr(change, name) for name in type(change).__slots__ if not name.startswith("__"))


def a_create() -> Create:
    config = StreamConfig(parse_content_type(b"application/json"), 60)
    return Create(7, "näme", config, ForkPoint(3, "source", 10, None, 2, True), b"1,22,", (12, 15), False, 1.5)


def an_append() -> Append:
    return Append(7, 10, b"1,22,", (12, 15), Producer("p", 1, 2), b"seq", True, 2.5)


def with_members(**changed: object) -> bytes:
    """A create whose JSON says something else; ``...`` leaves a member out."""
    create = a_create()
    found = config_members(create.config, create.fork) | {"name": create.name, "closed": create.closed} | changed
    meta = orjson.dumps({name: value for name, value in found.items() if value is not ...})
    encoded = b"".join(encode([create]))
    size = int.from_bytes(encoded[17:21], "little")
    return encoded[:17] + len(meta).to_bytes(4, "little") + encoded[21:29] + meta + encoded[29 + size :]


class RoundTripTests:
    @given(st.lists(CHANGES, max_size=8))
    def test_changes_come_back_in_order(self, changes: list[Change]) -> None:
        """Every kind of change, in a batch of any number, is read back as it was."""
        found = list(decode(b"".join(encode(changes))))
        assert list(map(members, found)) == list(map(members, changes))

    @given(CONFIGS, st.none() | FORKS)
    def test_configuration_as_json(self, config: StreamConfig, fork: ForkPoint | None) -> None:
        """What a stream was created with survives as JSON, also among members of a later version."""
        stored = orjson.loads(orjson.dumps(config_members(config, fork) | {"later": [1]}))
        assert members_config(stored) == (config, fork)

    def test_one_message_costs_no_length(self) -> None:
        """The usual append of one message has no list of lengths: 34 bytes beside its data."""
        append = Append(1, 0, b"x" * 100, (100,), None, None, False, 0.0)
        assert len(b"".join(encode([append]))) == 134

    def test_many_messages_come_back_as_arrays(self) -> None:
        """Many messages have the same bytes however their ends are kept, and no object for each when they are read."""
        lengths = array("I", [1 + number % 3 for number in range(MANY)])
        ends = ManyEnds.of_lengths(70, lengths)
        changes = [
            Append(1, 70, bytes(sum(lengths)), kept, Producer("p", 1, 2), None, True, 0.0)
            for kept in (ends, tuple(ends))
        ]
        assert encode([changes[0]]) == encode([changes[1]])
        (found,) = decode(b"".join(encode([changes[0]])))
        assert isinstance(found, Append)
        assert isinstance(found.ends, ManyEnds)
        assert list(found.ends) == list(ends)

    def test_many_messages_are_checked(self) -> None:
        """Lengths that don't fit the data, or are zero, are malformed also where there are many."""
        for wrong in (0, 2):
            lengths = array("I", [1] * MANY)
            lengths[5] = wrong
            append = Append(1, 0, bytes(MANY), ManyEnds.of_lengths(0, lengths), None, None, False, 0.0)
            with pytest.raises(MalformedRecord):
                list(decode(b"".join(encode([append]))))


class MalformedTests:
    @given(st.lists(CHANGES, min_size=1, max_size=3), st.data())
    def test_cut_off(self, changes: list[Change], data: st.DataObject) -> None:
        """A batch that breaks off inside a change is malformed; the changes before it are read."""
        parts = [b"".join(encode([change])) for change in changes]
        whole = b"".join(parts)
        cut = data.draw(st.integers(min_value=len(whole) - len(parts[-1]) + 1, max_value=len(whole) - 1))
        reading = decode(whole[:cut])
        for change in changes[:-1]:
            assert members(next(reading)) == members(change)
        with pytest.raises(MalformedRecord, match="of the batch"):
            next(reading)

    @given(st.binary(max_size=300))
    @example(b"\x03" + bytes(8) + b"\xff" * 8)
    @example(b"\x02\x00" + bytes(24) + b"\xff" * 8)
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are either changes or malformed, never another exception."""
        with suppress(MalformedRecord):
            list(decode(data))

    @given(CHANGES, st.data())
    def test_damaged(self, change: Change, data: st.DataObject) -> None:
        """So are a change's bytes with some of them replaced."""
        encoded = bytearray().join(encode([change]))
        for _ in range(data.draw(st.integers(min_value=1, max_value=4))):
            encoded[data.draw(st.integers(min_value=0, max_value=len(encoded) - 1))] = data.draw(
                st.integers(min_value=0, max_value=255)
            )
        with suppress(MalformedRecord):
            list(decode(bytes(encoded)))

    def test_unknown_kind(self) -> None:
        """A kind of change that this version doesn't know is named."""
        with pytest.raises(MalformedRecord, match="unknown kind of change 9 at byte 0"):
            list(decode(b"\x09"))

    @pytest.mark.parametrize(
        ("changed", "text"),
        [
            ({"type": ...}, "no 'type'"),
            ({"type": "not a type"}, "no valid content type"),
            ({"type": "\u4e2d/x"}, "no valid content type"),
            ({"type": 1}, "'type' is 1"),
            ({"name": None}, "no 'name'"),
            ({"closed": 1}, "'closed' is 1"),
            ({"ttl": "60"}, "'ttl' is '60'"),
            ({"ttl": True}, "'ttl' is True"),
            ({"expires_at": []}, "'expires_at' is"),
            ({"fork": 1}, "'fork' is 1"),
            ({"fork": {"source_id": 1}}, "no 'source_name'"),
        ],
    )
    def test_wrong_members(self, changed: dict[str, object], text: str) -> None:
        """JSON that isn't a stream's is malformed; the text says what is wrong."""
        with pytest.raises(MalformedRecord, match=text):
            list(decode(with_members(**changed)))

    @pytest.mark.parametrize("stored", [None, 1, [], "x"])
    def test_no_object(self, stored: object) -> None:
        """JSON that is no object is malformed."""
        with pytest.raises(MalformedRecord, match="no object"):
            members_config(stored)

    @pytest.mark.parametrize("change", [a_create(), an_append()], ids=["create", "append"])
    @pytest.mark.parametrize("lengths", [(2, 2), (5, 0), (0, 5)])
    def test_lengths_that_do_not_fit(self, change: Create | Append, lengths: tuple[int, int]) -> None:
        """Message lengths that don't add up to the data, or are zero, are malformed: an index must ascend."""
        right = b"".join(length.to_bytes(4, "little") for length in (2, 3))
        wrong = b"".join(length.to_bytes(4, "little") for length in lengths)
        encoded = b"".join(encode([change]))
        assert encoded.count(right) == 1
        with pytest.raises(MalformedRecord, match="message ends and data differ"):
            list(decode(encoded.replace(right, wrong)))
