"""The ``acid`` mode on a disk that fills up or fails: nothing acknowledged is lost, nothing half done is seen."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Change, ForkPoint, SoftDelete
from dstreams.storage.acid import AcidStorage
from dstreams.storage.acid.group import home
from dstreams.storage.acid.maintenance import Maintenance
from dstreams.storage.acid.shard import Shard
from dstreams.storage.acid.writer import RESERVE_BYTES
from dstreams.storage.interface import StorageError, StorageFull
from tests.storage.acid_stores import (
    SHARDS,
    FaultyDisk,
    HeldRun,
    acid,
    append,
    contents,
    crashed,
    create,
    delete,
    engine,
    now,
)
from tests.support.engine import Engine
from tests.support.logs import logged

ERRORS = {
    "full": sqlite3.SQLITE_FULL,
    "busy": sqlite3.SQLITE_BUSY,
    "no memory": sqlite3.SQLITE_NOMEM,
    "i/o": sqlite3.SQLITE_IOERR_FSYNC,
    "corrupt": sqlite3.SQLITE_CORRUPT,
}
PASSING = {"full", "busy", "no memory"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "store"


def opened(directory: Path, **options: Any) -> tuple[AcidStorage, Catalog]:
    """A store without an engine, and what it holds."""
    store, catalog = acid(directory, **options), Catalog()
    store.open(catalog, lambda *_: None)
    return store, catalog


def held(store: AcidStorage, catalog: Catalog) -> dict[str, tuple[int, bytes, bool]]:
    """What a catalog says and a store gives."""
    return {
        state.name: (
            state.id,
            now(store.source(state).read(state.start, state.tail)) if state.size else b"",
            state.soft_deleted,
        )
        for state in catalog.streams.values()
    }


def names_at_home() -> list[str]:
    """A name for every shard, in the order of the shards."""
    names = [f"n{number}" for number in range(200)]
    return [next(name for name in names if home(name, SHARDS) == shard) for shard in range(SHARDS)]


def first_group() -> list[Change]:
    """Streams in all shards, one with a fork."""
    changes: list[Change] = [create(number, name, b"first") for number, name in enumerate(names_at_home(), 1)]
    return [
        *changes,
        create(9, "fork", b"own", fork=ForkPoint(1, names_at_home()[0], 5)),
        create(8, "b", b"bb"),
    ]


def second_group() -> list[Change]:
    """Every kind of statement, in all shards."""
    return [
        append(1, 5, b"second"),
        append(2, 5, b"second", closes=True),
        append(3, 5, b"x" * 40_000),
        create(10, "new", b"new"),
        SoftDelete(1, 2.0),
        append(9, 8, b"!"),
        append(4, 5, b"1", b"2"),
        delete(8),
    ]


def apply(catalog: Catalog, changes: list[Change]) -> None:
    for change in changes:
        catalog.apply(change)


def expected() -> tuple[dict[str, Any], dict[str, Any]]:
    """What a store holds after the first group, and after both."""
    store, catalog = AcidStorage("", SHARDS, HeldRun(), in_memory=True), Catalog()
    store.open(catalog, lambda *_: None)
    found = []
    for changes in (first_group(), second_group()):
        store.commit(changes)
        apply(catalog, changes)
        found.append(held(store, catalog))
    return found[0], found[1]


class EveryStatementTests:
    @pytest.mark.parametrize("error", sorted(ERRORS))
    def test_a_failure_before_the_commits_undoes_the_group(self, directory: Path, error: str) -> None:
        """Whichever statement fails, nothing of the group is kept, in no shard; the store goes on if it may."""
        before, _ = expected()
        disk = FaultyDisk()
        store, catalog = opened(directory, connect=disk.connect)
        now(store.commit(first_group()))
        apply(catalog, first_group())
        now(store.close())
        nth = 0
        while True:
            nth += 1
            store, catalog = opened(directory, connect=disk.connect)
            disk.log.clear()
            disk.fail(nth, ERRORS[error])
            with pytest.raises(StorageError) as refused:
                now(store.commit(second_group()))
            if next(sql for sql in reversed(disk.log) if sql != "ROLLBACK") == "COMMIT":
                now(store.close())
                break
            assert isinstance(refused.value, StorageFull) == (error == "full")
            assert (store.failure is None) == (error in PASSING)
            assert held(store, catalog) == before
            if store.failure is None:
                assert store.problems() == []
            else:
                with pytest.raises(StorageError, match="until the server is restarted"):
                    now(store.commit(second_group()))
            copy = crashed(directory)
            again, recovered = opened(copy)
            assert held(again, recovered) == before
            assert again.problems() == []
            now(again.close())
            now(store.close())
        assert nth > 15

    def test_the_store_goes_on_after_a_full_disk(self, directory: Path) -> None:
        """The group that was refused for lack of space is taken when it is offered again."""
        before, after = expected()
        disk = FaultyDisk()
        store, catalog = opened(directory, connect=disk.connect)
        now(store.commit(first_group()))
        apply(catalog, first_group())
        for nth in range(1, 16):
            disk.fail(nth, sqlite3.SQLITE_FULL)
            with pytest.raises(StorageFull):
                now(store.commit(second_group()))
            assert held(store, catalog) == before
        disk.nth = 0
        now(store.commit(second_group()))
        apply(catalog, second_group())
        assert held(store, catalog) == after
        assert store.problems() == []

    def test_an_undecided_group_is_settled_first(self, directory: Path) -> None:
        """After a commit that is neither kept nor void nothing else is written; then the store goes on."""
        disk = FaultyDisk()
        served = engine(directory, connect=disk.connect)
        served.put("a", b"one")
        served.put("b", b"one")
        before = contents(served)
        disk.fail(1, sqlite3.SQLITE_FULL, "COMMIT", lasting=True)
        assert served.post("a", b"two").status == 503
        assert (served.storage.failure, contents(served)) == (None, before)
        disk.log.clear()
        for name in ("a", "b"):
            assert served.post(name, b"three").status == 507
            assert not any("chunks" in sql for sql in disk.log), "a group was written"
        assert contents(served) == before
        disk.nth = 0
        assert served.post("b", b"four").status == 204
        assert (served.get("a").body, served.get("b").body) == (b"one", b"onefour")

    @pytest.mark.parametrize("voids", [True, False])
    def test_a_commit_that_found_no_room_is_voided(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, voids: bool
    ) -> None:
        """A refused group that lies complete in the WAL isn't found by the next start; without voiding it would be."""
        if not voids:
            monkeypatch.setattr(Shard, "void", lambda _: None)
        monkeypatch.setattr(Maintenance, "make_room", lambda _: None)  # which may empty the WAL
        disk = FaultyDisk()
        served = engine(directory, 1, connect=disk.connect)
        served.put("a", b"one")
        wal = directory / "acid" / "shard_00.db-wal"
        written = wal.stat().st_size
        copy = crashed(directory)
        assert engine(copy, 1).post("a", b"two").status == 204
        group = (copy / "acid" / "shard_00.db-wal").read_bytes()[written:]
        assert group
        with wal.open("ab") as file:  # what SQLite was about to write lies there already
            file.write(group)
        disk.fail(1, sqlite3.SQLITE_FULL, "COMMIT")
        assert served.post("a", b"two").status == 507
        assert served.get("a").body == b"one"
        found = engine(crashed(directory), 1).get("a").body
        assert found == (b"one" if voids else b"onetwo")

    def test_a_rollback_that_fails_is_final(self, directory: Path) -> None:
        """When a group can't be undone, the store takes no more."""
        disk = FaultyDisk()
        store, catalog = opened(directory, connect=disk.connect)
        now(store.commit(first_group()))
        apply(catalog, first_group())
        disk.fail(3, sqlite3.SQLITE_FULL, lasting=True)
        with pytest.raises(StorageError, match="undoing a group failed"):
            now(store.commit(second_group()))
        assert store.failure is not None


