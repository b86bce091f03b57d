"""The machines over every storage backend, closed and opened again in the middle of everything.

The stores lie on a real file system that isn't synced (what a power loss does is the crash simulation's concern), and
everything in them is tiny: a checkpoint comes after a few appends, a chunk holds a few bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import Any
from unittest.mock import patch

from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dstreams.model.catalog import Catalog
from dstreams.runtime.progress import Progress, silently
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid import AcidStorage
from dstreams.storage.check import check_acid, check_files
from dstreams.storage.disk import OsDisk, OsFile
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import Charges, Storage
from dstreams.storage.sync import ThreadSyncer
from dstreams.streams.expiry import PERSIST_INTERVAL
from tests.model.delayed import DelayedStreamsMachine
from tests.model.machine import Expected, StreamsMachine
from tests.model.reference import JSON
from tests.storage.acid_stores import now, unsynced
from tests.support.engine import DelayedStorage, Engine

SHARDS = 2

CHECKPOINT_BYTES = 300
"""A journal segment holds a few appends."""

WAL_PAGES = 12
"""A WAL holds a few commits."""

NOTE_AFTER = 5
"""The rows of streams are a few appends behind."""

RECENT_BYTES = 3000
"""The newest bytes of a few streams stay in memory, those of all others are read from the shards."""


class UnsyncedFile(OsFile):
    """A file that is never synced (a ``File``)."""

    def sync(self) -> None:
        pass


class UnsyncedDisk(OsDisk):
    """A disk that is never synced (a ``Disk``)."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> OsFile:
        file = super().open(path, create=create, write=write)
        # The descriptor changes hands: the first owner must not close it.
        descriptor, file._descriptor = file._descriptor, -1
        return UnsyncedFile(path, descriptor)

    def sync_directory(self, path: str) -> None:
        pass

    def sync_all(self, path: str) -> None:
        pass


def file_store(directory: str, *, durable: bool) -> FileStorage:
    """A store of the file modes that does everything in the calling thread."""
    make_syncer = (lambda: ThreadSyncer(run_inline)) if durable else None
    store = FileStorage(directory, make_syncer, run_inline, CHECKPOINT_BYTES, UnsyncedDisk(), unsynced)
    store.charges = Charges()
    return store


def acid_store(directory: str, *, in_memory: bool = False) -> AcidStorage:
    """A store of the ``acid`` mode that does everything in the calling thread."""
    store = AcidStorage(
        directory, SHARDS, run_inline, in_memory=in_memory, parallel=1, connect=unsynced, recent_bytes=RECENT_BYTES
    )
    store.charges = Charges()
    return store


@define(eq=False)
class HeldStorage(DelayedStorage):
    """Hands groups on to another store when it is told to (a ``Storage``)."""

    _inner: Any = field(kw_only=True)

    def open(self, catalog: Catalog, progress: Progress) -> None:
        self._inner.open(catalog, progress)

    def finish(self) -> None:
        """The commit under way succeeds."""
        done, self._under_way = self._under_way, None
        assert done is not None, "no commit is under way"
        now(self._inner.commit(self.groups[-1]))
        done.callback(None)

    def close(self) -> Deferred[None] | None:  # type: ignore[override]
        super().close()
        closed: Deferred[None] | None = self._inner.close()
        return closed


class RestartingMachine(StreamsMachine):
    """The same over a store that outlives the process."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="model-")
        self.small = patch.multiple("dstreams.storage.acid.chunks", MERGE_ROWS=3, MERGE_BYTES=16, CHUNK_BYTES=8)
        self.small.start()
        super().__init__()

    def make_store(self) -> FileStorage | AcidStorage:
        raise NotImplementedError

    def storage(self) -> Storage:
        self.store = self.make_store()
        return self.store

    def start(self, clock: Clock) -> Engine:
        engine = super().start(clock)
        if isinstance(self.store, AcidStorage):
            self.store._maintenance._limit = WAL_PAGES
            self.store._maintenance._note_after = NOTE_AFTER
        return engine

    def finish_commits(self) -> None:
        """Let what is on its way to the store arrive there."""

    @rule(pause=st.sampled_from([0, 0, 0, 2, 40]), looks=st.booleans())
    def restart(self, pause: int, looks: bool) -> None:
        """Stop in order, stay away for a while, and start again."""
        self.settle_down()
        closed = self.engine.streams.close()
        self.finish_commits()
        now(closed)
        self.engine.wheel.stop()
        self.times.now += pause
        self.engine.clock.advance(pause)
        self.times.restart(PERSIST_INTERVAL)
        self.engine = self.start(self.engine.clock)
        self.clear_away()
        if looks:
            self.look_closely()

    @precondition(lambda self: self.sources())
    @rule(data=st.data())
    def delete_source(self, data: st.DataObject) -> None:
        """Delete a stream that has forks: it stays for them."""
        name = data.draw(st.sampled_from(self.sources()))
        reply = self.engine.delete(name)
        with self.change():
            self.expect(reply, Expected(self.accepted.delete(name)))

    def sources(self) -> list[str]:
        return [
            name for name, stream in self.accepted.streams.items() if not stream.deleted and self.accepted.forks(name)
        ]

    def look_closely(self) -> None:
        """Read from every offset, and repeat what producers and sequencing writers have sent before."""
        for name, stream in sorted(self.durable.streams.items()):
            if self.durable.look(name) != 200:
                continue
            for place, token in self.places(name):
                self.read_from(name, place, token)
            body = b"1" if stream.content_type == JSON else b"x"
            for producer, last in sorted(stream.producers.items()):
                self.post(name, stream.content_type, body, producer=(producer, *last))
            if stream.stream_seq is not None:
                self.post(name, stream.content_type, body, seq=stream.stream_seq)
            if stream.closed_by is not None:
                self.post(name, stream.content_type, b"", closes=True, producer=stream.closed_by)

    def check(self) -> list[str]:
        """What an offline check of the closed store finds wrong."""
        raise NotImplementedError

    def teardown(self) -> None:
        try:
            super().teardown()
            closed = self.engine.streams.close()
            self.finish_commits()
            now(closed)
            assert self.check() == []
        finally:
            self.small.stop()
            shutil.rmtree(self.directory)


class FileFastMachine(RestartingMachine):
    """``file-fast``: every commit is over at once."""

    def make_store(self) -> FileStorage:
        return file_store(self.directory, durable=False)

    def check(self) -> list[str]:
        return check_files(self.directory, silently).problems


class HeldMachine(RestartingMachine, DelayedStreamsMachine):
    """Commits that take their time, and then arrive in a store."""

    def storage(self) -> Storage:
        self.store = self.make_store()
        self.disk = HeldStorage(inner=self.store)
        self.disk.charges = Charges()
        return self.disk

    def finish_commits(self) -> None:
        self.disk.finish_all()


class FileDurableMachine(HeldMachine):
    """``file-durable``."""

    def make_store(self) -> FileStorage:
        return file_store(self.directory, durable=True)

    def check(self) -> list[str]:
        return check_files(self.directory, silently).problems


class AcidMachine(HeldMachine):
    """``acid`` in files."""

    def make_store(self) -> AcidStorage:
        return acid_store(self.directory)

    def check(self) -> list[str]:
        return check_acid(self.directory, {"shard_count": SHARDS}, silently).problems


class AcidInMemoryMachine(StreamsMachine):
    """``acid`` in memory: nothing outlives the process."""

    def storage(self) -> Storage:
        return acid_store("", in_memory=True)
