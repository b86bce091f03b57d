"""The operating system's disk, and that the simulated one behaves like it."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstreams.storage.disk import (
    MAX_PIECES,
    Disk,
    OsDisk,
    OsFile,
    is_passing,
    storage_error,
    write_all,
    write_pieces,
)
from dstreams.storage.interface import StorageError, StorageFull
from tests.crash.disk import Fault, Mount, Platter


@pytest.fixture(params=["os", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    """A disk and an empty directory on it."""
    if request.param == "os":
        return OsDisk(), str(tmp_path)
    mount = Mount(Platter())
    mount.make_directories("/tmp/x")
    return mount, "/tmp/x"


class DiskTests:
    """What both disks do alike."""

    def test_bytes(self, place: tuple[Disk, str]) -> None:
        """A file holds what is written at any offset; what lies between is zeros."""
        disk, directory = place
        file = disk.open(f"{directory}/f", create=True)
        assert file.path == f"{directory}/f"
        assert file.size() == 0
        assert file.pwrite(b"later", 10) == 5
        assert file.pwrite(b"first", 0) == 5
        assert file.size() == 15
        assert file.pread(100, 0) == b"first" + bytes(5) + b"later"
        assert file.pread(3, 12) == b"ter"
        assert file.pread(3, 15) == b""
        file.sync()
        again = disk.open(f"{directory}/f", create=True, write=False)
        assert again.pread(5, 10) == b"later"
        assert again.pread_nowait(5, 10) in (b"later", None)
        assert again.pread_nowait(6, 10) is None
        again.sync()

    def test_pieces(self, place: tuple[Disk, str]) -> None:
        """Several pieces are written in a row, at any offset."""
        disk, directory = place
        file = disk.open(f"{directory}/f", create=True)
        assert file.pwritev([b"one", bytearray(b"and"), b"two"], 2) == 9
        assert file.pread(100, 0) == b"\0\0oneandtwo"

    def test_truncate(self, place: tuple[Disk, str]) -> None:
        """A file is cut, or grows by zeros."""
        disk, directory = place
        file = disk.open(f"{directory}/f", create=True)
        file.pwrite(b"0123456789", 0)
        file.truncate(4)
        assert file.pread(100, 0) == b"0123"
        file.truncate(6)
        assert file.pread(100, 0) == b"0123\0\0"

    def test_missing_files(self, place: tuple[Disk, str]) -> None:
        """A missing file can't be opened, but unlinked and listed."""
        disk, directory = place
        with pytest.raises(FileNotFoundError):
            disk.open(f"{directory}/none")
        with pytest.raises(FileNotFoundError):
            disk.open(f"{directory}/none/f", create=True)
        disk.unlink(f"{directory}/none")
        disk.unlink(f"{directory}/none/f")
        assert disk.list(f"{directory}/none") == []
        with pytest.raises(FileNotFoundError):
            disk.sync_directory(f"{directory}/none")
        with pytest.raises(FileNotFoundError):
            disk.rename(f"{directory}/none", f"{directory}/f")

    def test_entries(self, place: tuple[Disk, str]) -> None:
        """Directories and files are listed in order; a rename replaces; an open file outlives its name."""
        disk, directory = place
        disk.make_directories(f"{directory}/b/c")
        disk.make_directories(f"{directory}/b/c")
        for name in ("a", "d"):
            disk.open(f"{directory}/{name}", create=True).pwrite(name.encode(), 0)
        assert disk.list(directory) == ["a", "b", "d"]
        replaced = disk.open(f"{directory}/d")
        disk.rename(f"{directory}/a", f"{directory}/d")
        assert disk.list(directory) == ["b", "d"]
        assert disk.open(f"{directory}/d").pread(9, 0) == b"a"
        assert replaced.pread(9, 0) == b"d"
        disk.unlink(f"{directory}/d")
        disk.sync_directory(directory)
        disk.sync_all(directory)
        assert disk.list(directory) == ["b"]
        disk.open(f"{directory}/file", create=True)
        with pytest.raises(FileExistsError):
            disk.make_directories(f"{directory}/file")