class CommitFailureTests:
    @pytest.mark.parametrize("parallel", [1, 4])
    @pytest.mark.parametrize("nth", range(1, SHARDS + 1))
    @pytest.mark.parametrize("error", ["full", "i/o"])
    def test_a_half_committed_group_is_final(self, directory: Path, nth: int, error: str, parallel: int) -> None:
        """When a shard's commit fails after another's, the store takes no more, and memory says what was before.

        The next start finds in each shard all of the group or nothing.
        """
        before, after = expected()
        disk = FaultyDisk()
        store, catalog = opened(directory, connect=disk.connect, parallel=parallel)
        now(store.commit(first_group()))
        apply(catalog, first_group())
        disk.fail(nth, ERRORS[error], only="COMMIT")
        with pytest.raises(StorageError) as refused:
            now(store.commit(second_group()))
        # One after another, a full disk met by the first is met before anything was kept.
        clean = error == "full" and nth == 1 and parallel == 1
        assert isinstance(refused.value, StorageFull) == clean
        assert (store.failure is None) == clean
        assert held(store, catalog) == before
        disk.nth = 0
        if not clean:
            disk.log.clear()
            with pytest.raises(StorageError, match="until the server is restarted"):
                now(store.commit([append(4, 5, b"more")]))
            assert disk.log == [], "nothing more is written"
        for directory_after in (crashed(directory), (now(store.close()), directory)[1]):
            again, recovered = opened(directory_after)
            found = held(again, recovered)
            for name in set(before) | set(after):
                assert found.get(name) in (before.get(name), after.get(name))
            assert again.problems() == []
            now(again.close())

    def test_a_commit_whose_sync_fails_is_final(self, directory: Path) -> None:
        """A commit that may be on the disk although it failed ends all writing, also with one shard."""
        disk = FaultyDisk()
        store, catalog = opened(directory, shard_count=1, connect=disk.connect)
        now(store.commit([create(1, "a", b"one")]))
        apply(catalog, [create(1, "a", b"one")])
        disk.fail(1, sqlite3.SQLITE_IOERR_FSYNC, only="COMMIT", done_first=True)
        with pytest.raises(StorageError, match="failed at COMMIT"):
            now(store.commit([append(1, 3, b"two")]))
        assert store.failure is not None
        assert held(store, catalog)["a"][1] == b"one"
        now(store.close())
        store, catalog = opened(directory, shard_count=1)
        assert held(store, catalog)["a"][1] == b"onetwo"

    def test_a_failed_store_leaves_its_files_alone(self, directory: Path) -> None:
        """Closing it doesn't copy a WAL whose sync has failed: nobody knows what of it a power loss would leave."""
        disk = FaultyDisk()
        store, catalog = opened(directory, shard_count=1, connect=disk.connect)
        now(store.commit(first := [create(1, "a", b"one")]))
        catalog.apply(first[0])
        disk.fail(1, sqlite3.SQLITE_IOERR_FSYNC, "COMMIT")
        with pytest.raises(StorageError):
            now(store.commit([append(1, 3, b"two")]))
        files = {path: path.read_bytes() for path in (directory / "acid").iterdir() if path.suffix != ".db-shm"}
        assert len(files) == 2
        now(store.close())
        assert {path: path.read_bytes() for path in files} == files
        _, catalog = opened(directory, shard_count=1)
        assert catalog.streams[1].tail == 3

    def test_a_checkpoint_that_waits_for_its_turn_is_given_up(self, directory: Path) -> None:
        """What upkeep had in mind when a commit failed isn't done any more."""
        disk, threads = FaultyDisk(), HeldRun(held=False)
        store, catalog = opened(directory, shard_count=1, connect=disk.connect, run=threads)
        now(store.commit(first := [create(1, "a", b"one")]))
        catalog.apply(first[0])
        threads.held = True
        store._maintenance.written(0, 1 << 20)
        store._maintenance.go_on()
        disk.fail(1, sqlite3.SQLITE_IOERR_FSYNC, "COMMIT")
        refused = store.commit([append(1, 3, b"two")])
        assert refused is not None
        disk.log.clear()
        threads.finish()
        with pytest.raises(StorageError):
            now(refused)
        # On a connection of its own, whose sync would fail, too, one has been begun before.
        assert disk.log.count("PRAGMA wal_checkpoint(PASSIVE)") == 1
        assert store.failure

    def test_clients_of_a_failed_store(self, directory: Path) -> None:
        """Writes are refused with 503, reads of old and new bytes go on."""
        disk = FaultyDisk()
        served = engine(directory, connect=disk.connect, recent_bytes=0)
        served.put("a", b"one")
        disk.fail(1, sqlite3.SQLITE_IOERR_WRITE, only="COMMIT")
        assert served.post("a", b"two").status == 503
        assert served.post("a", b"three").status == 503
        assert served.put("b", b"three").status == 503
        assert served.delete("a").status == 503
        assert served.get("a").body == b"one"
        assert "disk failed at COMMIT" in str(served.storage.failure)
        now(served.streams.close())
        assert engine(directory).get("a").body == b"one"


