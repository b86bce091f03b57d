"""SQLite on the simulated disk: a VFS for apsw, so that the catalog's un-synced pages are lost and torn too.

It promises to SQLite what its own unix VFS promises and no more: a write doesn't harm the bytes beside it. Like that
one, it syncs the directory at a journal's or WAL's first sync, and after a deletion when SQLite asks for it.
"""

from __future__ import annotations

import errno
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from sqlite3 import OperationalError
from typing import Any

import apsw
from attrs import define, field

from tests.crash.disk import Inode, MachineOff, Mount, SimFile

_numbers = itertools.count()

_JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL


class SimVfs(apsw.VFS):
    """The VFS of one mount."""

    def __init__(self, mount: Mount) -> None:
        self.name = f"simulated-{next(_numbers)}"
        self._mount = mount
        self.muted = False
        super().__init__(self.name, base="", maxpathname=256)

    def excepthook(self, *_: object) -> bool:
        """An error that SQLite has no use for, such as one while it cleans up after another."""
        return True

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802
        """Open a file; at a journal's first sync, its directory is synced too."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        assert path is not None, "a temporary file"
        flags[1] = flags[0]
        try:
            self._mount.check_on()
            file = self._mount.open(path, create=bool(flags[0] & apsw.SQLITE_OPEN_CREATE))
        except OSError as error:
            raise _as_sqlite(error, apsw.SQLITE_CANTOPEN) from None
        synced_with_it = path.rpartition("/")[0] if flags[0] & _JOURNALS else None
        return _VfsFile(self, self._mount, file, synced_with_it)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        """Whether the file exists; an empty one counts as missing, as in the unix VFS."""
        node = self._mount.find(pathname)
        return isinstance(node, Inode) and (flags != apsw.SQLITE_ACCESS_EXISTS or bool(node.current))

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Remove a file."""
        if self.muted:
            return
        if self._mount.find(filename) is None:
            raise _with_code(apsw.IOError("no such file"), apsw.SQLITE_IOERR_DELETE_NOENT)
        try:
            self._mount.unlink(filename)
            if syncdir:
                self._mount.sync_directory(filename.rpartition("/")[0])
        except OSError as failure:
            raise _as_sqlite(failure, apsw.SQLITE_IOERR_DELETE) from None

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        """Paths are absolute already."""
        return name

    def xRandomness(self, numbytes: int) -> bytes:  # noqa: N802
        """The same in every run."""
        return bytes(index * 37 % 256 for index in range(numbytes))

    def xSleep(self, microseconds: int) -> int:  # noqa: N802
        """Nobody else has the database."""
        return microseconds

    def xCurrentTimeInt64(self) -> int:  # noqa: N802
        """A day in the past."""
        return 212_000_000_000_000

    def xGetLastError(self) -> tuple[int, str | None]:  # noqa: N802
        """Nothing more to tell."""
        return 0, None


class _VfsFile:
    """An open file, as apsw wants it."""

    def __init__(self, vfs: SimVfs, mount: Mount, file: SimFile, synced_with_it: str | None) -> None:
        self._vfs = vfs
        self._mount = mount
        self._file = file
        self._folder = synced_with_it

    def excepthook(self, *_: object) -> bool:
        """As in the VFS."""
        return True

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        if self._vfs.muted:
            return b""
        try:
            return self._file.pread(amount, offset)
        except OSError as error:
            raise _as_sqlite(error, apsw.SQLITE_IOERR_READ) from None

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if self._vfs.muted:
            return
        data = bytes(data)
        try:
            written = 0
            while written < len(data):
                written += self._file.pwrite(data[written:], offset + written)
        except OSError as error:
            raise _as_sqlite(error, apsw.SQLITE_IOERR_WRITE) from None

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        if self._vfs.muted:
            return
        try:
            self._file.truncate(newsize)
        except OSError as error:
            raise _as_sqlite(error, apsw.SQLITE_IOERR_TRUNCATE) from None

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._vfs.muted:
            return
        assert flags & (apsw.SQLITE_SYNC_NORMAL | apsw.SQLITE_SYNC_FULL)
        try:
            self._file.sync()
            if self._folder is not None:
                self._mount.sync_directory(self._folder)
                self._folder = None
        except OSError as error:
            raise _as_sqlite(error, apsw.SQLITE_IOERR_FSYNC) from None

    def xFileSize(self) -> int:  # noqa: N802
        if self._vfs.muted:
            return 0
        try:
            return self._file.size()
        except OSError as error:
            raise _as_sqlite(error, apsw.SQLITE_IOERR_FSTAT) from None

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xClose(self) -> None:  # noqa: N802
        pass


@define(eq=False)
class SimConnection:
    """A connection to a database on a mount (a ``catalog_file.Connection``); errors are sqlite3's."""

    _mount: Mount
    _path: str
    _vfs: SimVfs = field(init=False)
    _connection: apsw.Connection | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._vfs = SimVfs(self._mount)
        try:
            with quiet():
                self._connection = apsw.Connection(self._path, vfs=self._vfs.name)
                # A WAL without shared memory, which a VFS in Python can't have. What is written is the same.
                self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        except apsw.Error as error:
            self.close()
            raise _as_sqlite3(error) from None

    def __del__(self) -> None:
        """Close what a killed process left open. SQLite would write when it is collected, perhaps in another test."""
        self.close()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        try:
            with quiet():
                return self._connection.execute(sql, tuple(parameters))
        except apsw.Error as error:
            raise _as_sqlite3(error) from None

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any:
        try:
            with quiet():
                return self._connection.executemany(sql, [tuple(each) for each in parameters])
        except apsw.Error as error:
            raise _as_sqlite3(error) from None

    def close(self) -> None:
        """Close it; after a crash, without a word to the disk."""
        if self._closed:
            return
        self._closed = True
        self._vfs.muted = self._mount.off
        # SQLite closes in any case; what fails then, the next one to open it repairs.
        with quiet(), suppress(apsw.Error):
            if self._connection is not None:
                self._connection.close(True)
        self._vfs.unregister()


@contextmanager
def quiet() -> Iterator[None]:
    """SQLite may do without some of what fails in its files; apsw would report it all the same."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _as_sqlite(error: OSError, code: int) -> apsw.Error:
    """A disk's error as SQLite's VFS reports it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(error, MachineOff):
        return _with_code(apsw.FullError(str(error)), apsw.SQLITE_FULL)
    if code == apsw.SQLITE_CANTOPEN:
        return _with_code(apsw.CantOpenError(str(error)), code)
    return _with_code(apsw.IOError(str(error)), code)


def _with_code(error: apsw.Error, code: int) -> apsw.Error:
    error.extendedresult = code  # type: ignore[attr-defined]
    return error


def _as_sqlite3(error: apsw.Error) -> OperationalError:
    """An error of apsw as the sqlite3 module reports it."""
    failure = OperationalError(str(error))
    failure.sqlite_errorcode = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
    return failure
