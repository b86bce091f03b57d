"""The ``acid`` mode: what was acknowledged is there after every end, and nothing else is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, ForkPoint, SoftDelete, Touch
from dstreams.protocol.producers import Producer
from dstreams.storage.acid import AcidStorage
from dstreams.storage.acid.chunks import CHUNK_BYTES, MERGE_BYTES
from dstreams.storage.acid.group import home
from dstreams.storage.directory import FORMAT
from dstreams.storage.interface import StorageError
from dstreams.storage.memory import MemoryStorage
from tests.storage.acid_stores import (
    SHARDS,
    HeldRun,
    acid,
    append,
    boundaries,
    contents,
    crashed,
    create,
    delete,
    engine,
    now,
    reseal,
)
from tests.support.engine import START, Engine, offset


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "store"


def fill(served: Engine) -> None:
    """Streams of every kind."""
    served.put("plain", b"one ")
    served.post("plain", b"two")
    served.put_json("json", b'[1, {"a" : 2}]')
    served.post_json("json", b'[[3], "4"]')
    served.post_json("json", b'{"five":5}')
    for seq in range(3):
        served.produce("plain", "p", 0, seq, b"p%d" % seq)
    served.produce("plain", "q", 4, 0, b"q")
    served.post("plain", b"s", stream_seq="b7")
    served.put("closed", b"end")
    served.close("closed")
    served.put("closed-by", b"")
    served.produce("closed-by", "c", 2, 0, b"last", stream_closed="true")
    served.put("ttl", b"x", stream_ttl="3600")
    served.put("expires", b"x", stream_expires_at="2040-01-01T00:00:00Z")
    served.fork("fork", "json", stream_fork_offset=served.head("json").next_offset)
    served.post_json("fork", b'"of json"')
    served.fork("inside", "plain", stream_fork_offset=START, stream_fork_sub_offset="2")
    served.fork("fork-of-fork", "fork")
    served.put("deleted", b"source")
    served.fork("orphan", "deleted")
    served.post("orphan", b"own")
    served.delete("deleted")


ENDS: dict[str, Callable[[Engine, Path], Path]] = {
    "closed": lambda served, directory: (now(served.streams.close()), directory)[1],
    "killed": lambda _, directory: crashed(directory),
}


@pytest.fixture(params=sorted(ENDS))
def end(request: pytest.FixtureRequest) -> Callable[[Engine, Path], Path]:
    """How the server ends; gives the directory to start again with."""
    return ENDS[request.param]


@pytest.fixture(params=["in memory", "not in memory"])
def recent_bytes(request: pytest.FixtureRequest) -> int:
    """How many recent bytes stay in memory."""
    return 1 << 20 if request.param == "in memory" else 0


class ReopenTests:
    def test_everything_comes_back(
        self, directory: Path, end: Callable[[Engine, Path], Path], recent_bytes: int
    ) -> None:
        """Bytes, states, producers, forks and deletions are the same after a restart, however the server ended."""
        served = engine(directory, recent_bytes=recent_bytes)
        fill(served)
        before = contents(served)
        assert len(before) == 11
        again = engine(end(served, directory), recent_bytes=recent_bytes)
        assert contents(again) == before
        assert again.storage.problems() == []  # type: ignore[attr-defined]

    def test_message_ends_come_back(
        self, directory: Path, end: Callable[[Engine, Path], Path], recent_bytes: int
    ) -> None:
        """The index gives the same answers after a restart at every position of every stream."""
        served = engine(directory, recent_bytes=recent_bytes)
        fill(served)

        def answers(of: Engine) -> dict[int, list[object]]:
            streams = of.streams._durable.streams.values()
            return {state.id: boundaries(of.storage.source(state), state) for state in streams}

        before = answers(served)
        assert sum(map(len, before.values())) > 100
        assert answers(engine(end(served, directory))) == before

    def test_producers_go_on(self, directory: Path, end: Callable[[Engine, Path], Path]) -> None:
        """After a restart a duplicate is known, a gap refused, an old epoch fenced, and the next batch taken."""
        served = engine(directory)
        fill(served)
        again = engine(end(served, directory))
        assert again.produce("plain", "p", 0, 2).status == 204
        assert again.produce("plain", "p", 0, 4).status == 409
        assert again.produce("plain", "q", 3, 0).status == 403
        assert again.produce("plain", "p", 0, 3).status == 200
        assert again.produce("plain", "p", 1, 0).status == 200

    def test_closure_stays(self, directory: Path, end: Callable[[Engine, Path], Path]) -> None:
        """A closed stream is closed after a restart, and knows who closed it."""
        served = engine(directory)
        fill(served)
        again = engine(end(served, directory))
        assert again.post("closed", b"more").status == 409
        assert again.close("closed").status == 204
        assert again.produce("closed-by", "c", 2, 0, b"last", stream_closed="true").status == 204
        assert again.produce("closed-by", "d", 2, 0, b"last", stream_closed="true").status == 409

    def test_stream_seq_stays(self, directory: Path, end: Callable[[Engine, Path], Path]) -> None:
        """After a restart a Stream-Seq that isn't greater than the last is refused."""
        served = engine(directory)
        fill(served)
        again = engine(end(served, directory))
        assert again.post("plain", b"s", stream_seq="b7").status == 409
        assert again.post("plain", b"s", stream_seq="b8").status == 204

    def test_forks_keep_their_source(self, directory: Path, end: Callable[[Engine, Path], Path]) -> None:
        """After a restart a deleted source serves its fork, blocks its name, and goes with its last fork."""
        served = engine(directory)
        fill(served)
        directory = end(served, directory)
        served = engine(directory)
        assert served.get("orphan").body == b"sourceown"
        assert served.get("deleted").status == 410
        assert served.put("deleted").status == 409
        assert served.delete("orphan").status == 204
        assert served.get("deleted").status == 404
        served = engine(end(served, directory))
        assert served.get("orphan").status == 404
        assert served.put("deleted", b"anew").status == 201

    def test_a_cascade_is_kept(self, directory: Path, end: Callable[[Engine, Path], Path]) -> None:
        """A chain of deleted streams goes with its last fork, in one transaction."""
        served = engine(directory)
        served.put("0", b"root")
        for number in range(1, 6):
            served.fork(str(number), str(number - 1), b"more")
            served.delete(str(number - 1))
        served.delete("5")
        assert contents(served) == {}
        again = engine(end(served, directory))
        assert contents(again) == {}
        assert again.storage.problems() == []  # type: ignore[attr-defined]

    def test_a_stream_in_use_keeps_its_time(self, directory: Path) -> None:
        """A touch is stored and never goes back."""
        store, catalog = opened(directory)
        commit(store, catalog, create(1, "a"), Touch(1, 50.0), Touch(1, 40.0))
        now(store.close())
        _, catalog = opened(directory)
        assert catalog.streams[1].touched_at == 50.0

    def test_ids_are_never_used_again(self, directory: Path, end: Callable[[Engine, Path], Path]) -> None:
        """A stream made after a restart has a higher number than any before, deleted ones included."""
        clock = [10**15]
        served = engine(directory, now_ns=lambda: clock[0])
        ids = []
        for _ in range(3):
            served.put("a", b"x")
            ids.append(served.streams.find("a").id)
            assert served.delete("a").status == 204
        clock[0] = 0  # the clock was set back
        again = engine(end(served, directory), now_ns=lambda: clock[0])
        again.put("a", b"x")
        assert ids == sorted(set(ids))
        assert again.streams.find("a").id > ids[-1]

    def test_a_large_message(self, directory: Path, recent_bytes: int) -> None:
        """A message of many chunks comes back whole and in pieces."""
        body = Random(1).randbytes(10 * CHUNK_BYTES + 77)
        served = engine(directory, recent_bytes=recent_bytes)
        served.put("a", b"before")
        served.post("a", body)
        served.post("a", b"after")
        now(served.streams.close())
        again = engine(directory)
        assert again.get("a").body == b"before" + body + b"after"
        source = again.storage.source(again.streams.find("a"))
        for begin, finish in (
            (6, 7),
            (3, CHUNK_BYTES + 9),
            (CHUNK_BYTES - 1, 9 * CHUNK_BYTES),
            (100, 6 + len(body)),
        ):
            assert now(source.read(begin, finish)) == (b"before" + body + b"after")[begin:finish]
        assert now(source.extent(6, 10)) == 6 + len(body)
        assert now(source.append_ends(7)) == [6 + len(body)]

    def test_many_streams(self, directory: Path, end: Callable[[Engine, Path], Path]) -> None:
        """Hundreds of streams, deleted ones among them, come back in all shards."""
        served = engine(directory)
        for number in range(300):
            served.put(f"stream/{number}", b"%d" % number)
        for number in range(0, 300, 3):
            served.delete(f"stream/{number}")
        before = contents(served)
        again = engine(end(served, directory))
        assert contents(again) == before
        assert len(before) == 200
        counts = [shard.count() for shard in again.storage._shards]  # type: ignore[attr-defined]
        assert min(counts) > 20

    def test_a_second_restart_changes_nothing(self, directory: Path) -> None:
        """Opening and closing a store leaves its content as it is."""
        served = engine(directory)
        fill(served)
        before = contents(served)
        now(served.streams.close())
        for _ in range(3):
            served = engine(directory)
            assert contents(served) == before
            now(served.streams.close())