class FullDiskTests:
    def full(self, served: Engine, full: bool) -> None:
        """Let SQLite find no more pages, or again as many as it likes."""
        store = served.storage
        assert isinstance(store, AcidStorage)
        for shard in store._shards:
            shard.database.execute(f"PRAGMA max_page_count = {1 if full else 1 << 30}")

    def test_a_full_database(self, directory: Path) -> None:
        """A large append gets 507 and leaves nothing; small ones go on, large ones when there is room again."""
        served = engine(directory)
        served.put("a", b"one")
        self.full(served, True)
        assert served.post("a", b"x" * 1_000_000).status == 507
        assert served.storage.failure is None
        assert served.get("a").body == b"one"
        self.full(served, False)
        assert served.post("a", b"y" * 1_000_000).status == 204
        now(served.streams.close())
        again = engine(directory)
        assert again.get("a").body == b"one" + b"y" * 1_000_000
        assert again.storage.problems() == []  # type: ignore[attr-defined]

    def test_the_last_space_is_for_deletions(self, directory: Path) -> None:
        """With little space left new bytes are refused, while streams may be deleted, closed and marked."""
        free = [1 << 40]
        served = engine(directory, free_space=lambda: free[0])
        served.put("a", b"one")
        served.put("b", b"one")
        served.fork("fork", "b")
        before = contents(served)
        free[0] = RESERVE_BYTES
        assert served.post("a", b"two").status == 507
        assert served.put("c").status == 507
        assert contents(served) == before
        assert served.close("a").status == 204
        assert served.delete("b").status == 204
        assert served.delete("a").status == 204
        free[0] = 1 << 40
        assert served.put("a", b"anew").status == 201

    def test_what_is_free_in_the_shards_goes_back(self, directory: Path) -> None:
        """A commit that finds no room makes some: free pages that are kept for later, and the WAL."""
        free = [1 << 40]
        served = engine(directory, 1, free_space=lambda: free[0])
        served.put("a", b"one" * 500_000)
        served.put("b", b"two")
        served.delete("a")
        wal = directory / "acid" / "shard_00.db-wal"
        assert wal.stat().st_size > 1_000_000
        free[0] = 0
        assert served.post("b", b"more").status == 507
        assert wal.stat().st_size == 0
        assert (directory / "acid" / "shard_00.db").stat().st_size < 200_000
        free[0] = 1 << 40
        assert served.post("b", b"more").status == 204
        assert served.get("b").body == b"twomore"

    def test_a_wal_that_has_grown_again_goes_back(self, directory: Path) -> None:
        """A disk that is found full once more gets the WAL's room once more; one that stays full costs nothing."""
        free = [1 << 40]
        served = engine(directory, 1, free_space=lambda: free[0])
        served.put("a")
        wal = directory / "acid" / "shard_00.db-wal"
        for _ in range(2):
            free[0] = 1 << 40
            assert served.post("a", b"x" * 1_500_000).status == 204
            assert wal.stat().st_size > 1_000_000
            free[0] = 0
            assert served.post("a", b"more").status == 507
            assert wal.stat().st_size == 0
            assert served.storage._maintenance._tight == set()  # type: ignore[attr-defined]

    def test_the_free_space_is_the_file_system_s(self, directory: Path) -> None:
        """Left to itself the store asks the file system, and finds room."""
        store, _ = opened(directory)
        free = store._writer._free_space()
        assert free is not None
        assert free > 0


