"""What every storage backend must do: a suite that each of them joins.

A backend's test class inherits from :class:`StorageContract` and says how it is made; what it needs of a reactor
it gets in a form that works at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import TypeVar, cast

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete, ForkPoint, SoftDelete, StreamConfig, Touch
from dstreams.model.ends import MANY, ManyEnds
from dstreams.protocol.content_types import parse_content_type
from dstreams.protocol.producers import Producer
from dstreams.runtime.progress import silently
from dstreams.storage.interface import ByteSource, Storage

T = TypeVar("T")

TEXT = StreamConfig(parse_content_type(b"text/plain"))


def now(outcome: T | Deferred[T]) -> T:
    """The value of what doesn't have to wait; raises when it failed."""
    if not isinstance(outcome, Deferred):
        return outcome
    results: list[object] = []
    outcome.addBoth(results.append)
    assert results, "still waiting"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return cast("T", results[0])


@define(eq=False)
class Store:
    """A backend that has been opened, with the catalog that the engine keeps beside it."""

    storage: Storage
    catalog: Catalog = field(factory=Catalog)

    def __attrs_post_init__(self) -> None:
        self.storage.open(self.catalog, silently)

    def commit(self, *changes: Change) -> None:
        """Commit changes as one group, and apply them."""
        now(self.storage.commit(changes))
        for change in changes:
            self.catalog.apply(change)

    def create(self, name: str, *messages: bytes, config: StreamConfig = TEXT) -> int:
        """A stream; gives its number."""
        stream_id = self.storage.next_stream_id()
        data, ends = joined(0, messages)
        self.commit(Create(stream_id, name, config, None, data, ends, False, 1.0))
        return stream_id

    def fork(self, name: str, source_id: int, position: int, *messages: bytes) -> int:
        stream_id = self.storage.next_stream_id()
        source = self.catalog.streams[source_id]
        data, ends = joined(position, messages)
        point = ForkPoint(source_id, source.name, position)
        self.commit(Create(stream_id, name, source.config, point, data, ends, False, 1.0))
        return stream_id

    def append(self, stream_id: int, *messages: bytes, closes: bool = False) -> None:
        self.commit(self.appending(stream_id, *messages, closes=closes))

    def appending(
        self,
        stream_id: int,
        *messages: bytes,
        producer: Producer | None = None,
        stream_seq: bytes | None = None,
        closes: bool = False,
    ) -> Append:
        """The change that appends messages."""
        tail = self.catalog.streams[stream_id].tail
        data, ends = joined(tail, messages)
        return Append(stream_id, tail, data, ends, producer, stream_seq, closes, 2.0)

    def source(self, stream_id: int) -> ByteSource:
        return self.storage.source(self.catalog.streams[stream_id])

    def data(self, stream_id: int) -> bytes:
        """The stream's own bytes."""
        state = self.catalog.streams[stream_id]
        return now(self.source(stream_id).read(state.start, state.tail)) if state.size else b""

    def close(self) -> None:
        now(self.storage.close())


def joined(start: int, messages: Sequence[bytes]) -> tuple[bytes, tuple[int, ...]]:
    """Messages as they are stored, and their absolute ends."""
    ends, end = [], start
    for message in messages:
        end += len(message)
        ends.append(end)
    return b"".join(messages), tuple(ends)


def ends_after(source: ByteSource, position: int) -> list[int]:
    """The message ends up to the next data boundary."""
    ends: Sequence[int] = now(source.append_ends(position))
    return list(ends)


def summary(catalog: Catalog) -> dict[int, object]:
    """All that a catalog holds, comparable."""
    return {
        state.id: (
            state.name,
            state.config,
            state.fork,
            (state.start, state.tail, state.messages),
            (state.closed, state.closed_by, state.stream_seq, state.producers or {}),
            (state.created_at, state.updated_at, state.touched_at),
            (state.forks, state.soft_deleted),
        )
        for state in catalog.streams.values()
    }