def opened(directory: Path, **options: Any) -> tuple[AcidStorage, Catalog]:
    """A store without an engine, and what it holds."""
    store, catalog = acid(directory, **options), Catalog()
    store.open(catalog, lambda *_: None)
    return store, catalog


def commit(store: AcidStorage, catalog: Catalog, *changes: Change) -> None:
    """Commit and apply a group."""
    now(store.commit(changes))
    for change in changes:
        catalog.apply(change)


class GroupTests:
    def test_a_group_may_hold_a_whole_life(self, directory: Path) -> None:
        """Created, written, forked, closed and deleted in one group: the shards hold what is left."""
        store, catalog = opened(directory)
        fork = ForkPoint(1, "a", 2)
        commit(
            store,
            catalog,
            create(1, "a", b"abc"),
            append(1, 3, b"de", b"f"),
            create(2, "f", b"own", fork=fork),
            append(2, 5, b"!", closes=True),
            create(3, "gone", b"never seen"),
            append(3, 10, b"still not"),
            SoftDelete(1, 3.0),
            delete(3),
        )
        now(store.close())
        store, catalog = opened(directory)
        assert sorted(catalog.streams) == [1, 2]
        source, forked = catalog.streams[1], catalog.streams[2]
        assert (source.soft_deleted, source.forks, source.tail, source.messages) == (True, 1, 6, 3)
        assert (forked.closed, forked.tail, forked.messages, forked.start) == (True, 6, 2, 2)
        assert now(store.source(source).read(0, 6)) == b"abcdef"
        assert now(store.source(forked).read(2, 6)) == b"own!"
        assert store.problems() == []
        commit(store, catalog, delete(2, 1))
        now(store.close())
        assert opened(directory)[1].streams == {}

    def test_a_name_may_change_hands(self, directory: Path) -> None:
        """A stream deleted and made anew in one group is the new one."""
        store, catalog = opened(directory)
        commit(store, catalog, create(1, "a", b"old"))
        commit(store, catalog, append(1, 3, b"er"), delete(1), create(2, "a", b"new"))
        assert now(store.source(catalog.streams[2]).read(0, 3)) == b"new"
        now(store.close())
        store, catalog = opened(directory)
        assert list(catalog.streams) == [2]
        assert catalog.names["a"].id == 2
        assert store.problems() == []

    def test_a_group_waits_for_its_thread(self, directory: Path) -> None:
        """Nothing is readable, and nothing acknowledged, before the thread has committed."""
        threads = HeldRun()
        served = engine(directory, run=threads)
        made = served.put("a", b"one")
        assert made.waits
        assert served.get("a").status == 404
        threads.step()
        assert made.status == 201
        replies = [served.post("a", b"%d" % number) for number in range(5)]
        assert served.get("a").body == b"one"
        threads.step()
        assert replies[0].status == 204
        assert [reply.waits for reply in replies[1:]] == [True] * 4
        assert threads.waiting == 1, "the rest goes in one group, and in one hop to a thread"
        threads.step()
        assert {reply.status for reply in replies} == {204}
        assert served.get("a").body == b"one01234"
        threads.release()

    def test_one_hop_for_a_group_of_all_shards(self, directory: Path) -> None:
        """A group over many shards costs one hand-over to a thread."""
        threads = HeldRun()
        store, catalog = acid(directory, run=threads), Catalog()
        store.open(catalog, lambda *_: None)
        done = store.commit([create(number, f"s{number}", b"x") for number in range(1, 40)])
        assert threads.waiting == 1
        threads.release()
        now(done)
        assert all(shard.count() for shard in store._shards)

    def test_commits_in_parallel(self, directory: Path) -> None:
        """Shards committed by several threads hold the same as those committed one by one."""
        store, catalog = opened(directory, parallel=3)
        commit(store, catalog, *(create(number, f"s{number}", b"x") for number in range(1, 60)))
        for start in range(1, 20):
            commit(store, catalog, *(append(number, start, b"y") for number in range(1, 60)))
        now(store.close())
        store, catalog = opened(directory)
        assert len(catalog.streams) == 59
        for state in catalog.streams.values():
            assert now(store.source(state).read(0, state.tail)) == b"x" + b"y" * 19
        assert store.problems() == []

    def test_a_family_of_forks_lives_in_one_shard(self, directory: Path) -> None:
        """Forks of forks, also those made in one group with their source, are where the first source is."""
        store, catalog = opened(directory, shard_count=256)
        commit(store, catalog, create(1, "root", b"r"))
        changes: list[Change] = [
            create(number, f"f{number}", b"x", fork=ForkPoint(number - 1, "", 1)) for number in range(2, 12)
        ]
        commit(store, catalog, *changes)
        shard = store._shards[home("root", 256)]
        assert shard.count() == 11
        commit(store, catalog, append(11, 2, b"y"), SoftDelete(5, 1.0))
        now(store.close())
        store, catalog = opened(directory, shard_count=256)
        assert catalog.streams[5].soft_deleted
        assert now(store.source(catalog.streams[11]).read(1, 3)) == b"xy"
        assert store.problems() == []


