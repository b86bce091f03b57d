"""``durable-streams check`` on stores that are whole, damaged, in use, or none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dstreams.cli import main
from dstreams.protocol.content_types import DEFAULT
from dstreams.runtime.threads import run_inline
from dstreams.runtime.timers import TimerWheel
from dstreams.storage.acid import AcidStorage
from dstreams.storage.directory import DirectoryLock
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import Storage, StorageError
from dstreams.storage.sync import ThreadSyncer
from dstreams.streams.appending import AppendRequest
from dstreams.streams.creating import CreateRequest
from dstreams.streams.streams import Streams

APPENDS = 10


def open_store(storage: Storage) -> Streams:
    """The engine over a store."""
    streams = Streams(storage, TimerWheel(Clock()))
    streams.open()
    return streams


def file_store(directory: Path, checkpoint_bytes: int = 1 << 20) -> FileStorage:
    """A durable store whose syncs happen at once."""
    return FileStorage(str(directory), lambda: ThreadSyncer(run_inline), run_inline, checkpoint_bytes)


def fill(streams: Streams) -> None:
    """A stream of a hundred bytes in ten appends."""
    streams.create(CreateRequest("s", DEFAULT, None, None, False, None, 0, b""))
    for _ in range(APPENDS):
        append(streams)


def append(streams: Streams) -> None:
    """Ten bytes more."""
    streams.append("s", AppendRequest(b"application/octet-stream", False, None, None), b"0123456789")


def open_and_close(directory: Path) -> int:
    """Start and stop a server; how many bytes the stream has."""
    streams = open_store(file_store(directory, 4096))
    tail = streams.find("s").tail
    streams.close()
    return tail


def kill(streams: Streams, storage: FileStorage) -> None:
    """Leave a store as a killed process does: nothing is closed but what the system closes."""
    assert storage._lock is not None
    storage._lock.release()
    storage._checkpoints.close()


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A store that was killed with everything in its journal."""
    storage = file_store(tmp_path / "store")
    streams = open_store(storage)
    fill(streams)
    kill(streams, storage)
    return tmp_path / "store"