class OsDiskTests:
    def test_files_are_private(self, tmp_path: Path) -> None:
        """Nobody else may read what the store writes."""
        disk = OsDisk()
        disk.make_directories(f"{tmp_path}/new")
        disk.open(f"{tmp_path}/new/f", create=True)
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "new" / "f").stat().st_mode & 0o777 == 0o600

    def test_descriptors_are_closed(self, tmp_path: Path) -> None:
        """A file's descriptor goes with its last reference, the disk's with the disk."""
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        disk = OsDisk()
        file = disk.open(f"{tmp_path}/f", create=True)
        for _ in range(3):
            disk.sync_all(str(tmp_path))
            disk.sync_directory(str(tmp_path))
        assert len(os.listdir("/proc/self/fd")) == before + 2
        del file, disk
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_directories_are_synced_without_a_descriptor_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A directory that is held can be synced when the process may open nothing more."""
        disk = OsDisk()
        disk.hold_directory(str(tmp_path))
        with monkeypatch.context() as short:
            short.delattr(os, "open")
            disk.sync_directory(str(tmp_path))
            disk.sync_all(str(tmp_path))

    def test_sync_of_everything_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error of syncfs is raised, with the system's number."""
        if not hasattr(ctypes.CDLL(None), "syncfs"):
            pytest.skip("this system has no syncfs")

        def broken(descriptor: int) -> int:
            ctypes.set_errno(errno.EIO)
            return -1

        library = type("Library", (), {"syncfs": staticmethod(broken)})
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
        with pytest.raises(OSError, match="Input/output error") as caught:
            OsDisk().sync_all(str(tmp_path))
        assert caught.value.errno == errno.EIO

    def test_system_without_syncfs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where one file system can't be synced alone, all are."""
        synced: list[bool] = []
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
        monkeypatch.setattr(os, "sync", lambda: synced.append(True))
        OsDisk().sync_all(str(tmp_path))
        assert synced == [True]

    def test_short_reads_are_continued(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only the end of the file makes a read short."""
        file = OsDisk().open(f"{tmp_path}/f", create=True)
        file.pwrite(b"0123456789", 0)
        pread = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 3), offset))
        assert file.pread(10, 0) == b"0123456789"
        assert file.pread(20, 5) == b"56789"


class PageCacheTests:
    def nowait(
        self, directory: str, monkeypatch: pytest.MonkeyPatch, preadv: Callable[..., int]
    ) -> tuple[OsFile, list[Any]]:
        """A file of three bytes, and the calls of preadv made for it."""
        calls: list[Any] = []

        def call(*args: Any) -> int:
            calls.append(args)
            return preadv(*args)

        monkeypatch.setattr(os, "preadv", call)
        file = OsDisk().open(f"{directory}/f", create=True)
        file.pwrite(b"abc", 0)
        return file, calls

    @pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system can't read without waiting")
    def test_cold_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A page that isn't in the cache gives nothing, and is asked for again the next time."""

        def cold(*_: object) -> int:
            raise BlockingIOError(errno.EAGAIN, "cold")

        file, calls = self.nowait(str(tmp_path), monkeypatch, cold)
        assert file.pread_nowait(3, 0) is None
        assert file.pread_nowait(3, 0) is None
        assert len(calls) == 2

    @pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system can't read without waiting")
    @pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
    def test_file_system_that_can_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        """A file system that doesn't know the flag isn't asked again."""

        def unknown(*_: object) -> int:
            raise OSError(code, "no")

        file, calls = self.nowait(str(tmp_path), monkeypatch, unknown)
        assert file.pread_nowait(3, 0) is None
        assert file.pread_nowait(3, 0) is None
        assert len(calls) == 1

    @pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system can't read without waiting")
    def test_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An I/O error is not a cold page."""

        def broken(*_: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        file, _ = self.nowait(str(tmp_path), monkeypatch, broken)
        with pytest.raises(OSError, match="Input/output error"):
            file.pread_nowait(3, 0)

    @pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no tmpfs")
    def test_tmpfs(self) -> None:
        """On tmpfs, which older kernels can't read this way, bytes are either there at once or left to a thread."""
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            file = OsDisk().open(f"{directory}/f", create=True)
            file.pwrite(b"abc", 0)
            assert file.pread_nowait(3, 0) in (b"abc", None)
            assert file.pread(3, 0) == b"abc"


class ErrorTests:
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
    def test_full(self, code: int) -> None:
        """A full disk, a used-up quota, and the greatest file size are want of room; that may pass."""
        error = OSError(code, os.strerror(code))
        assert isinstance(storage_error(error, "writing"), StorageFull)
        assert is_passing(error)

    @pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES, errno.EBADF])
    def test_broken(self, code: int) -> None:
        """Everything else is not, and doesn't pass; the text says what was tried."""
        found = storage_error(OSError(code, os.strerror(code)), "writing to x")
        assert type(found) is StorageError
        assert str(found).startswith("writing to x: ")
        assert os.strerror(code) in str(found)
        assert not is_passing(OSError(code, ""))

    def test_short_writes_go_on(self) -> None:
        """``write_all`` writes all, or fails; a system that writes nothing makes no endless loop."""
        mount = Mount(Platter(), fault=lambda step: Fault(0, 2))
        file = mount.open("/f", create=True)
        write_all(file, b"0123456", 3)
        assert file.pread(99, 3) == b"0123456"
        mount.fault = lambda step: Fault(0, 0)
        with pytest.raises(OSError, match="writes nothing"):
            write_all(file, b"0123456", 0)

    @pytest.mark.parametrize("short", [None, 0, 1, 3, 5])
    def test_short_writes_of_pieces_go_on(self, short: int | None) -> None:
        """So does ``write_pieces``, wherever the first write ended."""
        mount = Mount(Platter(), fault=lambda step: Fault(0, short) if step.number == 2 and short is not None else None)
        file = mount.open("/f", create=True)
        write_pieces(file, [b"012", b"34", bytearray(b"56")], 3)
        assert file.pread(99, 3) == b"0123456"

    def test_more_pieces_than_a_system_takes(self, tmp_path: Path) -> None:
        """Pieces are written as many at a time as the system takes."""
        pieces = [b"%d," % number for number in range(MAX_PIECES * 2 + 1)]
        file = OsDisk().open(str(tmp_path / "f"), create=True)
        write_pieces(file, pieces, 0)
        assert file.pread(1 << 20, 0) == b"".join(pieces)

    def test_system_without_pwritev(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where pieces can't be written together they are joined first."""
        monkeypatch.delattr(os, "pwritev", raising=False)
        file = OsDisk().open(str(tmp_path / "f"), create=True)
        write_pieces(file, [b"one", b"two"], 0)
        assert file.pread(99, 0) == b"onetwo"