class ReadTests:
    def test_old_bytes_don_t_wait_for_commits(self, directory: Path) -> None:
        """What isn't in memory is read in a thread of its own, while a commit is under way."""
        threads = HeldRun(held=False)
        served = engine(directory, run=threads, recent_bytes=0)
        served.put("a", b"bytes")
        source = served.storage.source(served.streams.find("a"))
        threads.held = True
        done = served.post("a", b"more")
        reading = source.read(0, 5)
        assert threads.waiting == 2
        threads._waiting.reverse()
        threads.step()
        assert now(reading) == b"bytes"
        assert done.waits
        threads.release()
        assert done.status == 204

    def test_reads_leave_threads_to_commits(self, directory: Path) -> None:
        """However many reads wait for the disk, a commit finds a thread; and they all get their turn."""
        threads = HeldRun(held=False)
        served = engine(directory, run=threads, recent_bytes=0)
        served.put("a", b"bytes")
        source = served.storage.source(served.streams.find("a"))
        threads.held = True
        reads = [source.read(0, 5) for _ in range(50)]
        assert threads.waiting <= 8
        waiting = threads.waiting
        done = served.post("a", b"more")
        assert threads.waiting == waiting + 1
        threads.release()
        assert done.status == 204
        assert {now(each) for each in reads} == {b"bytes"}

    def test_recent_bytes_come_from_memory(self, directory: Path) -> None:
        """Reads of what was just written ask no thread."""
        threads = HeldRun(held=False)
        served = engine(directory, run=threads)
        served.put("a", b"one")
        served.post("a", b"two")
        source = served.storage.source(served.streams.find("a"))
        threads.held = True
        assert source.read(0, 6) == b"onetwo"
        assert source.floor(4) == 3
        assert source.extent(0, 4) == 3
        assert source.append_ends(3) == [6]

    def test_memory_is_bounded(self, directory: Path) -> None:
        """Recent bytes stay within their budget, whatever is written; the rest is read from the shards."""
        served = engine(directory, recent_bytes=20_000)
        tails = served.storage._tails  # type: ignore[attr-defined]
        for name in ("a", "b", "c"):
            served.put(name, b"")
        for number in range(200):
            served.post("abc"[number % 3], b"%3d" % number * 100)
            assert tails.used <= 20_000
            assert tails.used == sum(tail.cost for tail in tails._tails.values())
        body = b"".join(b"%3d" % number * 100 for number in range(0, 200, 3))
        assert served.get("a").body == body
        state = served.streams.find("a")
        source = served.storage.source(state)
        assert state.start < source._written < state.tail  # type: ignore[attr-defined]
        for begin in range(0, len(body), 997):
            assert now(source.read(begin, len(body))) == body[begin:]

    def test_a_source_is_of_one_moment(self, directory: Path) -> None:
        """A source goes on answering about its bytes while more come and memory lets go of them."""
        served = engine(directory, recent_bytes=8_000)
        served.put("a", b"first")
        source = served.storage.source(served.streams.find("a"))
        for _ in range(50):
            served.post("a", b"x" * 1000)
        assert now(source.read(0, 5)) == b"first"
        assert now(source.extent(0, 1)) == 5
        assert now(source.append_ends(0)) == [5]

    def test_a_damaged_chunk_fails_the_read(self, directory: Path) -> None:
        """Bytes that changed on the disk are an error, not an answer."""
        served = engine(directory, 1)
        served.put("a", b"precious")
        now(served.streams.close())
        with sqlite3.connect(directory / "acid" / "shard_00.db") as database:
            database.execute("UPDATE chunks SET data = CAST('previous' AS BLOB)")
        database.close()
        again = engine(directory, 1)
        source = again.storage.source(again.streams.find("a"))
        with pytest.raises(StorageError, match=r"shard_00.db: the chunk of stream \d+ at 0 is damaged"):
            now(source.read(0, 8))
        assert any("checksum" in problem for problem in again.storage.problems())  # type: ignore[attr-defined]


