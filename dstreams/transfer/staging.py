"""A temporary file for the messages of an import until the whole document has been checked.

The file has no name. It holds the streams one after the other, each as its stored bytes followed by its message ends
in the format of ``storage.index``. So memory holds a few hundred bytes for each stream and no messages, the streams can
be stored in any order, and the document is parsed only once, from a file or from a pipe.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self

from attrs import define, field, frozen

from dstreams.storage.index import APPEND_END
from dstreams.transfer.records import Record

PIECE_BYTES = 1024 * 1024
"""Number of bytes read back at a time."""

_ENTRY_BYTES = 8
_LARGE_FILES = "/var/tmp"  # noqa: S108 (the file has no name there)


@frozen(eq=False)
class StagedStream:
    """A stream of the document.

    :param at: the position in the file of its first byte; its message ends follow its bytes.
    :param size: the number of its stored bytes.
    :param messages: the number of its messages.
    """

    record: Record
    at: int
    size: int
    messages: int


@define(eq=False)
class Staging:
    """The temporary file."""

    _file: IO[bytes]
    _begin: int = field(default=0, init=False)
    _size: int = field(default=0, init=False)
    _entries: array[int] = field(factory=lambda: array("Q"), init=False)

    @classmethod
    def open(cls) -> Self:
        """Create the file.

        It is in ``TMPDIR`` if that is set, else in ``/var/tmp``, because ``/tmp`` may be in memory.

        :raise OSError: if it cannot be created.
        """
        directory = os.environ.get("TMPDIR") or (_LARGE_FILES if os.path.isdir(_LARGE_FILES) else None)
        return cls(tempfile.TemporaryFile(dir=directory))

    @property
    def size(self) -> int:
        """The number of bytes of the current stream so far."""
        return self._size

    def add(self, stored: bytes, *, ends_append: bool) -> None:
        """Add a message to the current stream.

        :param stored: its bytes in stored form, at least one.
        """
        self._file.write(stored)
        self._size += len(stored)
        self._entries.append(self._size << 1 | (APPEND_END if ends_append else 0))

    def finish(self, record: Record) -> StagedStream:
        """Complete the current stream; the next message belongs to another one."""
        if self._entries:
            self._entries[-1] |= APPEND_END
        self._file.write(self._entries.tobytes())
        staged = StagedStream(record, self._begin, self._size, len(self._entries))
        self._begin += self._size + len(self._entries) * _ENTRY_BYTES
        self._size, self._entries = 0, array("Q")
        return staged

    def discard(self) -> None:
        """Drop the current stream; the next message belongs to another one."""
        self._begin += self._size
        self._size, self._entries = 0, array("Q")

    def read(self, staged: StagedStream, start: int, end: int) -> bytes:
        """Return the stored bytes from ``start`` up to ``end``, which are positions in the stream."""
        self._file.seek(staged.at + start)
        data = self._file.read(end - start)
        assert len(data) == end - start, "the range must have been written"
        return data

    def pieces(self, staged: StagedStream, start: int, end: int) -> Iterator[bytes]:
        """Yield the same bytes piece by piece."""
        for at in range(start, end, PIECE_BYTES):
            yield self.read(staged, at, min(end, at + PIECE_BYTES))

    def entries(self, staged: StagedStream) -> array[int]:
        """Return the ends of the stream's messages, in the format of ``storage.index``."""
        self._file.seek(staged.at + staged.size)
        entries = array("Q")
        entries.frombytes(self._file.read(staged.messages * _ENTRY_BYTES))
        return entries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
