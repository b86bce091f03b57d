"""A data directory: whose it is, and what is in it.

``store.json`` says which layout and format the directory has; it is written once, when the store is made. Its member
``crc`` is the CRC-32 of the others. ``lock`` is held as long as a process uses the store and names that process.
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
"""The format of both layouts: whatever changes in a table or in a file, it goes up. A store of another one is refused,
since it might open and fail at the first write of a row that has changed."""


def other_format(where: str, found: object) -> StorageError:
    """The error for a store whose format this version doesn't read.

    :param where: the file that says so.
    :param found: its format.
    """
    return StorageError(
        f"{where}: the store has format {found!r}, and this version reads format {FORMAT!r}. Move it: run"
        " 'durable-streams export --output streams.json' with the version that made it, then 'durable-streams import"
        " --input streams.json' with this version and a new storage.data_dir"
    )


class DirectoryInUse(StorageError):
    """Another process holds a data directory's lock.

    :param owner: that process, as far as it is known.
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
    """Keeps other processes out of a data directory, until it is released or the process ends."""

    _descriptor: int = field(default=-1, init=False)

    def acquire(self, directory: str) -> None:
        """Take the lock.

        :raise DirectoryInUse: when another process has it.
        :raise StorageError: when the directory can't be used.
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
            pass  # a full disk: the number is for people, the lock doesn't need it

    def acquire_to_read(self, directory: str) -> None:
        """Keep servers out as long as the directory is read; nothing is written, so others may read it as well.

        A copy that has no lock file, or one where this process may not open it, is read without.

        :raise DirectoryInUse: when a server has the lock.
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
        """Let others in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _lock(descriptor: int, kind: int, directory: str) -> None:
    """Lock a data directory's lock file, without waiting; the descriptor is closed if that fails.

    :param kind: ``LOCK_EX`` or ``LOCK_SH``.
    :raise DirectoryInUse: when another process has a lock that excludes this one.
    :raise OSError: when the file can't be locked.
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
    """See that no server uses a directory now; one that isn't there is used by none.

    :raise DirectoryInUse:
    :raise StorageError: when the directory can't be used.
    """
    if os.path.exists(os.path.join(directory, LOCK)):
        lock = DirectoryLock()
        lock.acquire(directory)
        lock.release()


def check_manifest(disk: Disk, directory: str, expected: dict[str, Any]) -> bool:
    """See that a directory holds the store that is asked for; make it one when it is empty.

    :param expected: the members of ``store.json``; all must agree.
    :return: whether the store is new.
    :raise StorageError: when it is another one; the text names the difference.
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
    """What kind of store a directory holds: the members of its ``store.json``.

    :raise StorageError: when it holds none, one of another format, or the file is damaged.
    """
    if MANIFEST not in disk.list(directory):
        raise StorageError(f"{directory} is not a data directory: it has no {MANIFEST}")
    path = f"{directory}/{MANIFEST}"
    found = read_members(disk, path)
    if found.get("format") != FORMAT:
        raise other_format(path, found.get("format"))
    return found


def _sync_way(disk: Disk, directory: str) -> None:
    """Make sure that a power loss doesn't take the directory itself, whoever has made it and those above it."""
    above = os.path.abspath(directory)
    while above != os.path.dirname(above):
        above = os.path.dirname(above)
        with suppress(PermissionError):  # one that may not even be read wasn't made by us
            disk.sync_directory(above)


def write_members(disk: Disk, directory: str, name: str, members: dict[str, Any]) -> None:
    """Write a small JSON file with a checksum, durably: after a crash it is there as a whole or not at all."""
    path = f"{directory}/{name}"
    new = disk.open(path + ".new", create=True)
    new.truncate(0)
    write_all(new, orjson.dumps(members | {"crc": _checksum(members)}) + b"\n", 0)
    new.sync()
    disk.rename(path + ".new", path)
    disk.sync_directory(directory)


def read_members(disk: Disk, path: str) -> dict[str, Any]:
    """What :func:`write_members` wrote.

    :raise StorageError: when the file is damaged.
    """
    file = disk.open(path, write=False)
    try:
        found = orjson.loads(file.pread(file.size(), 0))
    except orjson.JSONDecodeError as error:
        raise StorageError(f"{path} is damaged: {error}; restore it from a backup") from None
    if not isinstance(found, dict):
        raise StorageError(f"{path} is damaged: it holds no object; restore it from a backup")
    checksum = found.pop("crc", None)
    # Other formats are reported as such; formats 1 and 2 had no checksum.
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
