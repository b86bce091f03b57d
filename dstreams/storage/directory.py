"""The lock and the manifest of a data directory.

``store.json``, the manifest, contains the layout and the format of the directory. It is written once, when the store is
created. Its member ``crc`` is the CRC-32 of the others. The file ``lock`` is locked while a process uses the store, and
contains the number of that process.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Any, Final
from zlib import crc32

import orjson
from attrs import define, field

from dstreams.storage.disk import Disk, write_all
from dstreams.storage.interface import StorageError

MANIFEST = "store.json"
LOCK = "lock"

FORMAT: Final = 4
"""The format of both layouts; every change of a table or a file increments it.

A store of another format is rejected. Otherwise it might open, and then fail at the first write of a changed row.
"""


def other_format(where: str, found: object) -> StorageError:
    """Return the error for a store whose format this version does not read.

    :param where: the file that contains the format.
    :param found: the format.
    """
    return StorageError(
        f"{where}: the store has format {found!r}, and this version reads format {FORMAT!r}. Move it: run"
        " 'durable-streams export --output streams.json' with the version that made it, then 'durable-streams import"
        " --input streams.json' with this version and a new storage.data_dir"
    )


class DirectoryInUse(StorageError):
    """Another process holds the lock of a data directory.

    :param owner: the number of that process, or "unknown".
    """

    def __init__(self, directory: str, owner: str) -> None:
        super().__init__(
            f"the data directory {directory} is in use by process {owner}; stop it, or give this server a"
            " storage.data_dir of its own"
        )
        self.directory = directory
        self.owner = owner


@define(eq=False)
class DirectoryLock:
    """Prevents other processes from using a data directory, until it is released or the process ends."""

    _descriptor: int = field(default=-1, init=False)

    def acquire(self, directory: str) -> None:
        """Acquire the lock.

        :raise DirectoryInUse: if another process holds it.
        :raise StorageError: if the directory cannot be used.
        """
        path = os.path.join(directory, LOCK)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"the data directory {directory} can't be used: {error.strerror}; storage.data_dir must be a directory"
                " that this process may write to"
            ) from error
        try:
            _lock(descriptor, fcntl.LOCK_EX, directory)
        except OSError as error:
            raise StorageError(
                f"the data directory {directory} can't be locked: {error.strerror}; storage.data_dir must be on a file"
                " system that has flock"
            ) from error
        self._descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass  # for example a full disk; the number is only for error messages, the lock works without it

    def acquire_to_read(self, directory: str) -> None:
        """Acquire a shared lock, which excludes servers but not other readers, because nothing is written.

        If there is no lock file, as in a copy, or this process may not open it, the directory is read without a lock.

        :raise DirectoryInUse: if a server holds the lock.
        """
        try:
            descriptor = os.open(os.path.join(directory, LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            _lock(descriptor, fcntl.LOCK_SH, directory)
        except OSError:
            return
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _lock(descriptor: int, kind: int, directory: str) -> None:
    """Lock the lock file of a data directory, without waiting. If that fails, close the descriptor.

    :param kind: ``LOCK_EX`` or ``LOCK_SH``.
    :raise DirectoryInUse: if another process holds a lock that excludes this one.
    :raise OSError: if the file cannot be locked.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise DirectoryInUse(directory, owner or "unknown") from error
    except OSError:
        os.close(descriptor)
        raise


def check_idle(directory: str) -> None:
    """Check that no server uses a directory at the moment. A directory without a lock file passes.

    :raise DirectoryInUse: if a server uses it.
    :raise StorageError: if the directory cannot be used.
    """
    if os.path.exists(os.path.join(directory, LOCK)):
        lock = DirectoryLock()
        lock.acquire(directory)
        lock.release()


def check_manifest(disk: Disk, directory: str, expected: dict[str, Any]) -> bool:
    """Check that a directory holds the expected store; create that store if the directory is empty.

    :param expected: the members of ``store.json``; all must agree.
    :return: whether the store is new.
    :raise StorageError: if it holds another store or other files; the text names the difference.
    """
    path = f"{directory}/{MANIFEST}"
    if MANIFEST in disk.list(directory):
        _compare(path, read_members(disk, path), expected)
        return False
    others = [name for name in disk.list(directory) if name not in (LOCK, MANIFEST + ".new", "lost+found")]
    if others:
        raise StorageError(
            f"{directory} has no {MANIFEST} but other files ({', '.join(others[:3])}); storage.data_dir must be"
            " empty, or a store of this server"
        )
    _sync_way(disk, directory)
    write_members(disk, directory, MANIFEST, expected)
    return True


def read_manifest(disk: Disk, directory: str) -> dict[str, Any]:
    """Return the members of a directory's ``store.json``, which describe its store.

    :raise StorageError: if the directory holds no store or one of another format, or the file is damaged.
    """
    if MANIFEST not in disk.list(directory):
        raise StorageError(f"{directory} is not a data directory: it has no {MANIFEST}")
    path = f"{directory}/{MANIFEST}"
    found = read_members(disk, path)
    if found.get("format") != FORMAT:
        raise other_format(path, found.get("format"))
    return found


def _sync_way(disk: Disk, directory: str) -> None:
    """Sync all directories above a directory, so that the directory itself survives a power loss."""
    above = os.path.abspath(directory)
    while above != os.path.dirname(above):
        above = os.path.dirname(above)
        with suppress(PermissionError):  # a directory that this process may not read was not created by it
            disk.sync_directory(above)


def write_members(disk: Disk, directory: str, name: str, members: dict[str, Any]) -> None:
    """Write a small JSON file with a checksum, durably. After a crash the file is complete or does not exist."""
    path = f"{directory}/{name}"
    new = disk.open(path + ".new", create=True)
    new.truncate(0)
    write_all(new, orjson.dumps(members | {"crc": _checksum(members)}) + b"\n", 0)
    new.sync()
    disk.rename(path + ".new", path)
    disk.sync_directory(directory)


def read_members(disk: Disk, path: str) -> dict[str, Any]:
    """Return the members that :func:`write_members` wrote.

    :raise StorageError: if the file is damaged.
    """
    file = disk.open(path, write=False)
    try:
        found = orjson.loads(file.pread(file.size(), 0))
    except orjson.JSONDecodeError as error:
        raise StorageError(f"{path} is damaged: {error}; restore it from a backup") from None
    if not isinstance(found, dict):
        raise StorageError(f"{path} is damaged: it holds no object; restore it from a backup")
    checksum = found.pop("crc", None)
    # Formats 1 and 2 had no checksum. The caller reports them as other formats, not as damage.
    other = checksum is None and found.get("format", FORMAT) != FORMAT
    if checksum != _checksum(found) and not other:
        raise StorageError(f"{path} is damaged: its checksum is wrong; restore it from a backup")
    return found


def _checksum(members: dict[str, Any]) -> int:
    return crc32(orjson.dumps(members, option=orjson.OPT_SORT_KEYS))


def _compare(path: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for member, value in expected.items():
        if found.get(member) != value and member == "format":
            raise other_format(path, found.get(member))
        if found.get(member) != value:
            raise StorageError(
                f"{path}: the store has {member} {found.get(member)!r}, but {value!r} is asked for; change the"
                " configuration, or export the store and import it into a new one"
            )