class DeletionTests:
    def test_space_comes_back(self, directory: Path) -> None:
        """The chunks of deleted streams are removed, and the file shrinks."""
        served = engine(directory, 1)
        for name in ("a", "b"):
            served.put(name, b"")
            for _ in range(100):
                served.post(name, b"z" * 200_000)
        store = served.storage
        assert isinstance(store, AcidStorage)
        file = directory / "acid" / "shard_00.db"
        store._shards[0].checkpoint()
        before = file.stat().st_size
        assert before > 40_000_000
        served.delete("a")
        assert store._maintenance.purging == 0
        assert chunk_count(store) == chunk_count(store, served.streams.find("b").id)
        store._shards[0].checkpoint()
        assert file.stat().st_size < 0.8 * before
        assert store.problems() == []
        assert served.get("b", offset(19_999_990)).body == b"z" * 10

    def test_a_reader_keeps_the_bytes(self, directory: Path) -> None:
        """A deleted stream is readable for whoever holds a source of it; then its chunks go, too."""
        served = engine(directory, recent_bytes=0)
        served.put("a", b"bytes")
        served.put("b", b"")
        state = served.streams.find("a")
        source: object = served.storage.source(state)
        assert served.delete("a").status == 204
        store = served.storage
        assert isinstance(store, AcidStorage)
        assert now(source.read(0, 5)) == b"bytes"  # type: ignore[attr-defined]
        assert store._maintenance.purging == 1
        served.post("b", b"x")
        assert now(source.read(1, 5)) == b"ytes"  # type: ignore[attr-defined]
        source = None
        served.post("b", b"x")
        assert store._maintenance.purging == 0
        assert chunk_count(store) == chunk_count(store, served.streams.find("b").id)

    def test_a_read_under_way_keeps_the_bytes(self, directory: Path) -> None:
        """A read that waits for its thread gets its bytes, although its stream and its reader are gone."""
        threads = HeldRun(held=False)
        served = engine(directory, run=threads, recent_bytes=0)
        served.put("a", b"bytes")
        threads.held = True
        reading = served.storage.source(served.streams.find("a")).read(0, 5)
        (waiting,) = threads._waiting
        threads._waiting.clear()
        threads.held = False
        served.delete("a")
        threads._waiting.append(waiting)
        threads.finish()
        assert now(reading) == b"bytes"

    def test_a_purge_goes_on_after_a_restart(self, directory: Path) -> None:
        """What a kill left of a deletion is cleared away at the next start."""
        threads = HeldRun(held=False)
        served = engine(directory, 1, run=threads)
        served.put("a", b"z" * 20_000_000)
        threads.held = True
        gone = served.delete("a")
        threads.step()  # the deletion is committed
        threads.step()  # a slice of the purge
        assert gone.status == 204
        assert threads.waiting == 1
        copy = crashed(directory)
        store, catalog = opened(copy, shard_count=1)
        assert catalog.streams == {}
        assert store._maintenance.purging == 0
        assert chunk_count(store) == 0
        assert store.problems() == []

    def test_commits_take_turns_with_a_purge(self, directory: Path) -> None:
        """A commit waits for one slice of a purge, not for all of it."""
        threads = HeldRun(held=False)
        served = engine(directory, 1, run=threads)
        served.put("a", b"z" * 20_000_000)
        served.put("b", b"")
        threads.held = True
        served.delete("a")
        threads.step()
        done = served.post("b", b"x")
        steps = 0
        while done.waits:
            threads.step()
            steps += 1
        assert steps <= 2
        assert threads.waiting, "the purge isn't over"
        threads.release()
        assert served.get("b").body == b"x"

    def test_many_small_streams(self, directory: Path) -> None:
        """Chunks of many small deleted streams go in few slices."""
        threads = HeldRun(held=False)
        served = engine(directory, 1, run=threads)
        for number in range(200):
            served.put(f"s{number}", b"x", stream_ttl="10")
        store = served.storage
        assert isinstance(store, AcidStorage)
        threads.held = True
        for number in range(200):
            served.delete(f"s{number}")
        steps = 0
        while threads.waiting:
            threads.step()
            steps += 1
        assert steps < 20
        assert store._maintenance.purging == chunk_count(store) == 0


