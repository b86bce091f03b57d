"""Damage in data files: reads, scrub and check find it, and nothing else suffers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from dstreams.model.state import StreamState
from dstreams.runtime.threads import run_inline
from dstreams.storage import damage
from dstreams.storage.check import check_files
from dstreams.storage.damage import DamageLog
from dstreams.storage.directory import read_manifest
from dstreams.storage.disk import OsDisk
from dstreams.storage.files import runs, verifying
from dstreams.storage.files.data_files import SCRUB_EMPTY
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import StorageDamaged, StorageError, Verified
from tests.storage.acid_stores import now
from tests.support.engine import Engine, FakeSink, offset

MESSAGES = [b"%04d " % number * (number % 7 + 1) for number in range(60)]


@define(eq=False)
class Store:
    """Two streams whose messages all lie in files, of several small runs."""

    engine: Engine
    directory: Path

    @property
    def storage(self) -> FileStorage:
        assert isinstance(self.engine.storage, FileStorage)
        return self.engine.storage

    def state(self, name: str) -> StreamState:
        return self.engine.streams.find(name)

    def file(self, name: str, kind: str) -> Path:
        return next(self.directory.glob(f"data/*/{self.state(name).id:016x}.{kind}"))

    def spoil(self, path: Path, offset: int, change: int = 1) -> None:
        """Change a byte of a file."""
        content = bytearray(path.read_bytes())
        content[offset] ^= change
        path.write_bytes(content)

    def read(self, name: str, start: int, end: int) -> bytes | None:
        """A range of a stream, read with nothing in memory; ``None`` when it is damaged."""
        try:
            found = now(self.storage.source(self.state(name)).read(start, end))
        except StorageDamaged:
            return None
        assert isinstance(found, bytes)
        return found

    def scrub(self) -> list[StorageDamaged]:
        """What a scrub finds."""
        return [error for step in self.storage.scrub() for error in result(step).damaged]

    def reopened(self) -> Store:
        """The same store in a new process."""
        self.close()
        return opened(self.directory)

    def closed(self) -> Store:
        self.close()
        return self

    def close(self) -> None:
        now(self.engine.streams.close())


def result(step: Deferred[Verified]) -> Verified:
    found = now(step)
    assert isinstance(found, Verified)
    return found


def opened(directory: Path) -> Store:
    storage = FileStorage(str(directory), None, run_inline, reserve_bytes=10)
    return Store(Engine(storage), directory)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(runs, "RUN_BYTES", 100)
    monkeypatch.setattr(runs, "RUN_ENTRIES", 4)
    monkeypatch.setattr(runs, "BLOCK_RUNS", 4)
    monkeypatch.setattr(verifying, "BLOCK_RUNS", 4)
    monkeypatch.setattr(verifying, "STEP_RUNS", 3)
    made = opened(tmp_path / "store")
    for name in ("s", "other"):
        made.engine.put(name, b"", content_type="text/plain")
        for number, message in enumerate(MESSAGES):
            made.engine.post(name, message, content_type="text/plain")
            if not number % 25:
                now(made.storage.checkpoint())
    now(made.storage.checkpoint())
    yield made
    made.close()


WHOLE = b"".join(MESSAGES)


class FlipTests:
    """One changed byte."""

    @pytest.mark.parametrize("kind", ["data", "index", "sums"])
    def test_every_byte(self, store: Store, kind: str) -> None:
        """Wherever it is, reads give right bytes or none, the scrub and the check find it, and only its run suffers."""
        path = store.file("s", kind)
        for at in range(0, len(path.read_bytes()), 1 if kind == "sums" else 3):
            store.spoil(path, at)
            store.storage._files.blocks = runs.Blocks(100)
            store.storage._files.verified.forget(store.state("s").id)
            good = 0
            for begin in range(0, len(WHOLE), 25):
                found = store.read("s", begin, begin + 25)
                assert found in (None, WHOLE[begin : begin + 25]), (at, begin)
                good += found is not None
            assert good >= len(WHOLE) // 25 - 10, (at, good)
            if kind != "index":
                assert store.read("s", 0, len(WHOLE)) is None
            assert store.read("other", 0, len(WHOLE)) == WHOLE
            damaged = store.scrub()
            assert damaged, at
            assert {error.stream_id for error in damaged} == {store.state("s").id}
            store.spoil(path, at)
        store.storage._files.blocks = runs.Blocks(100)
        assert store.read("s", 0, len(WHOLE)) == WHOLE
        assert store.scrub() == []

    @pytest.mark.parametrize("kind", ["data", "index", "sums"])
    def test_check(self, store: Store, kind: str) -> None:
        """The check names the stream and the file."""
        path, size = store.file("s", kind), len(store.file("s", kind).read_bytes())
        store.close()
        for at in range(0, size, size // 50 | 1):
            store.spoil(path, at)
            report = check_files(str(store.directory), lambda *_: None)
            assert report.problems, at
            assert all(each.startswith("stream 's': ") and path.name in each for each in report.problems)
            store.spoil(path, at)
        assert check_files(str(store.directory), lambda *_: None).problems == []

    @pytest.mark.parametrize("cut", ["truncate", "zero", "unlink"])
    @pytest.mark.parametrize("kind", ["data", "index", "sums"])
    def test_missing_parts(self, store: Store, kind: str, cut: str) -> None:
        """Files that have lost their end, or were filled with zeros, or are gone, give no wrong bytes either."""
        path = store.file("s", kind)
        content = path.read_bytes()
        half = len(content) // 2
        if cut == "unlink":
            path.unlink()
        else:
            path.write_bytes(content[:half] + (b"" if cut == "truncate" else bytes(len(content) - half)))
        again = store.reopened()
        for begin in range(0, len(WHOLE), 25):
            assert again.read("s", begin, begin + 25) in (None, WHOLE[begin : begin + 25])
        assert (again.read("s", 0, 25) is None) == (cut == "unlink" and kind != "index")
        assert again.scrub()
        again.close()
        problems = check_files(str(store.directory), lambda *_: None).problems
        assert problems
        assert all("stream 's'" in each for each in problems)

    def test_queries(self, store: Store) -> None:
        """Message boundaries are right, or the question is refused."""
        path, random = store.file("s", "index"), Random(1)
        source = store.storage.source(store.state("s"))
        right = [now(source.extent(position, 30)) for position in range(len(WHOLE))]
        content = path.read_bytes()
        for _ in range(5):
            path.write_bytes(content)
            store.spoil(path, random.randrange(len(content)), 1 << random.randrange(8))
            refused = 0
            for position, expected in enumerate(right):
                try:
                    assert now(store.storage.source(store.state("s")).extent(position, 30)) == expected
                except StorageDamaged:
                    refused += 1
            assert 0 < refused < 300


class AnswerTests:
    """What clients get."""

    def test_status(self, store: Store) -> None:
        """A damaged range is a 500 of its own kind; the rest is served, and the log names the stream once."""
        store.spoil(store.file("s", "data"), 450)
        with capturedLogs() as events:
            for _ in range(5):
                reply = store.engine.get("s")
                assert (reply.status, reply.problem["code"]) == (500, "DATA_DAMAGED")
            assert store.engine.get("s", offset(600)).body == WHOLE[600:]
            assert store.engine.get("other").body == WHOLE
        said = [formatEvent(event) for event in events]
        assert len([each for each in said if "stored data is damaged" in each]) == 1
        assert store.storage.damage.places == 1

    @pytest.mark.parametrize("live", [False, True])
    def test_cut(self, store: Store, live: bool) -> None:
        """Where the head has left, the answer ends before the damage, and its connection is cut."""
        engine, message = store.engine, b"x" * 1000
        engine.put("large")
        for _ in range(800):
            engine.post("large", message)
        now(store.storage.checkpoint())
        store.spoil(store.file("large", "data"), 600_000)
        with capturedLogs() as events:
            if live:
                _, sink = engine.follow("large")
            else:
                sink = FakeSink()
                engine.get("large").live.start(sink)
        assert sink.aborted
        assert not sink.finished
        received = sink.data
        assert 200_000 < received.count(b"x") < 600_000
        if live:
            # The last event tells where to go on, and that is right.
            assert offset(1000 * received.count(message)).encode() in received.rstrip().rsplit(b"\n\n", 1)[-1]
        assert [formatEvent(event) for event in events if "damaged" not in formatEvent(event)] == []

    def test_sent_by_the_kernel(self, store: Store) -> None:
        """What the kernel sends has been verified since the start; of a damaged stream it sends nothing."""
        engine = store.engine
        for name in ("large", "damaged"):
            engine.put(name)
            for _ in range(300):
                engine.post(name, b"x" * 1000)
        now(store.storage.checkpoint())
        store.spoil(store.file("damaged", "data"), 200_000)
        again = store.reopened()
        for name in ("large", "damaged"):
            source = again.storage.source(again.state(name))
            assert source.in_file(0, 300_000) is None
            for begin in range(0, 200_000, 10_000):
                again.read(name, begin, begin + 10_000)
            found = source.in_file(0, 300_000)
            assert found is not None
            assert found.size == 200_000
        assert again.read("damaged", 200_000, 210_000) is None
        assert source.in_file(0, 300_000) is None
        again.close()

    def test_found_by_a_scrub(self, store: Store) -> None:
        """What was verified before isn't sent by the kernel any more when a scrub has found damage."""
        engine = store.engine
        engine.put("large")
        for _ in range(300):
            engine.post("large", b"x" * 1000)
        now(store.storage.checkpoint())
        source = store.storage.source(store.state("large"))
        assert store.read("large", 0, 300_000) == b"x" * 300_000
        assert source.in_file(0, 300_000) is not None
        store.spoil(store.file("large", "data"), 150_000)
        for error in store.scrub():
            store.storage.damage.note(error)
        assert source.in_file(0, 300_000) is None
        assert store.read("large", 0, 300_000) is None

    def test_scrub_of_empty_streams(self, store: Store) -> None:
        """Streams without bytes in files don't make a step long: some hundreds are passed over in each."""
        before = len(list(store.storage.scrub()))
        for number in range(3 * SCRUB_EMPTY):
            store.engine.put(f"empty-{number}")
        assert len(list(store.storage.scrub())) >= before + 2

    def test_more_streams_than_are_told_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the log of damage is full, every stream counts as damaged: what is read is verified then."""
        monkeypatch.setattr(damage, "MAX_STREAMS", 2)
        log = DamageLog()
        for stream_id in (1, 2, 3):
            assert log.is_known(stream_id) == (stream_id == 3)
            log.note(StorageDamaged("x", stream_id, "place"))
        assert log.is_known(9)

    def test_damage_at_the_beginning_of_a_large_answer(self, store: Store) -> None:
        """The first piece is read before the head leaves, so that the answer is a 500."""
        engine = store.engine
        engine.put("large")
        for _ in range(800):
            engine.post("large", b"x" * 1000)
        now(store.storage.checkpoint())
        store.spoil(store.file("large", "data"), 10)
        reply = engine.get("large")
        assert (reply.status, reply.code) == (500, "DATA_DAMAGED")

    def test_appends_go_on(self, store: Store) -> None:
        """A stream with damage takes appends, which can be read, and checkpoints write them."""
        store.spoil(store.file("s", "data"), 450)
        store.spoil(store.file("s", "sums"), len(store.file("s", "sums").read_bytes()) - 5)
        for number in range(40):
            store.engine.post("s", b"more %04d" % number, content_type="text/plain")
            if not number % 13:
                now(store.storage.checkpoint())
        now(store.storage.checkpoint())
        again = store.reopened()
        more = b"".join(b"more %04d" % number for number in range(40))
        assert again.read("s", len(WHOLE), len(WHOLE) + len(more)) == more
        assert again.read("s", 0, 25) == WHOLE[:25]
        assert again.read("s", 450, 460) is None
        assert again.read("s", len(WHOLE) - 1, len(WHOLE)) is None
        again.close()

    def test_deleted(self, store: Store) -> None:
        """A stream that is deleted takes its damage out of the count."""
        store.spoil(store.file("s", "data"), 450)
        assert store.read("s", 0, len(WHOLE)) is None
        assert store.storage.damage.streams == 1
        assert store.engine.delete("s").status == 204
        assert store.storage.damage.streams == 0


class CatalogTests:
    """A damaged catalog.db, store.json or journal: the check never fails, and finds what a start refuses."""

    def test_any_damage(self, store: Store) -> None:
        """Cut, filled with zeros or changed anywhere, it is refused or opened; what opens has the right bytes."""
        random = Random(3)
        store.close()
        paths = [store.directory / "catalog.db", store.directory / "store.json"]
        kept = paths[0].read_bytes()
        for number in range(150):
            path = paths[number % 5 == 0]
            content = path.read_bytes()
            spoiled = bytearray(content)
            begin = random.randrange(len(content))
            kind = number % 3
            if kind == 0:
                del spoiled[begin:]
            elif kind == 1:
                end = min(len(content), begin + random.choice([1, 100, 4096]))
                spoiled[begin:end] = bytes(end - begin)
            else:
                spoiled[begin] ^= 1 << random.randrange(8)
            path.write_bytes(spoiled)
            try:
                problems = check(store.directory)
                try:
                    again = opened(store.directory)
                except StorageError:
                    assert problems, (path, number, begin)
                else:
                    for name in ("s", "other"):
                        if name in again.storage._catalog.names:
                            assert again.read(name, 0, len(WHOLE)) == WHOLE
                        else:
                            assert problems, (path, number, begin)
                    again.close()
            finally:
                for each in store.directory.glob("catalog.db*"):
                    each.unlink()
                path.write_bytes(content)
                paths[0].write_bytes(kept)
        assert check(store.directory) == []


def check(directory: Path) -> list[str]:
    """What the command finds, as it is run for a store of this layout."""
    try:
        read_manifest(OsDisk(), str(directory))
    except StorageError as error:
        return [str(error)]
    return check_files(str(directory), lambda *_: None).problems


class JournalEndTests:
    """``file-fast``: where the journal breaks off it ends, and what follows is kept and told."""

    def killed(self, store: Store) -> list[Path]:
        """The segments after ten appends in two segments that no checkpoint has written."""
        for number in range(10):
            store.engine.post("s", b"late %d" % number)
            if number == 5:
                store.storage._journal.begin_segment()
        lock = store.storage._lock
        assert lock is not None
        lock.release()
        return sorted(store.directory.glob("journal/*.log"))[-2:]

    def restarted(self, store: Store) -> tuple[Store, list[str]]:
        """What is opened next, and what it logs."""
        with capturedLogs() as events:
            again = opened(store.directory)
        return again, [formatEvent(event) for event in events]

    @pytest.mark.parametrize("in_middle", [True, False])
    def test_damage(self, store: Store, in_middle: bool) -> None:
        """A damaged batch and all behind it are dropped: the log says where and how many, and they are kept."""
        first, second = self.killed(store)
        content = [each.read_bytes() for each in (first, second)]
        place = content[0].index(b"late 2") if in_middle else content[1].index(b"late 9")
        path = first if in_middle else second
        store.spoil(path, place)
        again, said = self.restarted(store)
        assert again.state("s").tail == len(WHOLE) + 6 * (2 if in_middle else 9)
        (line,) = [each for each in said if "torn or damaged" in each]
        assert f"of {path}, which is torn or damaged. It is dropped with {7 if in_middle else 0} whole batches" in line
        kept = [Path(f"{each}.damaged") for each in ((first, second) if in_middle else (second,))]
        assert all(str(each) in line for each in kept)
        for each in kept:
            original = bytearray(content[each.name.startswith(second.name)])
            if each.name.startswith(path.name):
                original[place] ^= 1
            assert each.read_bytes() == original
        assert check_files(str(store.directory), lambda *_: None).problems == []
        third, said = self.restarted(again.closed())
        assert [each for each in said if "journal ends" in each] == []
        assert third.state("s").tail == again.state("s").tail
        third.close()

    def test_no_damage(self, store: Store) -> None:
        """After a kill nothing is dropped, and nothing said."""
        self.killed(store)
        again, said = self.restarted(store)
        assert again.state("s").tail == len(WHOLE) + 60
        assert [each for each in said if "journal" in each] == []
        assert list(store.directory.glob("journal/*.damaged")) == []
        again.close()
