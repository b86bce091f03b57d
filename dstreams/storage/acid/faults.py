"""Classifies SQLite errors: temporary, full disk, or final, so that the store takes no more changes."""

from __future__ import annotations

from typing import Final

from dstreams.storage.interface import StorageError, StorageFull

_BUSY, _LOCKED, _NOMEM, _CORRUPT, _FULL, _NOTADB = 5, 6, 7, 11, 13, 26


class StoreFailed(StorageError):
    """The store takes no more changes, because the disk may differ from the memory or is unreliable."""


class Undecided(StorageError):
    """The disk was full during a commit, and also during the commit that was meant to void it.

    If the process ends now, the next start may find the group committed. The store writes nothing else before the
    group is voided.
    """


_PASSING: Final = frozenset((_BUSY, _LOCKED, _NOMEM))


def fault(error: BaseException, doing: str) -> StorageError:
    """Convert the error of a statement before a commit to a storage error. Its transaction has to be rolled back.

    A full disk, a lock held by another process, and lack of memory are temporary. All other errors are final: an I/O
    error, a damaged file, a row that should not exist.

    :param doing: what was being done, for the log.
    """
    text = f"{doing}: {error}"
    code = _code(error)
    if code == _FULL:
        return StorageFull(text)
    if code in _PASSING or isinstance(error, MemoryError):
        return StorageError(text)
    return StoreFailed(text)


def commit_fault(error: BaseException, doing: str) -> StorageError:
    """Convert the error of a commit to a storage error.

    After a full disk the store may continue when the transaction is void (see ``writer``). After any other error
    SQLite's view of the WAL may differ from the disk, and the next start may find the transaction committed.
    """
    text = f"{doing}: {error}"
    return StorageFull(text) if _code(error) == _FULL else StoreFailed(text)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite reports that its file is damaged."""
    return _code(error) in (_CORRUPT, _NOTADB)


def _code(error: BaseException) -> int | None:
    """Return SQLite's primary result code from an exception of sqlite3 or apsw, or ``None``."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        code = getattr(error, "result", None)
    return code & 0xFF if isinstance(code, int) else None