def chunk_count(store: AcidStorage, stream_id: int | None = None) -> int:
    """How many chunks there are, of one stream or all."""
    where = "" if stream_id is None else f" WHERE stream_id = {stream_id}"
    return sum(shard.database.execute("SELECT count(*) FROM chunks" + where).fetchone()[0] for shard in store._shards)


class CheckpointTests:
    def test_the_wal_stays_short(self, directory: Path) -> None:
        """However much is written, the WAL begins anew after every few megabytes."""
        served = engine(directory, 1)
        served.put("a", b"")
        store = served.storage
        assert isinstance(store, AcidStorage)
        store._maintenance._limit = 100
        for _ in range(300):
            served.post("a", b"w" * 20_000)
        assert (directory / "acid" / "shard_00.db-wal").stat().st_size < 200 * 4096

    def test_closing_leaves_no_wal(self, directory: Path) -> None:
        """After a clean end everything is in the databases."""
        served = engine(directory)
        fill(served)
        now(served.streams.close())
        assert sorted(os.listdir(directory / "acid")) == [f"shard_{number:02x}.db" for number in range(SHARDS)]


def spoil_layout(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "store.json").write_text('{"layout":"files","format":1}')


def remove_shard(directory: Path) -> None:
    (directory / "acid" / "shard_02.db").unlink()


def remove_all_shards(directory: Path) -> None:
    shutil.rmtree(directory / "acid")


def remove_identity(directory: Path) -> None:
    (directory / "shards.json").unlink()


def swap_shards(directory: Path) -> None:
    one, two = (directory / "acid" / f"shard_0{number}.db" for number in (1, 2))
    one.rename(directory / "other")
    two.rename(one)
    (directory / "other").rename(two)


def truncate_shard(directory: Path) -> None:
    file = directory / "acid" / "shard_01.db"
    os.truncate(file, file.stat().st_size // 2)


def empty_shard(directory: Path) -> None:
    os.truncate(directory / "acid" / "shard_01.db", 0)


def fill_shard_with_garbage(directory: Path) -> None:
    (directory / "acid" / "shard_01.db").write_bytes(Random(1).randbytes(50_000))


def change_shard(statement: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        for number in range(SHARDS):
            database = sqlite3.connect(directory / "acid" / f"shard_{number:02x}.db")
            with database:
                database.execute(statement)
                reseal(database)
            database.close()

    return change


class RefusalTests:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (spoil_layout, "layout 'files', but 'acid'"),
            (remove_shard, r"1 of 4 shards are missing \(shard_02.db\)"),
            (remove_all_shards, "4 of 4 shards are missing"),
            (remove_identity, "no shards.json, but .* holds streams"),
            (swap_shards, "is another shard"),
            (truncate_shard, "shard_01.db can't be used: .*malformed"),
            (empty_shard, "shard_01.db is no shard of this server"),
            (fill_shard_with_garbage, "shard_01.db can't be used: .*not a database"),
            (change_shard("PRAGMA user_version = 1"), f"has format 1, and this version reads format {FORMAT}"),
            (change_shard("UPDATE identity SET store = 'x'"), "is another shard"),
            (change_shard("UPDATE identity SET last_id = last_id + 1"), "row of its identity is damaged"),
            (change_shard("UPDATE identity SET noted = 'x'"), "row of its identity is damaged"),
            (change_shard("INSERT INTO removed VALUES (1, 2)"), "table of removed streams is damaged"),
            (change_shard("UPDATE streams SET name = name || '!' WHERE name = 'plain'"), "another shard"),
            (change_shard("DELETE FROM streams WHERE name = 'json'"), "source of the fork 'fork'.* is missing"),
            (change_shard("UPDATE streams SET config = '{'"), "can't be used"),
        ],
    )  # fmt: skip
    def test_what_isn_t_this_store_is_refused(
        self, directory: Path, spoil: Callable[[Path], None], message: str
    ) -> None:
        """A store that is another one, incomplete or damaged doesn't open, and the text says which file and why."""
        served = engine(directory)
        fill(served)
        now(served.streams.close())
        spoil(directory)
        for _ in range(2):
            with pytest.raises(StorageError, match=message):
                opened(directory)

    def test_another_number_of_shards(self, directory: Path) -> None:
        """The number of shards is fixed when the store is made."""
        now(opened(directory)[0].close())
        with pytest.raises(StorageError, match="the store has shard_count 4, but 8 is asked for"):
            opened(directory, shard_count=8)
        now(opened(directory)[0].close())

    @pytest.mark.parametrize("shard_count", [0, 3, 512, -4])
    def test_impossible_numbers_of_shards(self, directory: Path, shard_count: int) -> None:
        """The number of shards is a power of two up to 256."""
        with pytest.raises(ValueError, match="power of two"):
            acid(directory, shard_count)

    def test_a_foreign_directory(self, directory: Path) -> None:
        """A directory with other files isn't made a store."""
        directory.mkdir()
        (directory / "letters.txt").write_text("dear")
        with pytest.raises(StorageError, match=r"other files \(letters.txt\)"):
            opened(directory)
        assert sorted(os.listdir(directory)) == ["letters.txt", "lock"]

    def test_a_second_process(self, directory: Path) -> None:
        """A store that is open in one process can't be opened in another; it can when that one has closed it."""
        store, _ = opened(directory)
        program = (
            "import sys\n"
            "from dstreams.model.catalog import Catalog\n"
            "from dstreams.storage.acid import AcidStorage\n"
            "from dstreams.runtime.threads import run_inline\n"
            f"AcidStorage(sys.argv[1], {SHARDS}, run_inline).open(Catalog(), lambda *_: None)\n"
        )
        command = [sys.executable, "-c", program, str(directory)]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert f"is in use by process {os.getpid()}" in refused.stderr
        now(store.close())
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0

    def test_a_refused_store_is_let_go(self, directory: Path) -> None:
        """After a refused start the lock is free for whoever repairs the store."""
        now(opened(directory)[0].close())
        with pytest.raises(StorageError):
            opened(directory, shard_count=8)
        now(opened(directory)[0].close())

    @pytest.mark.parametrize("made", range(SHARDS + 1))
    def test_an_interrupted_first_start(self, directory: Path, made: int) -> None:
        """A store whose making was cut off before it was used is made anew."""
        now(opened(directory)[0].close())
        (directory / "shards.json").unlink()
        for number in range(made, SHARDS):
            (directory / "acid" / f"shard_{number:02x}.db").unlink()
        if made:
            os.truncate(directory / "acid" / f"shard_{made - 1:02x}.db", 0)
        store, catalog = opened(directory)
        commit(store, catalog, create(1, "a", b"x"))
        now(store.close())
        assert list(opened(directory)[1].names) == ["a"]