class StorageContract:
    """The suite. Test classes of backends inherit from it."""

    def make(self, directory: Path) -> Storage:
        """A backend over a directory that may hold what another one left there; not opened."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = Store(self.make(tmp_path))
        yield store
        store.close()

    def test_opens_empty(self, store: Store) -> None:
        """A new store holds nothing."""
        assert not store.catalog.streams
        assert not store.catalog.names
        assert store.storage.failure is None
        assert store.storage.name

    def test_create(self, store: Store) -> None:
        """A stream's first bytes are there, and its messages' ends."""
        stream = store.create("s", b"one", b"two")
        assert store.data(stream) == b"onetwo"
        assert [now(store.source(stream).floor(position)) for position in range(7)] == [0, 0, 0, 3, 3, 3, 6]

    def test_create_empty(self, store: Store) -> None:
        """A stream may begin with nothing, and grow."""
        stream = store.create("s")
        assert store.data(stream) == b""
        store.append(stream, b"x")
        assert store.data(stream) == b"x"

    def test_append(self, store: Store) -> None:
        """Appends follow each other, and any range of bytes can be read."""
        stream = store.create("s", b"ab")
        store.append(stream, b"cd", b"", b"ef")
        store.append(stream, b"gh")
        source = store.source(stream)
        whole = b"abcdefgh"
        for start in range(9):
            for end in range(start + 1, 9):
                assert now(source.read(start, end)) == whole[start:end]

    def test_close_alone(self, store: Store) -> None:
        """A change without bytes changes no bytes."""
        stream = store.create("s", b"ab")
        store.append(stream, closes=True)
        store.commit(SoftDelete(stream, 3.0), Touch(stream, 4.0))
        assert store.data(stream) == b"ab"

    def test_group(self, store: Store) -> None:
        """A group may hold changes of several streams, and several of one, in any mixture."""
        old = store.create("old", b"x")
        first, second = store.storage.next_stream_id(), store.storage.next_stream_id()
        store.commit(
            Create(first, "first", TEXT, None, b"a", (1,), False, 1.0),
            Append(old, 1, b"y", (2,), None, None, False, 1.0),
            Append(first, 1, b"bc", (2, 3), None, None, False, 1.0),
            Delete((old,), (), 1.0),
            Create(second, "old", TEXT, None, b"z", (1,), False, 1.0),
            Append(first, 3, b"", (), None, None, True, 1.0),
        )
        assert store.data(first) == b"abc"
        assert store.data(second) == b"z"
        assert set(store.catalog.names) == {"first", "old"}

    def test_several_appends_of_a_stream_in_a_group(self, store: Store) -> None:
        """A group may append to one stream several times: every message and every append keeps its end."""
        stream = store.create("s", b"ab")
        store.append(stream, b"c", b"d")
        for turn in range(1, 4):
            tail = store.catalog.streams[stream].tail
            store.commit(
                Append(stream, tail, b"ef", (tail + 1, tail + 2), None, None, False, 1.0),
                Append(stream, tail + 2, b"g", (tail + 3,), None, None, False, 1.0),
                Append(stream, tail + 3, b"hi", (tail + 5,), None, None, False, 1.0),
            )
            assert store.data(stream) == b"abcd" + b"efghi" * turn
            source = store.source(stream)
            assert ends_after(source, tail) == [tail + 1, tail + 2]
            assert ends_after(source, tail + 2) == [tail + 3]
            assert ends_after(source, tail + 3) == [tail + 5]
            assert now(source.extent(0, tail + 4)) == tail + 3

    def test_interleaved_streams(self, store: Store) -> None:
        """Streams don't mix, however their appends alternate."""
        streams = [store.create(f"s{number}") for number in range(10)]
        for turn in range(20):
            store.commit(*(store.appending(stream, b"%d:%d " % (stream, turn)) for stream in streams))
        for stream in streams:
            assert store.data(stream) == b"".join(b"%d:%d " % (stream, turn) for turn in range(20))

    def test_any_bytes(self, store: Store) -> None:
        """Bytes come back as they are, whatever they are."""
        everything = bytes(range(256)) * 3
        stream = store.create("s", everything)
        store.append(stream, b"\x00", b"\xff" * 5, everything)
        assert store.data(stream) == everything + b"\x00" + b"\xff" * 5 + everything

    def test_large_messages(self, store: Store) -> None:
        """So do messages of many megabytes."""
        big = bytes(range(251)) * 20_000
        stream = store.create("s", big)
        store.append(stream, b"x", big)
        assert store.data(stream) == big + b"x" + big
        source = store.source(stream)
        assert now(source.read(len(big) - 2, len(big) + 3)) == (big + b"x" + big)[len(big) - 2 : len(big) + 3]
        assert now(source.extent(0, 1)) == len(big)

    @pytest.mark.parametrize("name", ["a", "a/b/c", "é€😀", "..", "CON", "a b%20", "x" * 1024, "\u202e", "A", "a\\b"])
    def test_names(self, store: Store, name: str) -> None:
        """Any name will do."""
        stream = store.create(name, b"x")
        assert store.data(stream) == b"x"

    def test_names_that_look_alike(self, store: Store) -> None:
        """Names that some file systems would take for the same are different."""
        names = ["a", "A", "a.", "a ", "e\u0301", "\u00e9"]
        streams = [store.create(name, name.encode()) for name in names]
        for name, stream in zip(names, streams, strict=True):
            assert store.data(stream) == name.encode()

    def test_ids_are_new(self, store: Store) -> None:
        """No number is given twice, not even that of a deleted stream."""
        seen = set()
        for _ in range(50):
            stream = store.create("s")
            assert stream not in seen
            assert stream > 0
            seen.add(stream)
            store.commit(Delete((stream,), (), 1.0))

    def test_readable_after_delete(self, store: Store) -> None:
        """Whoever reads a stream can go on when it is deleted, and doesn't see its name's next life."""
        stream = store.create("s", b"old ", b"bytes")
        source = store.source(stream)
        store.commit(Delete((stream,), (), 1.0))
        other = store.create("s", b"new")
        for _ in range(20):
            store.append(other, b"!" * 1000)
        assert now(source.read(0, 9)) == b"old bytes"
        assert now(source.floor(5)) == 4
        assert now(source.extent(0, 5)) == 4
        assert ends_after(source, 0) == [4, 9]

    def test_source_goes_to_its_tail(self, store: Store) -> None:
        """A source serves the bytes up to the tail of its time, whatever is appended later."""
        stream = store.create("s", b"abc")
        source = store.source(stream)
        store.append(stream, b"d" * 10_000)
        assert now(source.read(0, 3)) == b"abc"
        assert now(source.floor(3)) == 3

    def test_forks(self, store: Store) -> None:
        """A fork's own bytes begin at its position; its source's are its source's."""
        source = store.create("s", b"abc", b"def")
        fork = store.fork("f", source, 4, b"XY")
        store.append(fork, b"Z")
        store.append(source, b"ghi")
        assert store.data(fork) == b"XYZ"
        assert now(store.source(fork).read(5, 7)) == b"YZ"
        assert [now(store.source(fork).floor(position)) for position in (4, 5, 6, 7)] == [4, 4, 6, 7]
        assert now(store.source(fork).extent(4, 2)) == 6
        assert now(store.source(fork).extent(4, 1)) == 6
        assert ends_after(store.source(fork), 4) == [6]
        assert store.data(source) == b"abcdefghi"

    def test_delete_with_sources(self, store: Store) -> None:
        """A cascade takes several streams, and leaves the one that it only releases."""
        root = store.create("root", b"r")
        middle = store.fork("middle", root, 1, b"m")
        leaf = store.fork("leaf", middle, 2, b"l")
        store.commit(SoftDelete(middle, 1.0))
        store.commit(Delete((leaf, middle), (root,), 1.0))
        assert set(store.catalog.streams) == {root}
        assert store.catalog.streams[root].forks == 0
        assert store.data(root) == b"r"

    @pytest.mark.parametrize("seed", range(12))
    def test_index(self, store: Store, seed: int) -> None:
        """Every question to the index is answered as by counting, at every position."""
        random = Random(seed)
        begin = random.randrange(4)
        stream = store.fork("s", store.create("root", b"123"), begin)
        ends: list[int] = []
        append_ends: list[int] = []
        for _ in range(random.randint(1, 8)):
            sizes = [random.randint(1, 6) for _ in range(random.randint(1, 4))]
            store.append(stream, *(b"m" * size for size in sizes))
            for size in sizes:
                ends.append((ends[-1] if ends else begin) + size)
            append_ends.append(ends[-1])
        source, tail = store.source(stream), ends[-1]
        for position in range(begin, tail + 1):
            assert now(source.floor(position)) == max([begin, *(end for end in ends if end <= position)])
        for position in range(begin, tail):
            boundary = next(end for end in append_ends if end > position)
            expected = [end for end in ends if position < end <= boundary]
            assert ends_after(source, position) == expected
            after = [end for end in ends if end > position]
            marked = [end << 1 | (end in append_ends) for end in after]
            for most in (1, 3, len(after) + 1):
                assert list(now(source.entries(position, most))) == marked[:most]
            for limit in range(1, tail - position + 3):
                fitting = [end for end in after if end <= position + limit]
                assert now(source.extent(position, limit)) == (fitting or after[:1])[-1]

    def test_an_append_of_many_messages(self, tmp_path: Path) -> None:
        """Thousands of messages in one append, between small ones, are found one by one; also after a restart."""
        store = Store(self.make(tmp_path))
        stream = store.create("s", b"first")
        lengths = array("I", [1 + number % 5 for number in range(2 * MANY + 1)])
        store.append(stream, b"before")
        tail = store.catalog.streams[stream].tail
        data = bytes(number % 251 for number in range(sum(lengths)))
        store.commit(Append(stream, tail, data, ManyEnds.of_lengths(tail, lengths), None, None, False, 3.0))
        store.append(stream, b"af", b"ter")
        assert store.catalog.streams[stream].messages == len(lengths) + 4

        def verify(store: Store) -> None:
            assert store.data(stream) == b"firstbefore" + data + b"after"
            source, ends = store.source(stream), list(accumulate(lengths, initial=tail))
            for number in (0, 1, 2, MANY - 1, MANY, 2 * MANY):
                assert now(source.floor(ends[number])) == ends[number]
                assert now(source.floor(ends[number + 1] - 1)) == (ends[number])
                following = [end << 1 | (end == ends[-1]) for end in ends[number + 1 : number + 4]]
                assert list(now(source.entries(ends[number], 3)))[: len(following)] == following
            assert ends_after(source, tail) == ends[1:]
            assert now(source.extent(tail, 1000)) == max(end for end in ends if end <= tail + 1000)

        verify(store)
        store.close()
        if store.storage.persistent:
            again = Store(self.make(tmp_path))
            verify(again)
            again.close()

    def test_recovered(self, tmp_path: Path) -> None:
        """Opened again, a store that lasts holds everything, and nothing that was deleted."""
        store = Store(self.make(tmp_path))
        if not store.storage.persistent:
            store.create("s", b"x")
            store.close()
            again = Store(self.make(tmp_path))
            assert again.catalog.streams == {}
            again.close()
            return
        config = StreamConfig(parse_content_type(b"Application/JSON; charset=utf-8"), ttl=2**53 - 1)
        later = StreamConfig(parse_content_type(b"text/plain"), expires_at=4_000_000_000.123)
        streams = {
            "plain": store.create("plain", b"one", b"two"),
            "json": store.create("é/json", b"1,", config=config),
            "later": store.create("later", config=later),
        }
        deleted = store.create("deleted", b"gone")
        for seq in range(3):
            producer = Producer("p\xe9", 2**53 - 1, seq)
            store.commit(store.appending(streams["plain"], b"%d" % seq, producer=producer))
        store.commit(store.appending(streams["plain"], b"s", stream_seq=b"\x00\xff"))
        closing = store.appending(streams["plain"], producer=Producer("q", 0, 0), closes=True)
        store.commit(closing)
        streams["fork"] = store.fork("fork", streams["plain"], 4, b"own")
        store.commit(SoftDelete(streams["plain"], 7.0))
        store.commit(Touch(streams["json"], 9.5))
        store.commit(Delete((deleted,), (), 1.0))
        store.append(streams["json"], b"2,", b"3,")
        store.commit(
            Append(streams["later"], 0, b"one", (3,), None, None, False, 1.0),
            Append(streams["later"], 3, b"two", (6,), None, None, False, 1.0),
            Append(streams["later"], 6, b"six", (9,), None, None, False, 1.0),
        )
        expected = summary(store.catalog)
        data = {name: store.data(stream) for name, stream in streams.items()}
        store.close()

        again = Store(self.make(tmp_path))
        assert summary(again.catalog) == expected
        assert {name: again.data(stream) for name, stream in streams.items()} == data
        assert ends_after(again.source(streams["json"]), 2) == [4, 6]
        assert [ends_after(again.source(streams["later"]), position) for position in (0, 3, 6)] == [[3], [6], [9]]
        assert again.storage.next_stream_id() > max(*streams.values(), deleted)
        again.append(streams["json"], b"4,")
        assert again.data(streams["json"]) == b"1,2,3,4,"
        again.close()

    def test_recovered_time_and_again(self, tmp_path: Path) -> None:
        """So it does however often that happens, with changes in between and without."""
        store = Store(self.make(tmp_path))
        if not store.storage.persistent:
            store.close()
            return
        stream, expected = store.create("s"), b""
        ids = {stream}
        for turn in range(8):
            for number in range(turn):
                store.append(stream, b"%d.%d " % (turn, number))
                expected += b"%d.%d " % (turn, number)
            store.close()
            store = Store(self.make(tmp_path))
            assert store.data(stream) == expected
            other = store.create(f"other{turn}")
            assert other not in ids
            ids.add(other)
        assert len(store.catalog.streams) == 9
        store.close()