def no_room(event: LogEvent) -> bool:
    """Whether an event is the line, without a traceback, for upkeep that found no room."""
    return event["log_format"].startswith("no room for upkeep") and "log_failure" not in event


class UpkeepFailureTests:
    def test_a_checkpoint_that_finds_no_room_is_tried_again(self, directory: Path) -> None:
        """A full disk during a checkpoint costs nothing but a longer WAL."""
        disk = FaultyDisk()
        served = engine(directory, 1, connect=disk.connect)
        served.put("a", b"")
        store = served.storage
        assert isinstance(store, AcidStorage)
        store._maintenance._limit = 100
        disk.fail(1, sqlite3.SQLITE_FULL, only="PRAGMA wal_checkpoint")
        with logged(no_room) as events:
            for _ in range(50):
                assert served.post("a", b"w" * 20_000).status == 204
        assert store.failure is None
        assert len(events) == 1
        checkpoints = [sql for sql in disk.log if sql.startswith("PRAGMA wal_checkpoint(PASSIVE)")]
        assert len(checkpoints) > 2
        assert store.problems() == []

    @pytest.mark.parametrize("statement", ["PRAGMA wal_checkpoint", "DELETE FROM chunks", "COMMIT"])
    def test_an_i_o_error_is_final(self, directory: Path, failures: list[str], statement: str) -> None:
        """An I/O error in a checkpoint or a purge ends all writing, and reads go on."""
        disk = FaultyDisk()
        served = engine(directory, 1, connect=disk.connect)
        served.put("a", b"z" * 500_000)
        served.put("b", b"kept")
        store = served.storage
        assert isinstance(store, AcidStorage)
        store._maintenance._limit = 10 if statement.startswith("PRAGMA") else 10_000
        # The first COMMIT is the deletion's own.
        disk.fail(2 if statement == "COMMIT" else 1, sqlite3.SQLITE_IOERR, only=statement)
        assert served.delete("a").status == 204
        assert store.failure is not None
        assert len(failures) == 1
        assert served.post("b", b"more").status == 503
        failures.clear()
        assert served.get("b").body == b"kept"
        now(served.streams.close())
        assert list(contents(engine(directory, 1))) == ["b"]

    def test_a_commit_that_waited_for_it_is_refused(self, directory: Path, failures: list[str]) -> None:
        """A commit that waits for a slice of upkeep which fails isn't begun."""
        disk, threads = FaultyDisk(), HeldRun(held=False)
        served = engine(directory, 1, connect=disk.connect, run=threads)
        served.put("a", b"z" * 500_000)
        served.put("b", b"kept")
        threads.held = True
        served.delete("a")
        threads.step()
        disk.fail(1, sqlite3.SQLITE_IOERR, only="DELETE FROM chunks")
        waiting = served.post("b", b"more")
        threads.step()
        assert waiting.status == 503
        failures.clear()

    def test_a_full_disk_during_a_purge(self, directory: Path) -> None:
        """A purge that finds no room is undone and taken up by the next one."""
        disk = FaultyDisk()
        served = engine(directory, 1, connect=disk.connect)
        served.put("a", b"z" * 500_000)
        served.put("b", b"kept")
        store = served.storage
        assert isinstance(store, AcidStorage)
        disk.fail(1, sqlite3.SQLITE_FULL, only="DELETE FROM chunks")
        with logged(no_room) as events:
            assert served.delete("a").status == 204
        assert store.failure is None
        assert store._maintenance.purging == 1
        assert len(events) == 1
        assert served.delete("b").status == 204
        assert store._maintenance.purging == 0
        assert store.problems() == []