class HalfGroupTests:
    """A group over two shards, of which a crash let only one be committed."""

    def names(self) -> tuple[str, str]:
        """Two names with homes in shards 0 and 1."""
        names = [f"n{number}" for number in range(100)]
        return tuple(next(name for name in names if home(name, SHARDS) == shard) for shard in (0, 1))  # type: ignore[return-value]

    def crash_between(self, directory: Path, changes: list[Change], first: list[Change]) -> Path:
        """Commit ``first``, then ``changes``; the home of the second name is committed, the first's isn't."""
        store, catalog = opened(directory)
        commit(store, catalog, *first)
        before = crashed(directory)
        commit(store, catalog, *changes)
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(directory / "acid" / f"shard_01.db{suffix}", before / "acid" / f"shard_01.db{suffix}")
        return before

    def test_a_name_that_moved(self, directory: Path) -> None:
        """A fork deleted in its source's shard and a stream made with its name in another: the new one is there."""
        home_0, home_1 = self.names()
        copy = self.crash_between(
            directory,
            [delete(2, released=(1,)), create(3, home_1, b"new")],
            [create(1, home_0, b"s"), create(2, home_1, b"old", fork=ForkPoint(1, home_0, 1))],
        )
        for _ in range(2):
            store, catalog = opened(copy)
            assert sorted(catalog.streams) == [1, 3]
            assert catalog.names[home_1].id == 3
            assert catalog.streams[1].forks == 0
            assert store.problems() == []
            now(store.close())

    def test_a_name_that_moved_with_a_cascade(self, directory: Path) -> None:
        """The deletion that is completed takes along the deleted ancestors, as it would have."""
        home_0, home_1 = self.names()
        copy = self.crash_between(
            directory,
            [delete(2, 1), create(3, home_1, b"new")],
            [
                create(1, home_0, b"s"),
                create(2, home_1, b"old", fork=ForkPoint(1, home_0, 1)),
                SoftDelete(1, 2.0),
            ],
        )
        for _ in range(2):
            store, catalog = opened(copy)
            assert list(catalog.streams) == [3]
            assert list(catalog.names) == [home_1]
            assert store.problems() == []
            now(store.close())

    def test_a_name_that_moved_from_a_source(self, directory: Path) -> None:
        """The old stream's fork, whose deletion was cut off as well, stays readable; the old one is soft-deleted."""
        home_0, home_1 = self.names()
        copy = self.crash_between(
            directory,
            [delete(4, released=(2,)), delete(2, released=(1,)), create(3, home_1, b"new")],
            [
                create(1, home_0, b"s"),
                create(2, home_1, b"old", fork=ForkPoint(1, home_0, 1)),
                create(4, "fork", b"!", fork=ForkPoint(2, home_1, 4)),
            ],
        )
        for _ in range(2):
            store, catalog = opened(copy)
            assert sorted(catalog.streams) == [1, 2, 3, 4]
            assert catalog.names[home_1].id == 3
            assert catalog.streams[2].soft_deleted
            assert store.problems() == []
            now(store.close())
        store, catalog = opened(copy)
        commit(store, catalog, delete(4, 2, released=(1,)))
        assert catalog.names[home_1].id == 3
        now(store.close())
        assert sorted(opened(copy)[1].streams) == [1, 3]

    def test_the_deletion_alone(self, directory: Path) -> None:
        """When only the shard with the deletion was committed, the name is free."""
        home_0, home_1 = self.names()
        copy = self.crash_between(
            directory,
            [delete(2, released=(1,)), create(3, home_0, b"new")],
            [create(1, home_1, b"s"), create(2, home_0, b"old", fork=ForkPoint(1, home_1, 1))],
        )
        _, catalog = opened(copy)
        assert list(catalog.names) == [home_1]


