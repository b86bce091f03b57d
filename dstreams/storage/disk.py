"""The file system operations that the storage uses.

Every operation on which durability depends goes through this module. Tests replace it with a disk that loses unsynced
writes, tears writes in progress, fills up, or fails.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from attrs import define, field

from dstreams.storage.interface import StorageError, StorageFull
from dstreams.storage.pieces import Chunk


class File(Protocol):
    """An open file. It is closed when the last reference to it is dropped."""

    path: str

    def fileno(self) -> int:
        """Return the descriptor, or -1 if the file has none."""

    def size(self) -> int:
        """Return the length in bytes."""

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write at ``offset`` and return the number of bytes written, which may be less than the length of ``data``."""

    def pwritev(self, pieces: Sequence[Chunk], offset: int) -> int:
        """Write several consecutive pieces; otherwise as :meth:`pwrite`."""

    def pread(self, size: int, offset: int) -> bytes:
        """Read at ``offset``. Fewer bytes than ``size`` are returned only at the end of the file."""

    def pread_nowait(self, size: int, offset: int) -> bytes | None:
        """Read as :meth:`pread` does, but return ``None`` if that would have to wait for the disk."""

    def truncate(self, size: int) -> None:
        """Set the length of the file."""

    def sync(self) -> None:
        """Make the bytes survive a power loss.

        An error is final: a second call may succeed although the bytes are lost.
        """


class Disk(Protocol):
    """A part of a file system. Paths are used as passed."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File:
        """Open a file; with ``create``, create it if it does not exist."""

    def make_directories(self, path: str) -> None: ...

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none if the directory does not exist."""

    def unlink(self, path: str) -> None:
        """Remove a file, if it exists."""

    def rename(self, source: str, target: str) -> None:
        """Rename a file atomically, replacing any file of the new name."""

    def hold_directory(self, path: str) -> None:
        """Keep a directory open, so that it can be synced even if the process has no descriptor left."""

    def sync_directory(self, path: str) -> None:
        """Make the entries of a directory survive a power loss."""

    def sync_all(self, path: str) -> None:
        """Make everything written to the file system that holds ``path`` survive a power loss."""

    def free_bytes(self, path: str) -> int:
        """Return the number of free bytes, for this process, in the file system that holds ``path``."""


def storage_error(error: OSError, doing: str) -> StorageError:
    """Convert an error of the operating system to a :class:`StorageError`.

    :param doing: the attempted operation, for the log.
    """
    full = error.errno in _FULL
    return (StorageFull if full else StorageError)(f"{doing}: {error}")


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)


def is_passing(error: OSError) -> bool:
    """Whether the same call may succeed later, because space, descriptors or memory are short. Else the disk failed."""
    return error.errno in _FULL or error.errno in _SCARCE


def write_all(file: File, data: bytes, offset: int) -> None:
    """Write all of ``data``. After a short write, continue until all is written or the system reports an error.

    :raise OSError: if the data cannot be written.
    """
    written = file.pwrite(data, offset)
    while written < len(data):
        more = file.pwrite(data[written:], offset + written)
        if not more:
            raise OSError(errno.EIO, "the system writes nothing and doesn't say why", file.path)
        written += more


def copy_file(disk: Disk, source: str, target: str) -> None:
    """Copy a file, and make the bytes of the copy durable.

    :raise OSError: if that fails.
    """
    reading, writing = disk.open(source, write=False), disk.open(target, create=True)
    writing.truncate(0)
    size, offset = reading.size(), 0
    while offset < size and (data := reading.pread(min(COPY_BYTES, size - offset), offset)):
        write_all(writing, data, offset)
        offset += len(data)
    writing.sync()


COPY_BYTES = 1024 * 1024
"""Maximum number of bytes that are copied at a time."""

MAX_PIECES = 1024
"""Maximum number of pieces in one system call: IOV_MAX of Linux, macOS and the BSDs."""


def write_pieces(file: File, pieces: Sequence[Chunk], offset: int) -> None:
    """Write consecutive pieces without joining them.

    :raise OSError: if they cannot be written.
    """
    for begin in range(0, len(pieces), MAX_PIECES):
        some = pieces[begin : begin + MAX_PIECES]
        size, written = sum(map(len, some)), file.pwritev(some, offset)
        if written < size:
            write_all(file, b"".join(some)[written:], offset + written)
        offset += size


MAX_OPEN_FILES = 256
"""Maximum number of stream files that stay open for the next read."""


def open_files_for(descriptors: int) -> int:
    """Return how many stream files may stay open.

    :param descriptors: maximum number of descriptors of the process.
    """
    return min(MAX_OPEN_FILES, descriptors // 4)


def open_files_allowed() -> int:
    """Return how many stream files may stay open under the current descriptor limit of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else open_files_for(soft)


_NOWAIT = getattr(os, "RWF_NOWAIT", None) if hasattr(os, "preadv") else None


@define(eq=False)
class OsFile:
    """A file of the operating system (a ``File``)."""

    path: str
    _descriptor: int
    # None if the file system does not support the flag (tmpfs: EOPNOTSUPP).
    _nowait: int | None = field(default=_NOWAIT, init=False)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        return self._descriptor

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def pwrite(self, data: bytes, offset: int) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def pwritev(self, pieces: Sequence[Chunk], offset: int) -> int:
        if not hasattr(os, "pwritev"):  # macOS before 11
            return os.pwrite(self._descriptor, b"".join(pieces), offset)
        return os.pwritev(self._descriptor, pieces, offset)

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        while 0 < len(data) < size:
            # A short read is normal, for example at a page that is not cached yet. Only an empty one is the end.
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def pread_nowait(self, size: int, offset: int) -> bytes | None:
        if self._nowait is None:
            return None
        buffer = bytearray(size)
        try:
            # RWF_NOWAIT reads only the page cache, without a thread (2 us, against 40 for a thread's round trip).
            got = os.preadv(self._descriptor, [buffer], offset, self._nowait)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                self._nowait = None
                return None
            raise
        return bytes(buffer) if got == size else None

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(self._descriptor, fcntl.F_FULLFSYNC)  # fsync does not flush the drive's cache on macOS
        else:
            os.fdatasync(self._descriptor)


class OsDisk:
    """The operating system's file system (a ``Disk``)."""

    def __init__(self) -> None:
        self._directories: dict[str, int] = {}

    def open(self, path: str, *, create: bool = False, write: bool = True) -> OsFile:
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        return OsFile(path, os.open(path, flags | (os.O_CREAT if create else 0), 0o600))

    def make_directories(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)

    def list(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def unlink(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def hold_directory(self, path: str) -> None:
        if path not in self._directories:
            self._directories[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def sync_directory(self, path: str) -> None:
        held = self._directories.get(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if held is None else held
        try:
            os.fsync(descriptor)
        finally:
            if held is None:
                os.close(descriptor)

    def sync_all(self, path: str) -> None:
        # The directory stays open. The kernel reports a failed write to every descriptor that was open at the time, but
        # to a new descriptor only if the error has not been reported before, perhaps to another process.
        self.hold_directory(path)
        _syncfs(self._directories[path])

    def free_bytes(self, path: str) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def __del__(self) -> None:
        for descriptor in self._directories.values():
            os.close(descriptor)


def _syncfs(descriptor: int) -> None:
    """Sync the file system of an open file; all file systems if the operating system cannot sync a single one."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        os.sync()
    elif function(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
