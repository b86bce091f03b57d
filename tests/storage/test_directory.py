"""A data directory: who may use it, and what it must hold."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from zlib import crc32

import pytest

from dstreams.model.catalog import Catalog
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid.shard import MEMORY, Shard
from dstreams.storage.directory import (
    FORMAT,
    LOCK,
    MANIFEST,
    DirectoryLock,
    check_manifest,
    read_members,
    write_members,
)
from dstreams.storage.disk import OsDisk
from dstreams.storage.files.catalog import CatalogFile
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import StorageError
from dstreams.storage.stream_rows import Connection, connect
from tests.crash.disk import Fault, MachineOff, Mount, Platter
from tests.support.engine import Engine
from tests.transfer.stores import MODES

LAYOUT = {"layout": "files", "format": FORMAT}

HOLDER = """
import sys
from dstreams.storage.directory import DirectoryLock
lock = DirectoryLock()
lock.acquire(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""
"""A process that holds the lock until its input ends."""

OPENER = """
import os, sys
from dstreams.model.catalog import Catalog
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import StorageError
from dstreams.runtime.threads import run_inline
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    FileStorage(sys.argv[1], None, run_inline).open(Catalog(), lambda *_: None)
except StorageError as error:
    print(error)
"""
"""A process without privileges that opens a store and prints why it can't."""


def opened(directory: object) -> FileStorage:
    """A store in a directory of the operating system's."""
    store = FileStorage(str(directory), None, run_inline)
    store.open(Catalog(), lambda *_: None)
    return store


def refusal(directory: object) -> str:
    """Why a store can't be opened: one line."""
    with pytest.raises(StorageError) as caught:
        opened(directory)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the directory."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class LockTests:
    def test_second_process_is_refused(self, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
        """A directory in use is refused; the text names the process that has it and the way out."""
        text = refusal(tmp_path)
        assert f"{tmp_path} is in use by process {holder.pid};" in text
        assert "storage.data_dir of its own" in text

    def test_dead_process_is_no_obstacle(self, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
        """The file that a killed process left behind keeps nobody out."""
        holder.kill()
        holder.wait()
        assert (tmp_path / LOCK).read_text() == f"{holder.pid}\n"
        opened(tmp_path).close()

    def test_released(self, tmp_path: Path) -> None:
        """A store that was closed lets the next one in; so does one that couldn't be opened."""
        opened(tmp_path).close()
        (tmp_path / MANIFEST).write_text('{"layout": "acid"}')
        refusal(tmp_path)
        write_members(OsDisk(), str(tmp_path), MANIFEST, LAYOUT)
        store = opened(tmp_path)
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
        assert f"in use by process {os.getpid()}" in refusal(tmp_path)
        store.close()

    def test_full_disk_is_no_obstacle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The number in the lock file is for people: where there is no room for it, the lock is held all the same."""

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        lock = DirectoryLock()
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            lock.acquire(str(tmp_path))
        with pytest.raises(StorageError, match="in use by process unknown"):
            DirectoryLock().acquire(str(tmp_path))
        lock.release()
        lock.release()

    def test_file_system_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where nothing can be locked, the text says that, and not that somebody else is there."""

        def unsupported(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", unsupported)
        text = refusal(tmp_path)
        assert "can't be locked: No locks available" in text
        assert "in use" not in text


def unprivileged(directory: str) -> str:
    """What a process without privileges is told."""
    command = [sys.executable, "-c", OPENER, directory]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not found.stderr
    assert found.stdout.count("\n") == 1
    return found.stdout


@pytest.fixture
def bare() -> Iterator[Path]:
    """A directory to which everybody finds their way, with whatever permissions a test gives it."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)
        Path(directory).chmod(0o700)


class UnusableDirectoryTests:
    def test_read_only(self, bare: Path) -> None:
        """A directory that may not be written to is refused in one line."""
        bare.chmod(0o555)
        text = unprivileged(str(bare))
        assert f"the data directory {bare} can't be used: Permission denied" in text
        assert "must be a directory that this process may write to" in text

    def test_read_only_store(self, bare: Path) -> None:
        """So is a store that belongs to somebody else."""
        opened(bare).close()
        bare.chmod(0o755)
        if os.getuid():
            (bare / LOCK).chmod(0o400)
        assert "Permission denied" in unprivileged(str(bare))

    def test_not_even_readable(self, bare: Path) -> None:
        """And one that may not be entered."""
        bare.chmod(0o000)
        assert f"the data directory {bare} can't be used: Permission denied" in unprivileged(str(bare))

    def test_directory_that_can_not_be_made(self, bare: Path) -> None:
        """And one that would have to be made where that isn't allowed."""
        bare.chmod(0o555)
        assert f"{bare}/new/er can't be used: Permission denied" in unprivileged(f"{bare}/new/er")

    def test_file_in_its_place(self, tmp_path: Path) -> None:
        """A file is no directory."""
        (tmp_path / "store").write_text("a file")
        assert "can't be used" in refusal(tmp_path / "store")
        assert "can't be used" in refusal(tmp_path / "store" / "below")


def tables(database: Connection) -> str:
    """What tells one schema from another."""
    found = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    return f"{crc32(' '.join(' '.join(sql.split()) for (sql,) in found).encode()):08x}"


class PermissionTests:
    @pytest.mark.parametrize("mode", MODES)
    def test_only_for_the_owner(self, mode: str, tmp_path: Path) -> None:
        """No file of a store can be read by others, whatever the process's umask is."""
        umask = os.umask(0)
        try:
            engine = Engine(storage=MODES[mode](tmp_path / "store"))
            engine.put("s", b"x")
            engine.post("s", b"y")
            made = modes(tmp_path / "store")
            engine.streams.close()
        finally:
            os.umask(umask)
        for found in (made, modes(tmp_path / "store")):
            assert len(found) > 3
            assert {name: oct(bits) for name, bits in found.items() if bits & 0o77} == {}


def modes(directory: Path) -> dict[str, int]:
    """The permissions of everything in a directory, and its own."""
    return {str(path): path.stat().st_mode & 0o777 for path in [directory, *directory.rglob("*")]}


class FormatTests:
    def test_tables(self, tmp_path: Path) -> None:
        """No table changes without a new FORMAT: whoever changes one raises it, and notes the new sums here."""
        shard = Shard(0, MEMORY, connect, 1 << 20, exclusive=True)
        shard.create("store")
        CatalogFile(f"{tmp_path}/catalog.db").close()
        catalog = connect(f"{tmp_path}/catalog.db")
        assert (FORMAT, tables(shard.database), tables(catalog)) == (4, "e8d24aeb", "9188d46f")
        shard.close(clean=False)
        catalog.close()

    @pytest.mark.parametrize("older", range(1, FORMAT))
    def test_older_store(self, tmp_path: Path, older: int) -> None:
        """A store of an older version isn't opened: its first checkpoint would fail."""
        done = opened(tmp_path).close()
        assert done.called
        (tmp_path / MANIFEST).write_text(f'{{"layout":"files","format":{older}}}\n')
        with pytest.raises(StorageError, match=f"the store has format {older}, and this version reads format {FORMAT}"):
            opened(tmp_path)

    def test_how_to_move_an_older_store(self, tmp_path: Path) -> None:
        """The refusal names the two commands that move its streams."""
        (tmp_path / MANIFEST).write_text('{"layout":"files","format":2}\n')
        found = refusal(tmp_path)
        assert "run 'durable-streams export --output streams.json' with the version that made it" in found
        assert "then 'durable-streams import --input streams.json' with this version" in found


class ManifestTests:
    def test_new_store(self, tmp_path: Path) -> None:
        """An empty directory becomes a store; from then on it is one."""
        assert check_manifest(OsDisk(), str(tmp_path), LAYOUT)
        assert not check_manifest(OsDisk(), str(tmp_path), LAYOUT)
        assert read_members(OsDisk(), f"{tmp_path}/{MANIFEST}") == LAYOUT

    @pytest.mark.parametrize(
        ("manifest", "text"),
        [
            ('{"layout": "acid", "format": 1}', "the store has layout 'acid', but 'files' is asked for"),
            ('{"layout": "files", "format": 99}', f"the store has format 99, and this version reads format {FORMAT}."),
            ("{}", "is damaged"),
            (f'{{"layout": "files", "format": {FORMAT}}}', "is damaged: its checksum is wrong"),
            ("", "is damaged"),
            ('{"layout": "fi', "is damaged"),
            ("[]", "is damaged"),
            ("\udcff", "is damaged"),
        ],
    )
    def test_other_store(self, tmp_path: Path, manifest: str, text: str) -> None:
        """A store of another layout or version, or one whose manifest is damaged, is refused."""
        (tmp_path / MANIFEST).write_text(manifest, errors="surrogateescape")
        found = refusal(tmp_path)
        assert f"{tmp_path}/{MANIFEST}" in found
        assert text in found

    def test_foreign_directory(self, tmp_path: Path) -> None:
        """A directory with other things in it is left alone; the text names some of them."""
        for name in ("a", "b", "c", "d"):
            (tmp_path / name).mkdir()
        text = refusal(tmp_path)
        assert f"{tmp_path} has no {MANIFEST} but other files (a, b, c)" in text
        assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "d", LOCK]

    def test_root_of_a_file_system(self, tmp_path: Path) -> None:
        """The directory in which a file system keeps what it has found doesn't count."""
        (tmp_path / "lost+found").mkdir()
        assert check_manifest(OsDisk(), str(tmp_path), LAYOUT)

    @pytest.mark.parametrize("seed", range(10))
    def test_way_to_a_new_store(self, seed: int) -> None:
        """The directories above are synced too, also those that a process made that was killed right after."""
        platter = Platter()
        Mount(platter).make_directories("/a/b/store")
        check_manifest(Mount(platter), "/a/b/store", LAYOUT)
        platter.lose_power(Random(seed))
        assert not check_manifest(Mount(platter), "/a/b/store", LAYOUT)

    @pytest.mark.parametrize("how", ["before", "during", "after"])
    @pytest.mark.parametrize("step", range(1, 9))
    @pytest.mark.parametrize("seed", range(5))
    def test_interrupted(self, how: str, step: int, seed: int) -> None:
        """A crash while the manifest is written leaves a directory that becomes a store at the next start."""
        platter = Platter()
        mount = Mount(platter)
        mount.make_directories("/store")
        mount.crash_at, mount.crash_how = mount.steps + step, how
        try:
            check_manifest(mount, "/store", LAYOUT)
        except MachineOff:
            platter.lose_power(Random(seed))
        Mount(platter).make_directories("/store")
        check_manifest(Mount(platter), "/store", LAYOUT)
        platter.lose_power(Random(seed))
        assert not check_manifest(Mount(platter), "/store", LAYOUT)

    def test_short_write(self) -> None:
        """A write that is short doesn't leave half a manifest."""
        mount = Mount(Platter(), fault=lambda step: Fault(0, 5) if step.kind == "write" else None)
        write_members(mount, "", "x.json", LAYOUT)
        assert read_members(mount, "/x.json") == LAYOUT