class ReadFailureTests:
    def test_a_read_that_fails(self, directory: Path) -> None:
        """A read that meets an I/O error fails by itself: the next one is answered."""
        disk = FaultyDisk()
        served = engine(directory, 1, connect=disk.connect, recent_bytes=0)
        served.put("a", b"bytes")
        source = served.storage.source(served.streams.find("a"))
        disk.fail(1, sqlite3.SQLITE_IOERR_READ, only="SELECT stream_id")
        with pytest.raises(StorageError, match=r"reading .*shard_00.db"):
            now(source.read(0, 5))
        assert now(source.read(0, 5)) == b"bytes"
        assert served.storage.failure is None


def refused_naming_a_shard(directory: Path, disk: FaultyDisk) -> bool:
    """Whether a start is refused; else the store is closed again."""
    try:
        store, _ = opened(directory, shard_count=2, connect=disk.connect)
    except StorageError as refused:
        return "shard_0" in str(refused) or pytest.fail(str(refused))
    now(store.close())
    return False


class OpeningTests:
    def test_every_statement_of_an_opening(self, directory: Path) -> None:
        """Whichever statement of a start fails, the store is refused with its file named, and left as it was."""
        disk = FaultyDisk()
        served = engine(directory, 2, connect=disk.connect)
        served.put("a", b"one")
        served.fork("fork", "a")
        before = contents(served)
        now(served.streams.close())
        nth = 0
        while True:
            nth += 1
            disk.fail(nth, sqlite3.SQLITE_IOERR)
            if not refused_naming_a_shard(directory, disk):
                break
        assert nth > 20
        disk.nth = 0
        assert contents(engine(directory, 2)) == before

    def test_every_statement_of_a_first_opening(self, tmp_path: Path) -> None:
        """Whichever statement of the first start fails, the next start succeeds."""
        nth = 0
        while True:
            nth += 1
            disk = FaultyDisk()
            directory = tmp_path / str(nth)
            disk.fail(nth, sqlite3.SQLITE_FULL)
            if not refused_naming_a_shard(directory, disk):
                break
            served = engine(directory, 2)
            served.put("a", b"x")
            now(served.streams.close())
            assert list(contents(engine(directory, 2))) == ["a"]
        assert nth > 30


class SyncTests:
    def test_what_is_acknowledged_is_synced(self, directory: Path) -> None:
        """Connections that commit are in WAL mode with full syncs, after upkeep, too."""
        from dstreams.storage.stream_rows import connect

        served = engine(directory, 2, connect=connect)
        served.put("a", b"z" * 100_000)
        served.delete("a")
        store = served.storage
        assert isinstance(store, AcidStorage)
        for shard in store._shards:
            assert shard.database.execute("PRAGMA synchronous").fetchone() == (2,)
            assert shard.database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert shard.database.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
            assert shard.database.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        now(store.close())
