"""What an SQLite error means for the store: nothing happened, no room, or nothing can be trusted any more."""

from __future__ import annotations

from typing import Final

from dstreams.storage.interface import StorageError, StorageFull

_BUSY, _LOCKED, _NOMEM, _CORRUPT, _FULL, _NOTADB = 5, 6, 7, 11, 13, 26


class StoreFailed(StorageError):
    """The disk may say something else than the memory, or can't be trusted: the store takes no more changes."""


class Undecided(StorageError):
    """A commit found no room, and neither did the one that was to void it.

    If the process ends now, the next start may find the group committed. The store changes nothing before it has
    voided it.
    """


_PASSING: Final = frozenset((_BUSY, _LOCKED, _NOMEM))


def fault(error: BaseException, doing: str) -> StorageError:
    """The error of a statement before a commit as the storage's own; its transaction is rolled back.

    A full disk, a lock that another process holds, and lack of memory pass. All else is final: an I/O error, a
    damaged file, a row that should not be there.

    :param doing: what was tried, for the log.
    """
    text = f"{doing}: {error}"
    code = _code(error)
    if code == _FULL:
        return StorageFull(text)
    if code in _PASSING or isinstance(error, MemoryError):
        return StorageError(text)
    return StoreFailed(text)


def commit_fault(error: BaseException, doing: str) -> StorageError:
    """The error of a commit as the storage's own.

    After a full disk the store may go on once the transaction is void (see ``writer``). After any other error
    SQLite's view of the WAL may differ from the disk's, and the next start may find the transaction committed.
    """
    text = f"{doing}: {error}"
    return StorageFull(text) if _code(error) == _FULL else StoreFailed(text)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite has found its file damaged."""
    return _code(error) in (_CORRUPT, _NOTADB)


def _code(error: BaseException) -> int | None:
    """SQLite's primary result code, from sqlite3's or apsw's exceptions."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        code = getattr(error, "result", None)
    return code & 0xFF if isinstance(code, int) else None