class ProblemTests:
    @pytest.mark.parametrize(
        ("statement", "problem"),
        [
            ("DELETE FROM chunks WHERE start > 20000", "should have"),
            ("DELETE FROM chunks WHERE start = 0", "has no chunk from 0 to"),
            ("UPDATE chunks SET data = CAST(data || 'x' AS BLOB) WHERE start = 0", "checksum is wrong"),
            ("UPDATE chunks SET data = 'text' WHERE start = 0", "checksum is wrong"),
            ("UPDATE chunks SET stream_id = 77 WHERE stream_id IN (SELECT id FROM streams)", "doesn't exist"),
            ("UPDATE streams SET tail = tail + 1", "should have"),
            ("UPDATE streams SET messages = messages - 1", "should have"),
            ("UPDATE streams SET name = name || '.'", "belongs into another shard"),
            ("DELETE FROM chunks", "has no chunks"),
            ("DELETE FROM streams WHERE name = 'a'", "source of the fork 'fork' is missing"),
        ],
    )
    def test_damage_is_found(self, directory: Path, statement: str, problem: str) -> None:
        """The check names what breaks an invariant."""
        served = engine(directory, 2)
        served.put("a", b"")
        for _ in range(10):
            served.post("a", b"x" * 10_000)
        served.fork("fork", "a")
        store = served.storage
        assert isinstance(store, AcidStorage)
        assert store.problems() == []
        for shard in store._shards:
            shard.note()  # until then the chunks say it alone
            shard.database.execute(statement)
            reseal(shard.database)
        assert any(problem in found for found in store.problems()), store.problems()


class InMemoryTests:
    def test_it_serves(self) -> None:
        """Without a directory everything works at once, and is gone when the server ends."""
        served = Engine(AcidStorage("", SHARDS, HeldRun(), in_memory=True))
        fill(served)
        assert served.get("fork").body.endswith(b'"of json"]')
        assert served.get("orphan").body == b"sourceown"
        assert len(contents(served)) == 11
        assert served.storage.immediate
        assert not served.storage.persistent
        now(served.streams.close())

    def test_bytes_that_aren_t_recent(self) -> None:
        """Older bytes come out of the database, at once."""
        served = Engine(AcidStorage("", 1, HeldRun(), in_memory=True, recent_bytes=0))
        for _ in range(2):
            served.put("a", b"")
            for _ in range(50):
                served.post("a", b"y" * 1000)
            assert served.get("a").body == b"y" * 50_000
            source = served.storage.source(served.streams.find("a"))
            assert source.read(5, 8) == b"yyy"
            assert source.extent(0, 1500) == 1000
            served.delete("a")


# --- against a model ------------------------------------------------------------------------------------------------

_names = st.sampled_from("abcd")
_operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _names, st.integers(0, 3)),
        st.tuples(st.just("post"), _names, st.sampled_from([1, 2, 2, 5, 300, MERGE_BYTES])),
        st.tuples(st.just("produce"), _names, st.integers(0, 2)),
        st.tuples(st.just("close"), _names, st.just(0)),
        st.tuples(st.just("fork"), _names, _names),
        st.tuples(st.just("delete"), _names, st.just(0)),
        st.tuples(st.just("restart"), st.sampled_from(["closed", "killed"]), st.just(0)),
    ),
    max_size=40,
)


def perform(served: Engine, operation: tuple[str, str, Any]) -> object:
    """Do one thing; what the client is told."""
    kind, name, detail = operation
    if kind == "put":
        reply = served.put_json(name, b"[" + b",".join([b"1"] * detail) + b"]" if detail else b"")
    elif kind == "post":
        reply = served.post_json(name, b"[" + b",".join(b'"%d"' % i for i in range(detail)) + b"]")
    elif kind == "produce":
        reply = served.post_json(name, b"7", producer_id="p", producer_epoch="0", producer_seq=str(detail))
    elif kind == "close":
        reply = served.close(name)
    elif kind == "fork":
        reply = served.fork(name, detail)
    else:
        reply = served.delete(name)
    served.turn()  # a large body is split in slices
    return reply.status, reply.headers, reply.body


class ModelTests:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(operations=_operations, recent_bytes=st.sampled_from([0, 5_000, 1 << 20]))
    def test_it_answers_as_memory_does(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        operations: list[tuple[str, str, Any]],
        recent_bytes: int,
    ) -> None:
        """Any requests get the answers that the memory mode gives, whatever restarts lie between."""
        directory = tmp_path_factory.mktemp("model") / "store"
        clock = Clock()
        model = Engine(MemoryStorage(), clock=clock)
        served = engine(directory, 2, clock, recent_bytes=recent_bytes)
        for operation in operations:
            clock.advance(1)
            if operation[0] == "restart":
                if operation[1] == "closed":
                    now(served.streams.close())
                else:
                    directory = crashed(directory)
                served = engine(directory, 2, clock, recent_bytes=recent_bytes)
            else:
                assert perform(served, operation) == perform(model, operation)
        assert _without_ids(served) == _without_ids(model)
        store = served.storage
        assert isinstance(store, AcidStorage)
        assert store.problems() == []
        now(store.close())


def _without_ids(served: Engine) -> dict[str, object]:
    """All contents, but for the streams' numbers, which differ."""
    found = {}
    for name, values in contents(served).items():
        data, _, config, fork, *rest = values  # type: ignore[misc]
        found[name] = (data, config, fork and (fork.source_name, fork.position, fork.anchor), *rest)
    return found