class CheckTests:
    """What an operator sees."""

    def test_whole(self, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A store that a crash left is whole, and says how much it holds."""
        assert main(["check", str(killed)]) == 0
        assert "1 stream(s), 100 bytes, 11 batch(es) in the journal: no problems" in capsys.readouterr().out

    def test_checkpointed(self, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The same holds when everything is in the data files."""
        streams = open_store(file_store(killed))
        streams.close()
        assert main(["check", str(killed)]) == 0
        assert "1 stream(s), 100 bytes, 0 batch(es)" in capsys.readouterr().out

    def test_acid(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Shards are checked too."""
        streams = open_store(AcidStorage(str(tmp_path / "store"), 2, run_inline))
        fill(streams)
        streams.close()
        assert main(["check", str(tmp_path / "store")]) == 0
        assert "1 stream(s), 100 bytes" in capsys.readouterr().out

    def test_short_data_file(self, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A data file that has lost its end is named."""
        open_store(file_store(killed)).close()
        data = next(killed.glob("data/*/*.data"))
        data.write_bytes(data.read_bytes()[:-1])
        assert main(["check", str(killed)]) == 1
        assert f"stream 's': {data}: the bytes from position 0 to 100 are damaged or missing" in capsys.readouterr().out

    def test_index_out_of_order(self, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """An index whose entries have changed is found."""
        open_store(file_store(killed)).close()
        index = next(killed.glob("data/*/*.index"))
        entries = bytearray(index.read_bytes())
        entries[0:8], entries[8:16] = entries[8:16], entries[0:8]
        index.write_bytes(entries)
        assert main(["check", str(killed)]) == 1
        assert f"{index}: the entries of the messages from number 0 to 10 are damaged" in capsys.readouterr().out

    def test_in_use(self, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A store that a server uses isn't touched."""
        lock = DirectoryLock()
        lock.acquire(str(killed))
        try:
            assert main(["check", str(killed)]) == 1
        finally:
            lock.release()
        assert "in use by process" in capsys.readouterr().err

    def test_no_store(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Any other directory is refused, and not made one."""
        assert main(["check", str(tmp_path)]) == 1
        assert "is not a data directory" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


class RecycledSegmentTests:
    """A store whose newest segment is written over an older one."""

    @pytest.fixture
    def recycled(self, tmp_path: Path) -> Path:
        """A store that was killed with ten appends in a segment that was recycled, and a spare behind it."""
        storage = FileStorage(
            str(tmp_path / "store"), lambda: ThreadSyncer(run_inline), run_inline, 4096, spare_after=1000
        )
        streams = open_store(storage)
        fill(streams)
        while storage._checkpoints.count < 3:
            append(streams)
        before = streams.find("s").tail
        while streams.find("s").tail < before + 100:
            append(streams)
        segment = Path(storage._journal.file.path)
        assert segment.read_bytes().count(b"DSB1") > 20
        assert (tmp_path / "store" / "journal" / "spare").exists()
        kill(streams, storage)
        return tmp_path / "store"

    def test_whole(self, recycled: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What an older life has left behind the log's end, and the spare, are no problems."""
        assert main(["check", str(recycled)]) == 0
        assert "no problems" in capsys.readouterr().out

    def test_damage(self, recycled: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Damage before the log's end is found, and repaired: what precedes it is there, the rest is kept aside."""
        tail = open_and_close(recycled)
        streams = open_store(storage := file_store(recycled, 4096))
        for _ in range(6):
            append(streams)
        kill(streams, storage)
        newest = max(recycled.glob("journal/*.log"))
        data = bytearray(newest.read_bytes())
        begin = 0
        for _ in range(4):
            begin = data.index(b"0123456789", begin + 1)
        data[begin] ^= 1
        newest.write_bytes(data)
        assert main(["check", str(recycled)]) == 1
        assert "is missing or invalid, but batch" in capsys.readouterr().out
        main(["check", str(recycled), "--repair", "--yes"])
        assert main(["check", str(recycled)]) == 0
        assert tail < open_and_close(recycled) < tail + 60


class RepairTests:
    """A journal that is damaged in the middle."""

    @pytest.fixture
    def damaged(self, killed: Path) -> Path:
        """A store with one flipped bit in the sixth append."""
        segment = next(killed.glob("journal/*.log"))
        data = bytearray(segment.read_bytes())
        begin = -1
        for _ in range(7):
            begin = data.index(b"0123456789", begin + 1)
        data[begin] ^= 1
        segment.write_bytes(data)
        return killed

    def test_refuses_to_start(self, damaged: Path) -> None:
        """The server doesn't start, and says which file, where, and what to do."""
        storage = file_store(damaged)
        with pytest.raises(StorageError, match=r"journal/.*\.log: batch 7 at byte .* check --repair"):
            open_store(storage)

    def test_says_what_it_would_drop(self, damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Without --yes a repair only says what it would give up."""
        before = {path: path.read_bytes() for path in damaged.glob("journal/*")}
        assert main(["check", str(damaged), "--repair"]) == 1
        said = capsys.readouterr().out
        assert "everything that was stored from batch 7 on" in said
        assert "nothing was changed" in said
        assert {path: path.read_bytes() for path in damaged.glob("journal/*")} == before

    def test_repairs(self, damaged: Path) -> None:
        """With --yes the store opens with what precedes the damage, and the rest is kept aside."""
        main(["check", str(damaged), "--repair", "--yes"])
        assert main(["check", str(damaged)]) == 0
        assert list(damaged.glob("journal/*.damaged"))
        streams = open_store(file_store(damaged))
        assert streams.find("s").tail == 60
        streams.close()

    def test_what_is_kept_aside_stays(self, killed: Path) -> None:
        """Later segments that a repair has renamed are still there after the next starts."""
        streams = open_store(storage := file_store(killed))
        storage._journal.begin_segment()
        append(streams)
        kill(streams, storage)
        *_, damaged, newest = sorted(killed.glob("journal/*.log"))
        damaged.write_bytes(damaged.read_bytes()[:-12])
        main(["check", str(killed), "--repair", "--yes"])
        aside = sorted(killed.glob("journal/*.damaged"))
        assert newest.with_name(newest.name + ".damaged") in aside
        for _ in range(2):
            open_and_close(killed)
        assert sorted(killed.glob("journal/*.damaged")) == aside


class LostCatalogTests:
    """A store whose catalog holds nothing any more."""

    @pytest.mark.parametrize("size", [None, 0, 1])
    def test_it_is_said(self, size: int | None, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A check and a start say what is true, and no repair is offered: it would give up everything."""
        open_store(file_store(killed)).close()
        catalog = killed / "catalog.db"
        if size is None:
            catalog.unlink()
        else:
            catalog.write_bytes(catalog.read_bytes()[:size])
        assert main(["check", str(killed), "--repair"]) == 1
        output = capsys.readouterr().out
        assert "catalog.db is empty or new, though a checkpoint was taken" in output
        assert "restore the data directory from a backup" in output
        assert "repair" not in output
        with pytest.raises(StorageError, match=r"catalog\.db is empty or new, though a checkpoint was taken"):
            open_store(file_store(killed))

    def test_no_journal_either(self, killed: Path) -> None:
        """Data files alone aren't taken for an empty store."""
        open_store(file_store(killed)).close()
        (killed / "catalog.db").unlink()
        shutil.rmtree(killed / "journal")
        with pytest.raises(StorageError, match=r"catalog\.db is empty or new"):
            open_store(file_store(killed))

    def test_before_the_first_checkpoint(self, killed: Path) -> None:
        """Without a checkpoint the journal has everything: an empty catalog is right."""
        (killed / "catalog.db").write_bytes(b"")
        (killed / "catalog.db-wal").unlink(missing_ok=True)
        assert main(["check", str(killed)]) == 0
        streams = open_store(file_store(killed))
        assert streams.find("s").tail == 100
        streams.close()


class UnchangedTests:
    """A check writes nothing, so that it can read a copy that is read-only, or a snapshot."""

    @pytest.mark.parametrize("mode", ["files", "acid"])
    def test_nothing_is_written(self, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Neither a lock, nor into a WAL that a killed process has left, nor a file beside it."""
        storage: Storage = (
            AcidStorage(str(tmp_path / "live"), 2, run_inline, parallel=1)
            if mode == "acid"
            else file_store(tmp_path / "live")
        )
        streams = open_store(storage)
        fill(streams)
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "live", copy, ignore=shutil.ignore_patterns("lock"))
        streams.close()
        before = tree(copy)
        assert main(["check", str(copy)]) == 0
        assert "1 stream(s), 100 bytes" in capsys.readouterr().out
        assert tree(copy) == before

    def test_copy_of_a_store_in_use(self, tmp_path: Path) -> None:
        """A copy that has the lock file is nobody's; the store itself is in use."""
        streams = open_store(file_store(tmp_path / "live"))
        fill(streams)
        shutil.copytree(tmp_path / "live", tmp_path / "copy")
        assert main(["check", str(tmp_path / "copy")]) == 0
        assert main(["check", str(tmp_path / "live")]) == 1
        streams.close()

    @pytest.mark.parametrize("content", [b'{"layout":"acid","format":2}', b'{"layout":"acid"}', b"[]", b"", b"\xff"])
    def test_manifest(self, content: bytes, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Whatever a manifest says, a check says what is wrong with it."""
        (killed / "store.json").write_bytes(content)
        assert main(["check", str(killed)]) == 1
        captured = capsys.readouterr()
        assert "store.json" in captured.out + captured.err

    @pytest.mark.parametrize("size", [99, 4096, 9000])
    def test_short_catalog(self, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A catalog that ends too early is a problem, not a traceback."""
        storage = file_store(tmp_path / "store", 4096)
        streams = open_store(storage)
        fill(streams)
        streams.close()
        catalog = tmp_path / "store/catalog.db"
        catalog.write_bytes(catalog.read_bytes()[:size])
        assert main(["check", str(tmp_path / "store")]) == 1
        output = capsys.readouterr().out
        assert "catalog.db" in output, output


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """All files, with their time of change and content."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }
