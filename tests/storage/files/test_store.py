"""The file modes as the engine sees them, on the operating system's disk."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from dstreams.model.changes import Append
from dstreams.protocol.content_types import parse_content_type
from dstreams.protocol.problems import SequenceConflict, StreamClosed, Unavailable
from dstreams.protocol.producers import Producer
from dstreams.runtime.pending import as_deferred
from dstreams.runtime.threads import run_inline
from dstreams.runtime.timers import Clocks, TimerWheel
from dstreams.storage.files import segments
from dstreams.storage.files import store as store_module
from dstreams.storage.files.records import encode
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import StorageError
from dstreams.storage.sync import KernelSyncer, ThreadSyncer
from dstreams.streams.appending import AppendRequest
from dstreams.streams.creating import CreateRequest, ForkRequest
from dstreams.streams.streams import Streams

JSON = parse_content_type(b"application/json")
TEXT = parse_content_type(b"text/plain")


@define(eq=False)
class Server:
    """A store in a directory, and the engine over it; nothing waits.

    :param checkpoint_bytes: small, so that checkpoints happen all the time.
    """

    directory: Path
    durable: bool = True
    checkpoint_bytes: int = 2000
    now_ns: int = 0
    store: FileStorage = field(init=False)
    streams: Streams = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        make_syncer = (lambda: ThreadSyncer(run_inline)) if self.durable else None
        self.store = FileStorage(
            str(self.directory), make_syncer, run_inline, self.checkpoint_bytes, now_ns=lambda: self.now_ns
        )
        clock = Clock()
        clock.advance(1000.0)
        self.streams = Streams(self.store, TimerWheel(clock), clocks=Clocks(clock.seconds, clock.seconds))
        self.streams.open()

    def kill(self) -> None:
        """End without closing, and start again."""
        assert self.store._lock is not None
        self.store._lock.release()
        self.open()

    def restart(self) -> None:
        """Close properly, and start again."""
        result(self.streams.close())
        self.open()

    def create(self, name: str, body: bytes = b"", kind: Any = JSON, **more: Any) -> None:
        options = {"ttl": None, "expires_at": None, "closed": False, "fork": None} | more
        result(self.streams.create(CreateRequest(name, kind, length=len(body), body=body, **options)))

    def append(
        self, name: str, body: bytes, producer: Producer | None = None, seq: bytes | None = None, closes: bool = False
    ) -> None:
        kind = self.streams.find(name).config.content_type.value.encode()
        result(self.streams.append(name, AppendRequest(kind, closes, producer, seq), body))

    def delete(self, name: str) -> None:
        result(self.streams.delete(name))

    def read(self, name: str) -> bytes:
        found = result(self.streams.read(self.streams.find(name), 0, 1 << 40))
        return result(found.read(0, found.end)) if len(found) else b""

    def dump(self) -> dict[str, Any]:
        """Everything that can be known of every stream."""
        return {
            name: (
                state.id, state.config, state.fork, state.tail, state.messages, state.closed, state.closed_by,
                state.stream_seq, state.producers, state.soft_deleted, state.forks, state.created_at,
                state.updated_at, state.touched_at, None if state.soft_deleted else self.read(name),
            )
            for name, state in self.streams._durable.names.items()
        }  # fmt: skip


def result(value: Any) -> Any:
    """What an operation has come to."""
    results: list[Any] = []
    as_deferred(value).addBoth(results.append)
    assert results, "it waits"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


@pytest.fixture(params=[True, False], ids=["file-durable", "file-fast"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    return Server(tmp_path, request.param)


def fill(server: Server) -> None:
    """Use everything that a stream can be."""
    server.create("json", b"[1,2,3]", ttl=60)
    server.create("text", b"begin;", kind=TEXT, expires_at=5000.5)
    server.create("empty", kind=None)
    server.create("closed", b'{"only":1}', closed=True)
    for number in range(60):
        server.append("json", b'[%d,{"x":"%b"}]' % (number, b"y" * 30), Producer("p", 1, number), b"%04d" % number)
        server.append("text", b"%d;" % number, Producer("q\xfc", 0, number))
        if number == 30:
            server.create("fork", fork=ForkRequest("json", None, 0), kind=None)
            server.create("fork of fork", fork=ForkRequest("fork", None, 0), kind=None)
    server.append("fork", b"[true]")
    server.append("text", b"bye", Producer("q\xfc", 0, 60), closes=True)
    server.delete("json")
    server.create("gone")
    server.delete("gone")
    server.create("gone", b"[0]")


class RestartTests:
    def test_everything_comes_back(self, server: Server) -> None:
        """After a kill, a proper end, and both again, everything is as it was, to the last byte and producer."""
        fill(server)
        expected = server.dump()
        assert server.store._checkpoints.count > 2
        assert expected["json"][9]
        assert len(expected["text"][14]) == expected["text"][3]
        for end in (server.kill, server.restart, server.kill, server.restart):
            end()
            assert server.dump() == expected

    def test_restored_streams_go_on(self, server: Server) -> None:
        """Producers, Stream-Seq and closure are in force after a restart."""
        fill(server)
        for number, end in enumerate((server.kill, server.restart)):
            end()
            before = server.read("fork")
            for _ in range(2):
                server.append("fork", b"[8]", Producer("new", 0, number), b"%d" % number)
            assert server.read("fork") == before + b"8,"
            with pytest.raises(SequenceConflict):
                server.append("fork", b"[9]", seq=b"%d" % number)
            with pytest.raises(StreamClosed):
                server.append("text", b"more")

    def test_cascade_after_a_restart(self, server: Server) -> None:
        """The last fork of a deleted stream takes it along, also when both come from the disk; their files go."""
        fill(server)
        server.restart()
        server.delete("fork of fork")
        server.delete("fork")
        assert "json" not in server.streams._durable.names
        server.kill()
        assert not {"json", "fork", "fork of fork"} & set(server.streams._durable.names)
        result(server.store.checkpoint())
        ids = {f"{state.id:016x}" for state in server.streams._durable.streams.values()}
        assert {path.stem for path in (server.directory / "data").rglob("*.data")} <= ids

    def test_ids_are_never_used_again(self, server: Server) -> None:
        """Not even the id of a stream that is gone, whatever the clock says."""
        seen = set()
        for number in range(12):
            server.create("a")
            stream_id = server.streams.find("a").id
            assert stream_id not in seen
            seen.add(stream_id)
            server.delete("a")
            (server.kill, server.restart)[number % 2]()

    def test_touches_come_back(self, server: Server) -> None:
        """When a stream was last used outlives the process, if the engine has told the store."""
        server.create("a", ttl=60)
        stream_id = server.streams.find("a").id
        server.streams._persist_renewals([(stream_id, 1030.0)])
        server.kill()
        assert server.streams.find("a").touched_at == 1030.0

    def test_store_without_a_last_checkpoint_changes_nothing(self, server: Server) -> None:
        """Closing a store to which nothing happened writes nothing."""
        server.create("a")
        server.restart()
        server.restart()
        assert server.store._checkpoints.count == 0

    def test_mode_can_be_changed(self, tmp_path: Path) -> None:
        """``file-fast`` and ``file-durable`` have the same files."""
        server = Server(tmp_path, True)
        fill(server)
        expected = server.dump()
        for _ in range(3):
            server.durable = not server.durable
            server.kill()
            assert server.store.name == ("file-durable" if server.durable else "file-fast")
            assert server.dump() == expected
            server.append("gone", b"[1]")
            expected = server.dump()


class ShortageTests:
    def test_no_descriptor_is_left(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """A shortage of descriptors passes, whenever it comes: writing goes on with it, and checkpoints after it."""
        server.create("/a", kind=TEXT)
        for size in range(1, 3000, 200):
            with monkeypatch.context() as short:
                short.setattr(os, "open", none_left)
                for _ in range(10):
                    server.append("/a", b"x" * 300)
                    assert server.store.failure is None
            taken = server.store._checkpoints.count
            server.append("/a", b"x" * size)
            while server.store._checkpoints.count == taken:
                server.append("/a", b"x" * 100)


def none_left(*_: object, **__: object) -> int:
    """What opening a file comes to when the process has all the files open that it may have."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class KilledAgainTests:
    def test_journal_stays_bounded(self, server: Server) -> None:
        """What a start has replayed makes a checkpoint due: no number of kills makes the journal grow without bound."""
        server.create("/a", kind=TEXT)
        for _ in range(30):
            server.append("/a", b"x" * 500)
            server.kill()
        journal = server.directory / "journal"
        assert sum(file.stat().st_size for file in journal.iterdir()) < 3 * server.checkpoint_bytes
        assert server.read("/a") == b"x" * 15_000

    def test_segments_stay_few(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """Short segments, one of each life, make a checkpoint due by their number: a start has all of them open."""
        monkeypatch.setattr(store_module, "MANY_SEGMENTS", 5)
        server.checkpoint_bytes = 1 << 30
        server.restart()
        server.create("/a", kind=TEXT)
        for _ in range(30):
            server.append("/a", b"x")
            server.kill()
        assert len(list((server.directory / "journal").iterdir())) < 10
        assert server.read("/a") == b"x" * 30


class RefusalTests:
    def broken(self, server: Server) -> str:
        """Why the store doesn't open again."""
        with pytest.raises(StorageError) as caught:
            server.kill()
        assert "\n" not in str(caught.value)
        # Nothing of the attempt stays: neither lock nor descriptors.
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(StorageError):
                server.open()
        assert len(os.listdir("/proc/self/fd")) <= before
        return str(caught.value)

    def test_damaged_journal(self, tmp_path: Path) -> None:
        """A batch that was durable and is damaged is named; giving it up makes the store open again."""
        server = Server(tmp_path, checkpoint_bytes=1 << 30)
        fill(server)
        path = next((tmp_path / "journal").iterdir())
        content = bytearray(path.read_bytes())
        content[200] ^= 1
        path.write_bytes(content)
        text = self.broken(server)
        assert f"{path}: batch " in text
        assert "durable-streams check --repair" in text

    def test_unreadable_batch(self, tmp_path: Path) -> None:
        """A batch whose checksum is right but whose content isn't ours, as from a later version."""
        server = Server(tmp_path)
        server.store._journal.append([b"\xee\xee"], 2)
        assert "the journal's batch 0 can't be read by this version: unknown kind of change 238" in self.broken(server)

    def test_batch_that_does_not_fit(self, tmp_path: Path) -> None:
        """An append that leaves a gap: something before it is missing."""
        server = Server(tmp_path)
        server.create("a", b"[1]")
        stream_id = server.streams.find("a").id
        payload = b"".join(encode([Append(stream_id, 99, b"x", (100,), None, None, False, 0.0)]))
        server.store._journal.append([payload], len(payload))
        assert "an append to stream 'a' goes from 99 to 100, but the stream ends at 2" in self.broken(server)

    def test_damaged_catalog(self, tmp_path: Path) -> None:
        """A catalog that is no database."""
        server = Server(tmp_path)
        fill(server)
        result(server.streams.close())
        (tmp_path / "catalog.db").write_bytes(b"x" * 4096)
        with pytest.raises(StorageError, match=r"catalog .* can't be read .file is not a database.; restore it"):
            server.open()

    def test_missing_catalog(self, tmp_path: Path) -> None:
        """Without its catalog the journal doesn't begin at the beginning."""
        server = Server(tmp_path)
        fill(server)
        result(server.streams.close())
        (tmp_path / "catalog.db").unlink()
        with pytest.raises(StorageError, match=r"catalog\.db is empty or new, though a checkpoint was taken"):
            server.open()

    def test_missing_journal(self, tmp_path: Path) -> None:
        """Without its journal a store may have lost what the catalog doesn't have."""
        server = Server(tmp_path)
        fill(server)
        result(server.streams.close())
        for path in (tmp_path / "journal").iterdir():
            path.unlink()
        with pytest.raises(StorageError, match="is missing, it has no segments"):
            server.open()


class FailureTests:
    def test_failed_sync_is_final(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a sync that failed every commit fails, though the disk is sound again; reads go on."""
        server = Server(tmp_path)
        server.create("a", b"[1]")

        def broken(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            with pytest.raises(Unavailable):
                server.append("a", b"[2]")
        with pytest.raises(Unavailable):
            server.append("a", b"[3]")
        assert server.store.failure == "a sync failed: [Errno 5] Input/output error"
        assert server.read("a") == b"1,"
        result(server.streams.close())
        server.open()
        # The batch may or may not have reached the disk; it was never acknowledged.
        assert server.read("a") in (b"1,", b"1,2,")
        server.append("a", b"[4]")


class RealThreadsTests:
    @pytest.mark.parametrize("kind", ["kernel", "thread", "fast"])
    @pytest_twisted.ensureDeferred
    async def test_many_writers(self, kind: str, tmp_path: Path) -> None:
        """Concurrent appends with real syncs and checkpoints in real threads are all there afterwards."""
        from twisted.internet import reactor

        def make_syncer() -> Any:
            try:
                return KernelSyncer(reactor) if kind == "kernel" else ThreadSyncer(deferToThread)
            except OSError as error:
                pytest.skip(f"the kernel doesn't sync by itself here: {error}")

        def open_store() -> tuple[FileStorage, Streams]:
            store = FileStorage(
                str(tmp_path), None if kind == "fast" else make_syncer, deferToThread, 20_000, spare_after=5000
            )
            streams = Streams(store, TimerWheel(Clock()))
            streams.open()
            return store, streams

        async def write(name: str) -> None:
            await as_deferred(streams.create(CreateRequest(name, TEXT, None, None, False, None, 0, b"")))
            for number in range(40):
                body = b"%03d;" % number * 20
                request = AppendRequest(b"text/plain", False, Producer("p", 0, number), None)
                await as_deferred(streams.append(name, request, body))

        store, streams = open_store()
        names = [f"stream {number}" for number in range(12)]
        await gatherResults([Deferred.fromCoroutine(write(name)) for name in names])
        await streams.close()
        assert store._checkpoints.count > 0
        store, streams = open_store()
        for name in names:
            found = await as_deferred(streams.read(streams.find(name), 0, 1 << 30))
            data = await as_deferred(found.read(0, found.end))
            assert data == b"".join(b"%03d;" % number * 20 for number in range(40))
            assert streams.find(name).producer("p") == (0, 39)
        await streams.close()
        assert len(segments.segments(store._disk, f"{tmp_path}/journal")) <= 2
        prepared = [path for path in (tmp_path / "journal").iterdir() if path.stat().st_size == 21_250]
        assert bool(prepared) is (kind != "fast")