class TailTests:
    def test_producer_rows_are_written_once(self, directory: Path) -> None:
        """A group writes the producers that it changes, not all that the stream has."""
        store, catalog = opened(directory, shard_count=1)
        commit(store, catalog, create(1, "a"))
        for number in range(50):
            commit(
                store,
                catalog,
                Append(1, number, b"x", (number + 1,), Producer(f"p{number}", 0, 0), None, False, 1.0),
            )
        group = store._planner.plan([Append(1, 50, b"x", (51,), Producer("p7", 0, 1), None, False, 1.0)])
        assert group.batches[0].producers == [(1, "p7", 0, 1)]
        now(store.close())
        _, catalog = opened(directory, shard_count=1)
        assert catalog.streams[1].producers == {f"p{number}": 0 for number in range(50)}


class RowTests:
    """Rows of streams may be behind their chunks."""

    def rows(self, store: AcidStorage) -> list[tuple[object, ...]]:
        return store._shards[0].database.execute("SELECT id, tail, messages, updated_at FROM streams").fetchall()  # type: ignore[no-any-return]

    def test_an_append_leaves_the_row_alone(self, directory: Path) -> None:
        """What only adds bytes is one chunk, and after a kill the stream is as long as that says."""
        store, catalog = opened(directory, shard_count=1)
        commit(store, catalog, create(1, "a"), create(2, "b"))
        for number in range(40):
            commit(store, catalog, append(1, 3 * number, b"x", b"yz"))
        assert self.rows(store)[0] == (1, 0, 0, 1.0)
        _, catalog = opened(crashed(directory), shard_count=1)
        state = catalog.streams[1]
        assert (state.tail, state.messages, state.updated_at, state.touched_at) == (120, 80, 2.0, 2.0)
        assert catalog.streams[2].tail == 0

    def test_rows_are_brought_up_to_date(self, directory: Path) -> None:
        """After so many chunks, and at the latest when the store is closed, the rows say what the chunks say."""
        store, catalog = opened(directory, shard_count=1)
        store._maintenance._note_after = 3
        commit(store, catalog, create(1, "a"))
        for number in range(4):
            commit(store, catalog, append(1, number, b"x"))
        assert self.rows(store) == [(1, 3, 3, 2.0)]
        assert store._shards[0].is_behind()
        assert store.problems() == []
        now(store.close())
        store, _ = opened(directory, shard_count=1)
        assert self.rows(store) == [(1, 4, 4, 2.0)]
        assert not store._shards[0].is_behind()

    def test_a_killed_store_catches_up(self, directory: Path) -> None:
        """The next process brings up to date what the last one hadn't."""
        store, catalog = opened(directory, shard_count=1)
        commit(store, catalog, create(1, "a"), append(1, 0, b"one"))
        commit(store, catalog, append(1, 3, b"two"))
        store, _ = opened(crashed(directory), shard_count=1)
        assert self.rows(store) == [(1, 6, 2, 2.0)]

    def test_a_row_that_is_newer_stays(self, directory: Path) -> None:
        """What was written into a row after a chunk isn't taken back by it, whatever the clock said."""
        store, catalog = opened(directory, shard_count=1)
        commit(store, catalog, create(1, "a"), create(2, "b"))
        commit(store, catalog, append(1, 0, b"one"), append(2, 0, b"one"))
        commit(store, catalog, Touch(1, 50.0))
        commit(store, catalog, append(2, 3, b"two", closes=True))
        for noted in (False, True):
            if noted:
                assert not store._shards[0].note()
            _, catalog = opened(crashed(directory), shard_count=1)
            assert (catalog.streams[1].touched_at, catalog.streams[1].updated_at) == (50.0, 2.0)
            assert (catalog.streams[2].tail, catalog.streams[2].closed) == (6, True)

    def test_ids_of_chunks_are_not_used_again(self, directory: Path) -> None:
        """A row may have been written after chunks that are gone; new chunks are still newer than that row."""
        store, catalog = opened(directory, shard_count=1)
        commit(store, catalog, create(1, "a"), create(2, "b"))
        for number in range(5):
            commit(store, catalog, append(1, number, b"x"))
        commit(store, catalog, Touch(2, 50.0))
        commit(store, catalog, delete(1))
        assert not store._maintenance.purging
        directory = crashed(directory)
        store, catalog = opened(directory, shard_count=1)
        commit(store, catalog, append(2, 0, b"new"))
        _, catalog = opened(crashed(directory), shard_count=1)
        assert catalog.streams[2].tail == 3

    def test_plain_and_other_appends_in_one_group(self, directory: Path) -> None:
        """In a group a stream may first only get bytes, and then a sequence number, a fork or its end."""
        store, catalog = opened(directory, shard_count=1)
        commit(store, catalog, create(1, "a"), create(2, "b"), create(3, "c"))
        producer = Producer("p", 0, 0)
        commit(
            store,
            catalog,
            Append(1, 0, b"one", (3,), producer, None, False, 2.0),
            append(2, 0, b"one"),
            append(3, 0, b"gone"),
            Append(1, 3, b"two", (6,), None, b"seq", False, 3.0),
            create(4, "fork", b"own", fork=ForkPoint(2, "b", 3)),
            delete(3),
            append(1, 6, b"three"),
        )
        _, found = opened(crashed(directory), shard_count=1)
        for stream_id in (1, 2, 4):
            ours, theirs = catalog.streams[stream_id], found.streams[stream_id]
            assert (ours.tail, ours.messages, ours.stream_seq) == (theirs.tail, theirs.messages, theirs.stream_seq)
            assert ours.producers == theirs.producers
        assert 3 not in found.streams
        assert store.problems() == []
