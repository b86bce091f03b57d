"""Checkpoints: what they write, when they are due, and what happens when they fail."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from twisted.logger import LogLevel

from dstreams.model.changes import Append, Create, Delete, StreamConfig, Touch
from dstreams.protocol.content_types import DEFAULT
from dstreams.protocol.problems import InsufficientStorage, Unavailable
from dstreams.protocol.producers import Producer
from dstreams.storage.files import checkpoint
from dstreams.storage.files import store as store_module
from dstreams.storage.files.catalog import CatalogFile
from dstreams.storage.files.checkpoint import Checkpoints, DirtyStreams
from dstreams.storage.files.segments import segments
from dstreams.storage.interface import StorageError
from dstreams.storage.stream_rows import StreamRow
from tests.crash.disk import Fault, Step
from tests.crash.machine import DIRECTORY
from tests.crash.script import Script
from tests.crash.sqlite_vfs import quiet
from tests.support.logs import at_least, logged

pytestmark = pytest.mark.usefixtures("_quiet")


@pytest.fixture
def _quiet() -> Iterator[None]:
    """SQLite may do without some of what fails."""
    with quiet():
        yield


def an_append(stream_id: int, producer: str | None = None) -> Append:
    return Append(stream_id, 0, b"x", (1,), Producer(producer, 0, 0) if producer else None, None, False, 0.0)


def a_store(*, durable: bool = True, checkpoint_bytes: int = 1 << 30) -> Script:
    """A store with one stream ``a``, and checkpoints only when asked for."""
    script = Script(durable, checkpoint_bytes, spare_after=None)
    script.begin()
    script.create("a")
    script.settle()
    return script


def checkpoints(script: Script) -> Checkpoints:
    return script.process.store._checkpoints


def run_until(script: Script, kind: str) -> None:
    """Let the threads run up to the first call of that kind."""
    seen = len(script.process.mount.trace)
    while not any(step.kind == kind for step in script.process.mount.trace[seen:]):
        script.process.threads.step()


def restart(script: Script, *, lose_power: bool = True) -> None:
    """End the process, and recover."""
    script.end(lose_power=Random(1) if lose_power else None)
    script.begin()
    script.check(power_lost=lose_power)


def data_files(script: Script) -> list[str]:
    return [path for path, _ in script.platter.files() if "/data/" in path]


class DirtyTests:
    def test_what_changed(self) -> None:
        """Every change names the streams and producers whose rows have to be written."""
        dirty = DirtyStreams()
        config = StreamConfig(DEFAULT)
        for change in (
            Create(1, "a", config, None, b"", (), False, 0.0),
            an_append(2, "p"),
            an_append(2, "q"),
            Touch(3, 0.0),
            an_append(4, "p"),
            Delete((4, 5), (6,), 0.0),
        ):
            dirty.note(change)
        assert set(dirty.streams) == {1, 2, 3}
        assert dirty.producers == {2: {"p", "q"}}
        assert set(dirty.removed) == {4, 5}

    def test_failed_checkpoint_is_taken_back(self) -> None:
        """What a failed checkpoint was to write is written by the next, unless it was deleted meanwhile."""
        failed, since = DirtyStreams(), DirtyStreams()
        for change in (an_append(1, "p"), an_append(2, "q"), Delete((7,), (), 0.0)):
            failed.note(change)
        for change in (an_append(1, "r"), Delete((2,), (), 0.0)):
            since.note(change)
        since.merge(failed)
        assert set(since.streams) == {1}
        assert since.producers == {1: {"p", "r"}}
        assert set(since.removed) == {2, 7}


class DueTests:
    def test_due_by_size(self) -> None:
        """A checkpoint is taken when the newest segment is long enough, not before."""
        script = a_store(checkpoint_bytes=1000)
        for _ in range(8):
            script.append("a", b"x" * 100)
            script.settle()
        assert checkpoints(script).count == 1
        assert script.process.store._journal.segment_bytes < 1000

    def test_commits_go_on_during_a_checkpoint(self) -> None:
        """While one is under way, appends are acknowledged; a second one isn't begun."""
        script = a_store(checkpoint_bytes=500)
        script.append("a", b"x" * 600)
        script.settle()
        script.append("a", b"first")
        before = script.history.acknowledged
        threads = script.process.threads
        while threads and script.history.acknowledged == before:
            threads.step()
        assert script.history.acknowledged > before
        assert checkpoints(script).count == 0
        script.settle()
        assert checkpoints(script).count == 1

    def test_segments_are_begun_in_a_thread(self) -> None:
        """The reactor doesn't wait for the syncs of a new segment; commits do, and go into it."""
        script = a_store(checkpoint_bytes=500)
        script.append("a", b"x" * 600)
        script.settle()
        mount, before = script.process.mount, script.history.acknowledged
        seen = len(mount.trace)
        script.append("a", b"first")
        assert mount.trace[seen:] == []
        assert len(script.process.threads) == 1
        script.process.threads.step()
        written = [step.path for step in mount.trace[seen:] if step.kind == "write"]
        assert len(written) == 2
        assert written[0] == written[1] + ".new"
        assert script.history.acknowledged == before
        script.settle()
        assert script.history.acknowledged == before + 1
        restart(script)

    def test_no_room_for_a_new_segment(self) -> None:
        """A commit that has waited for one goes into the old segment when it can't be made."""
        script = a_store(checkpoint_bytes=500)
        script.append("a", b"x" * 600)
        script.settle()
        before = script.history.acknowledged
        script.process.mount.fault = lambda step: Fault(errno.ENOSPC) if step.path.endswith(".new") else None
        script.append("a", b"first")
        script.settle()
        assert script.history.acknowledged == before + 1
        assert not script.refusals
        assert script.process.store.failure is None
        script.process.mount.fault = lambda _: None
        restart(script)

    @pytest.mark.parametrize("durable", [True, False])
    def test_backlog(self, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
        """When a checkpoint can't keep up, commits wait for it, in ``file-fast`` too."""
        monkeypatch.setattr(checkpoint, "MAX_BACKLOG", 0)
        script = a_store(durable=durable, checkpoint_bytes=300)
        threads = script.process.threads
        script.append("a", b"x" * 400)
        while durable and script.history.acknowledged < 2:
            threads.step(len(threads) - 1)
        for _ in range(6):
            script.append("a", b"y" * 400)
            if durable and len(threads) > 1:
                threads.step(len(threads) - 1)
        assert script.process.store._journal.segment_bytes < 3000
        assert script.process.streams.statistics().waiting_changes
        script.settle()
        assert checkpoints(script).count
        assert script.history.acknowledged == script.history.total
        assert not script.refusals
        script.append("a", b"z")
        script.settle()
        assert not script.refusals
        restart(script)

    @pytest.mark.parametrize("durable", [True, False])
    def test_large_group_is_written_in_a_thread(self, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
        """Appends that arrive during the write are committed after it, and a checkpoint waits until it is over."""
        script = a_store(durable=durable)
        monkeypatch.setattr(store_module, "LARGE_COMMIT_BYTES", 1000)
        threads, journal = script.process.threads, script.process.store._journal
        before = script.history.acknowledged
        script.append("a", b"x" * 1001)
        script.append("a", b"y")
        writing, segment = len(threads), journal.file
        script.process.store.checkpoint()
        assert (writing, len(threads), journal.file) == (1, 1, segment)
        assert script.history.acknowledged == before
        threads.step()
        assert durable or script.history.acknowledged == before + 2
        script.settle()
        assert script.history.acknowledged == before + 2
        assert checkpoints(script).count
        assert journal.file is not segment
        restart(script)

    @pytest.mark.parametrize("durable", [True, False])
    @pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EIO])
    def test_large_group_that_fails(self, monkeypatch: pytest.MonkeyPatch, durable: bool, kind: int) -> None:
        """Nothing of it is left, and what was accepted behind it is refused with it."""
        script = a_store(durable=durable)
        monkeypatch.setattr(store_module, "LARGE_COMMIT_BYTES", 1000)
        script.process.mount.fault = lambda step: Fault(kind) if step.kind == "write" else None
        script.append("a", b"x" * 1001)
        script.append("a", b"y")
        script.settle()
        expected = InsufficientStorage if kind == errno.ENOSPC else Unavailable
        assert [type(error) for error in script.refusals] == [expected, expected]
        assert not script.process.store._journal.in_use
        script.process.mount.fault = lambda _: None
        restart(script)

    @pytest.mark.parametrize("durable", [True, False])
    def test_backlog_on_a_full_disk(self, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
        """When the checkpoint that commits wait for finds no room, they are told so, and nothing hangs."""
        monkeypatch.setattr(checkpoint, "MAX_BACKLOG", 0)
        script = a_store(durable=durable, checkpoint_bytes=300)
        script.append("a", b"x" * 2000)
        script.settle()
        full = [True]
        script.process.mount.fault = lambda step: Fault(errno.ENOSPC) if full[0] and step.kind == "open" else None
        for _ in range(3):
            script.append("a", b"y")
            script.settle()
        assert len(script.refusals) == 3
        assert all(isinstance(error, InsufficientStorage) for error in script.refusals)
        full[0] = False
        script.append("a", b"z")
        script.settle()
        assert len(script.refusals) == 3
        restart(script)

    def test_failed_one_is_not_tried_at_every_commit(self) -> None:
        """After a failure the next try waits until the journal has grown by a quarter."""
        script = a_store(checkpoint_bytes=1000)
        script.process.mount.fault = lambda step: Fault(errno.ENOSPC) if step.kind == "rename" else None
        tries = 0
        for _ in range(30):
            script.append("a", b"x" * 60)
            script.settle()
        tries = sum(step.kind == "rename" for step in script.process.mount.trace)
        assert 2 <= tries <= 12
        script.process.mount.fault = lambda _: None
        for _ in range(6):
            script.append("a", b"x" * 60)
            script.settle()
        assert checkpoints(script).count == 1
        assert not script.refusals

    def test_full_disk_is_logged_once(self) -> None:
        """That there is no room is one line without a traceback, however many tries fail, and one more at the end."""
        script = a_store(checkpoint_bytes=1000)
        script.process.mount.fault = lambda step: Fault(errno.ENOSPC) if step.kind == "rename" else None

        with logged(at_least(LogLevel.warn)) as events:
            for _ in range(30):
                script.append("a", b"x" * 60)
                script.settle()
            assert len(events) == 1
            script.process.store.close()
            script.settle()
        assert len(events) == 2
        for event in events:
            assert event["log_format"].startswith("no room for a checkpoint; the journal keeps what it was to write")
            assert "log_failure" not in event


class StepsTests:
    def test_segments_that_are_covered_go(self) -> None:
        """J4: after a checkpoint only segments with batches that it doesn't cover remain."""
        script = a_store()
        for _ in range(3):
            script.append("a", b"x")
            script.settle()
            script.checkpoint()
        folder = f"{DIRECTORY}/journal"
        position = checkpoints(script)._catalog_file.coverage().position
        assert segments(script.process.mount, folder) == [position]

    def test_batch_in_flight(self) -> None:
        """A batch that isn't applied yet when the checkpoint begins is replayed, from the older segment."""
        script = a_store()
        script.append("a", b"in flight")
        script.process.store.checkpoint()
        script.settle()
        assert checkpoints(script)._catalog_file.coverage().position == 1
        assert segments(script.process.mount, f"{DIRECTORY}/journal") == [0, 2]
        restart(script)

    def test_stream_deleted_while_a_checkpoint_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stream that changes and is deleted before its row is taken leaves no older row behind."""
        monkeypatch.setattr(checkpoint, "SLICE_STREAMS", 1)
        script = a_store()
        script.create("b", body=b"1")
        script.settle()
        script.checkpoint()
        for name in ("a", "b"):
            script.append(name, b"2")
        script.settle()
        script.process.store.checkpoint()
        threads, streams = script.process.threads, script.process.streams
        threads.step()  # a segment is begun
        # The first slice is with the thread; the other stream's row isn't taken yet.
        for name in ("a", "b"):
            script.append(name, b"3")
        while streams._commits.under_way:
            threads.step(len(threads) - 1)
        for name in ("a", "b"):
            script.delete(name)
        while streams._commits.under_way:
            threads.step(len(threads) - 1)
        assert checkpoints(script).count == 1
        script.settle()
        assert checkpoints(script).count == 2
        restart(script)
        assert not script.process.streams._durable.streams

    def test_only_what_changed_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A checkpoint writes the rows of changed streams and producers, no others."""
        script = a_store()
        script.create("b")
        script.append("a", b"x", Producer("p", 0, 0))
        script.settle()
        script.checkpoint()
        script.append("a", b"y", Producer("q", 0, 0))
        script.settle()
        rows: list[StreamRow] = []
        save = CatalogFile.save

        def watched(self: CatalogFile, stored: list[StreamRow], *more: Any) -> None:
            rows.extend(stored)
            save(self, stored, *more)

        monkeypatch.setattr(CatalogFile, "save", watched)
        script.checkpoint()
        assert [each.values[1] for each in rows] == ["a"]
        assert [each[1:] for each in rows[0].producers] == [("q", 0, 0)]
        restart(script)

    def test_last_one_at_the_end(self) -> None:
        """Closing writes everything, so that the next start replays nothing; twice closed is closed."""
        script = a_store()
        script.append("a", b"x")
        script.settle()
        script.process.close()
        script.settle()
        assert checkpoints(script).count == 1
        restart(script)
        assert script.process.store._journal.next_sequence == 2
        script.process.close()
        script.settle()
        assert checkpoints(script).count == 0

    def test_another_while_one_runs(self) -> None:
        """One that is asked for while another runs comes after it."""
        script = a_store()
        done: list[object] = []
        for _ in range(2):
            script.append("a", b"x")
            script.process.store.checkpoint().addCallback(done.append)
        script.settle()
        assert done == [None, None]
        assert checkpoints(script).count == 2


class FailureTests:
    @pytest.mark.parametrize("kind", ["sync_all", "write"])
    def test_broken_disk_ends_all_writing(self, kind: str) -> None:
        """An I/O error in a checkpoint is final: the reason is told, commits fail, reads go on."""
        script = a_store()
        script.append("a", b"kept")
        script.settle()

        def broken(step: Step) -> Fault | None:
            return Fault(errno.EIO) if step.kind == kind and "journal" not in step.path else None

        script.process.mount.fault = broken
        script.checkpoint()
        failure = script.process.store.failure
        assert failure is not None
        assert "Input/output error" in failure
        script.append("a", b"refused")
        script.settle()
        assert [type(error) for error in script.refusals] == [Unavailable]
        assert script.process.views() == script.history.acknowledged_state.views()
        script.checkpoint()
        assert checkpoints(script).count == 0
        script.process.close()
        script.settle()
        restart(script)

    def test_reads_do_not_need_what_was_not_synced(self) -> None:
        """After a failed sync the files may lose what was written; the messages are still in memory."""
        script = a_store()
        script.append("a", b"kept in memory")
        script.settle()
        script.process.mount.fault = lambda step: Fault(errno.EIO) if step.kind == "sync_all" else None
        script.checkpoint()
        script.process.mount.fault = lambda _: None
        for path in data_files(script):
            script.process.mount.unlink(path)
        assert script.process.views() == script.history.acknowledged_state.views()

    @pytest.mark.parametrize("kind", ["write", "mkdir", "open", "rename"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
    def test_shortage_passes(self, kind: str, code: int) -> None:
        """Want of room or descriptors is no reason to give up: the next checkpoint writes what this one couldn't."""
        script = a_store()
        script.append("a", b"x", Producer("p", 0, 0))
        script.settle()
        script.process.mount.fault = lambda step: Fault(code) if step.kind == kind and "db" not in step.path else None
        script.checkpoint()
        assert checkpoints(script).count == 0
        assert checkpoints(script).error is not None
        script.process.mount.fault = lambda _: None
        assert script.process.store.failure is None
        script.checkpoint()
        assert checkpoints(script).count == 1
        assert checkpoints(script).error is None
        restart(script)

    def test_full_catalog(self) -> None:
        """So it is when SQLite finds no room."""
        script = a_store()
        script.append("a", b"x")
        script.settle()
        script.process.mount.fault = lambda step: Fault(errno.ENOSPC) if "catalog" in step.path else None
        script.checkpoint()
        assert script.process.store.failure is None
        assert checkpoints(script).count == 0
        script.process.mount.fault = lambda _: None
        script.checkpoint()
        assert checkpoints(script).count == 1
        restart(script)

    def test_undeletable_files(self) -> None:
        """What can't be deleted harms nothing; the next checkpoint tries again."""
        script = a_store()
        script.append("a", b"x")
        script.settle()
        script.checkpoint()
        script.delete("a")
        script.settle()
        script.process.mount.fault = lambda step: Fault(errno.EACCES) if step.kind == "unlink" else None
        script.checkpoint()
        assert checkpoints(script).count == 2
        assert script.process.store.failure is None
        assert len(data_files(script)) == 3
        script.process.mount.fault = lambda _: None
        script.checkpoint()
        assert data_files(script) == []


class SpaceTests:
    @pytest.mark.parametrize("lose_power", [True, False])
    def test_crash_before_files_are_deleted(self, lose_power: bool) -> None:
        """Files of deleted streams that a crash left behind go with the next checkpoint."""
        script = a_store()
        script.append("a", b"x")
        script.settle()
        script.checkpoint()
        script.delete("a")
        script.settle()
        script.process.store.checkpoint()
        while not script.process.mount.trace[-1].path.endswith("catalog.db-wal"):
            script.process.threads.step()
        restart(script, lose_power=lose_power)
        assert len(data_files(script)) == 3
        script.checkpoint()
        assert data_files(script) == []
        script.checkpoint()
        assert checkpoints(script)._catalog_file.removed() == set()

    def test_files_that_a_reader_needs(self) -> None:
        """A slow reader of a deleted stream gets all of it; the files go with the next checkpoint after that."""
        script = a_store()
        script.append("a", b"slowly read")
        script.settle()
        script.checkpoint()
        streams = script.process.streams
        found = script.process.wait(streams.read(streams.find("a"), 0, 1 << 30))
        script.delete("a")
        script.settle()
        script.checkpoint()
        assert script.process.wait(found.read(0, 11)) == b"slowly read"
        del found
        script.checkpoint()
        assert data_files(script) == []


def test_dead_store_takes_no_checkpoint() -> None:
    """After a failed journal sync a checkpoint would build on pages that may be gone: none is taken."""
    script = a_store()
    script.append("a", b"x")
    script.process.mount.fault = lambda step: Fault(errno.EIO) if step.kind == "sync" else None
    script.settle()
    script.process.mount.fault = lambda _: None
    before = len(script.process.mount.trace)
    script.checkpoint()
    assert isinstance(checkpoints(script).error, StorageError)
    assert len(script.process.mount.trace) == before
