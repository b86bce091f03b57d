"""What the file modes ask of a disk.

Everything that decides about durability goes through here, so that tests can put a disk in its place that
forgets what was not synced, tears what was being written, fills up, or fails.
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
    """An open file. Closed when the last reference to it goes."""

    path: str

    def fileno(self) -> int:
        """The descriptor, or -1 when there is none behind it."""

    def size(self) -> int:
        """Its length in bytes."""

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write at ``offset``; returns how much was written, which may be less."""

    def pwritev(self, pieces: Sequence[Chunk], offset: int) -> int:
        """As :meth:`pwrite`, of several pieces that follow each other."""

    def pread(self, size: int, offset: int) -> bytes:
        """Read at ``offset``; fewer bytes only at the end of the file."""

    def pread_nowait(self, size: int, offset: int) -> bytes | None:
        """As :meth:`pread`, but ``None`` when it would have to wait for the disk."""

    def truncate(self, size: int) -> None:
        """Cut the file."""

    def sync(self) -> None:
        """Make its bytes survive a power loss. An error is final: the same call again would lie."""


class Disk(Protocol):
    """A part of a file system. Paths are as the caller gives them."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File:
        """Open a file; with ``create``, one that doesn't exist yet is made."""

    def make_directories(self, path: str) -> None: ...

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted; empty when there is none."""

    def unlink(self, path: str) -> None:
        """Remove a file. Harmless when there is none."""

    def rename(self, source: str, target: str) -> None:
        """Put a file in the place of another, at once or not at all."""

    def hold_directory(self, path: str) -> None:
        """Keep a directory open, so that it can be synced when the process has no descriptor left."""

    def sync_directory(self, path: str) -> None:
        """Make the entries of a directory survive a power loss."""

    def sync_all(self, path: str) -> None:
        """Make everything written to the file system that holds ``path`` survive a power loss."""

    def free_bytes(self, path: str) -> int:
        """How much room the file system that holds ``path`` has for us."""


def storage_error(error: OSError, doing: str) -> StorageError:
    """An operating system's error as the storage's own.

    :param doing: what was tried, for the log.
    """
    full = error.errno in _FULL
    return (StorageFull if full else StorageError)(f"{doing}: {error}")


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)


def is_passing(error: OSError) -> bool:
    """Whether the same call may succeed later: room, descriptors or memory are short. Else the disk is broken."""
    return error.errno in _FULL or error.errno in _SCARCE


def write_all(file: File, data: bytes, offset: int) -> None:
    """Write all of ``data``; a short write goes on until the system says why.

    :raise OSError:
    """
    written = file.pwrite(data, offset)
    while written < len(data):
        more = file.pwrite(data[written:], offset + written)
        if not more:
            raise OSError(errno.EIO, "the system writes nothing and doesn't say why", file.path)
        written += more


def copy_file(disk: Disk, source: str, target: str) -> None:
    """Copy a file, and make the copy's bytes durable.

    :raise OSError:
    """
    reading, writing = disk.open(source, write=False), disk.open(target, create=True)
    writing.truncate(0)
    size, offset = reading.size(), 0
    while offset < size and (data := reading.pread(min(COPY_BYTES, size - offset), offset)):
        write_all(writing, data, offset)
        offset += len(data)
    writing.sync()


COPY_BYTES = 1024 * 1024
"""How much of a file is copied at a time."""

MAX_PIECES = 1024
"""How many pieces a system takes at a time: IOV_MAX of Linux, macOS and the BSDs."""


def write_pieces(file: File, pieces: Sequence[Chunk], offset: int) -> None:
    """Write pieces that follow each other, without joining them.

    :raise OSError:
    """
    for begin in range(0, len(pieces), MAX_PIECES):
        some = pieces[begin : begin + MAX_PIECES]
        size, written = sum(map(len, some)), file.pwritev(some, offset)
        if written < size:
            write_all(file, b"".join(some)[written:], offset + written)
        offset += size


MAX_OPEN_FILES = 256
"""How many files of streams stay open for the next read."""


def open_files_for(descriptors: int) -> int:
    """How many files of streams may stay open when the process may have so many descriptors."""
    return min(MAX_OPEN_FILES, descriptors // 4)


def open_files_allowed() -> int:
    """The same for this process, as its limit is now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else open_files_for(soft)


_NOWAIT = getattr(os, "RWF_NOWAIT", None) if hasattr(os, "preadv") else None


@define(eq=False)
class OsFile:
    """A file of the operating system (a ``File``)."""

    path: str
    _descriptor: int
    # Cleared when the file system doesn't know it (tmpfs: EOPNOTSUPP).
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
            # A short read is normal, e.g. at a page that isn't there yet; only an empty one is the end.
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
            # RWF_NOWAIT: what is in the page cache, without a thread (2 us against 40 for a thread's round trip).
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

            fcntl.fcntl(self._descriptor, fcntl.F_FULLFSYNC)  # fsync is no barrier there
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
        # Kept open: the kernel reports a write that failed to every descriptor that was open then, but to a new one
        # only if nobody was told before. Another process on this file system may have been.
        self.hold_directory(path)
        _syncfs(self._directories[path])

    def free_bytes(self, path: str) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def __del__(self) -> None:
        for descriptor in self._directories.values():
            os.close(descriptor)


def _syncfs(descriptor: int) -> None:
    """Sync the file system of an open file; the whole machine's where the system can't do one alone."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        os.sync()
    elif function(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
