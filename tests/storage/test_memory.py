"""The ``memory`` mode: the reference of the contract, contiguous, and charged for what it costs."""

from __future__ import annotations

import gc
import tracemalloc
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from dstreams.model.changes import Append
from dstreams.storage.interface import Storage, StorageFull
from dstreams.storage.memory import CHARGES, MemoryStorage
from dstreams.streams.limits import StoreLimits
from tests.storage.contract import StorageContract, Store
from tests.support.engine import Engine

FACTOR = 1.25
"""Process memory stays within this factor of what is counted against ``max_memory_bytes``."""

HUGE = StoreLimits(total_bytes=1 << 40, stream_bytes=1 << 40)


class MemoryStorageTests(StorageContract):
    """The contract."""

    def make(self, directory: Path) -> Storage:
        return MemoryStorage()

    def test_ids_don_t_come_back_after_a_restart(self) -> None:
        """What another process gave out isn't given out again, so that no ETag outlives its stream."""
        first, second = MemoryStorage(), MemoryStorage()
        before = first.next_stream_id()
        assert second.next_stream_id() != before
        assert before > 1 << 40

    @pytest.mark.parametrize("breaks", ["bytes", "index"])
    def test_no_memory_left(self, breaks: str) -> None:
        """An append that doesn't fit into memory leaves the stream as it was."""
        store = Store(MemoryStorage())
        stream = store.create("s", b"abc")
        source = store.storage.source(store.catalog.streams[stream])

        class Full(bytearray):
            def __iadd__(self, more: object) -> Self:
                raise MemoryError

        class FullArray(array):  # type: ignore[type-arg]
            def extend(self, more: object) -> None:
                self.append(12)
                raise MemoryError

        rope = source._data  # type: ignore[attr-defined]
        good = rope.tail, source._entries  # type: ignore[attr-defined]
        if breaks == "bytes":
            rope.tail = Full(b"abc")
        else:
            source._entries = FullArray("Q", good[1])  # type: ignore[attr-defined]
        change = Append(stream, 3, b"de", (4, 5), None, None, False, 1.0)
        with pytest.raises(StorageFull):
            store.storage.commit([change])
        assert list(source._entries) == list(good[1])  # type: ignore[attr-defined]
        assert source.read(0, 3) == b"abc"
        rope.tail, source._entries = good  # type: ignore[attr-defined]
        store.commit(change)
        assert store.data(stream) == b"abcde"


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Measures what is allocated from here on; gives a function that says how many bytes that is by now."""
    gc.collect()
    tracemalloc.start()
    try:
        begin = tracemalloc.get_traced_memory()[0]

        def grown() -> int:
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - begin

        yield grown
    finally:
        tracemalloc.stop()


class CostTests:
    """What things cost in this process, against what is counted for them."""

    COUNT = 3000

    def check(self, engine: Engine, act: Callable[[int], None], count: int = COUNT) -> None:
        """Do something many times; the memory that takes stays within the factor of what is counted."""
        act(-1)  # what is made once for all isn't the cost of one
        with counted() as grown:
            used = engine.used
            for number in range(count):
                act(number)
            cost = grown()
            charged = engine.used - used
        assert cost <= charged * FACTOR, f"{cost / count:.0f} bytes each, {charged / count:.0f} counted"

    def test_a_million_messages(self) -> None:
        """A million messages of one byte cost less than 20 MB, of which nine bytes each are counted."""
        engine = Engine(limits=HUGE)
        engine.put_json("s")
        engine.put("t")
        body = b"[" + b",".join([b"1"] * 20_000) + b"]"
        with counted() as grown:
            for _ in range(50):
                engine.post_json("s", body)
            cost = grown()
        assert cost < 20_000_000
        assert engine.streams.find("s").messages == 1_000_000

    def test_messages_one_by_one(self) -> None:
        """So do those that come one by one."""
        engine = Engine(limits=HUGE)
        engine.put("s")
        streams = engine.streams
        request = engine.request("POST", "s", b"x", content_type="text/plain")
        with counted() as grown:
            for _ in range(50_000):
                engine.application.respond(request)
            cost = grown()
        assert cost <= 50_000 * (1 + CHARGES.message) * FACTOR
        assert streams.find("s").messages == 50_000

    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param({}, id="plain"),
            pytest.param({"stream_ttl": "3600"}, id="ttl"),
            pytest.param({"stream_expires_at": "2040-01-01T00:00:00Z"}, id="expires"),
            pytest.param({"stream_closed": "true"}, id="closed"),
        ],
    )
    def test_streams(self, headers: dict[str, str]) -> None:
        """Streams with nothing in them."""
        engine = Engine(limits=HUGE)
        self.check(engine, lambda n: _made(engine.put(f"stream/{n}", b"", "text/plain", **headers)))

    def test_streams_with_a_message(self) -> None:
        """Streams with little in them."""
        engine = Engine(limits=HUGE)
        self.check(engine, lambda n: _made(engine.put_json(f"stream/{n}", b'{"n":%d}' % n)))

    def test_streams_with_a_type_of_their_own(self) -> None:
        """Streams each of another type."""
        engine = Engine(limits=HUGE)
        self.check(engine, lambda n: _made(engine.put(f"s{n}", b"", f"text/x-{n}; charset=utf-8; a={'b' * 200}")))

    @pytest.mark.parametrize("letter", ["a", "%C3%A9", "%E2%82%AC", "%F0%9F%98%80"])
    def test_streams_with_long_names(self, letter: str) -> None:
        """Streams with names as long as may be, in letters of all widths."""
        engine = Engine(limits=HUGE)
        long = letter * (1000 // max(1, len(letter) // 3))
        self.check(engine, lambda n: _made(engine.put(f"{n}/{long}")), 500)

    def test_forks(self) -> None:
        """Forks."""
        engine = Engine(limits=HUGE)
        engine.put("source", b"abc")
        self.check(engine, lambda n: _made(engine.fork(f"fork/{n}", "source", b"own", stream_ttl="1000")))

    def test_soft_deleted_streams(self) -> None:
        """Streams that are kept for their forks."""
        engine = Engine(limits=HUGE)

        def make(number: int) -> None:
            _made(engine.put(f"s{number}", b"abc"))
            _made(engine.fork(f"f{number}", f"s{number}"))
            engine.delete(f"s{number}")

        self.check(engine, make)

    @pytest.mark.parametrize("width", [1, 40, 400])
    def test_producers(self, width: int) -> None:
        """Producers of one stream, whatever their ids."""
        engine = Engine(limits=HUGE)
        engine.put("s")
        self.check(engine, lambda n: _made(engine.produce("s", f"{n}".rjust(width, "p"), n + 1, 0)))

    def test_one_producer_for_each_stream(self) -> None:
        """The first producer of a stream."""
        engine = Engine(limits=HUGE)

        def make(number: int) -> None:
            _made(engine.put(f"s{number}"))
            _made(engine.produce(f"s{number}", f"producer {number}", number + 1, 0))

        self.check(engine, make)

    def test_stream_seqs(self) -> None:
        """Streams with a long Stream-Seq."""
        engine = Engine(limits=HUGE)

        def make(number: int) -> None:
            _made(engine.put(f"s{number}"))
            _made(engine.post(f"s{number}", b"x", stream_seq=f"{number}".rjust(4000, "x")))

        self.check(engine, make, 1000)

    def test_bytes(self) -> None:
        """Plain bytes, in large messages and in buffers that have grown."""
        engine = Engine(limits=HUGE)
        engine.put("s")

        def append(number: int) -> None:
            _made(engine.post("s", b"x" * 10_000))

        self.check(engine, append, 1000)

    def test_deleted_streams_cost_nothing(self) -> None:
        """What is deleted is given back."""
        engine = Engine(limits=HUGE)

        def make(number: int) -> None:
            _made(engine.put("s", b"x" * 1000, stream_ttl="100000"))
            _made(engine.produce("s", f"producer {number}", 0, 0))
            engine.delete("s")

        make(-1)
        with counted() as grown:
            for number in range(5000):
                make(number)
            engine.turn()  # stale deadlines are dropped in slices
            assert grown() < 300_000
        assert engine.used == 0


def _made(reply: object) -> None:
    status = getattr(reply, "status", 0)
    assert status in {200, 201, 204}, status
