"""Distinguishes a damaged write-ahead log from one that a crash cut off, before SQLite opens it.

SQLite reads a WAL up to the first invalid frame, and ignores the rest. So a flipped bit would silently discard all
later commits. But a shard syncs each transaction before the next one begins, so a crash leaves at most one incomplete
transaction; and only the last frame of a transaction is marked as a commit. Therefore, if two commits follow an invalid
frame, the file was damaged afterwards.

Format (https://www.sqlite.org/fileformat2.html, section 4): a header of 32 bytes, with the page size, two salts and a
checksum, then frames. A frame is 24 bytes (page number, size of the database for a commit, else 0, the salts, a
checksum) and a page. Its checksum continues that of the frame before. After the last commit there may be frames of
earlier rounds, which have other salts, and of transactions that were cut off, whose checksums do not continue each
other.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Final

from attrs import define, field, frozen

from dstreams.storage.disk import File
from dstreams.storage.interface import StorageError

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = 0x377F0682
"""If the lowest bit is set, checksums are of big-endian numbers. SQLite sets it on big-endian machines."""

_VERSION: Final = 3_007_000
_PAGE_BYTES: Final = 4096
_READ_BYTES: Final = 1024 * 1024

_Sum = tuple[int, int]


class WalDamage(StorageError):
    """A WAL is damaged in a way that a crash cannot cause.

    :param path: the path of the WAL.
    :param end: the number of bytes at its beginning that SQLite would use.
    :param commits: the number of commits after these, at least.
    """

    def __init__(self, path: str, end: int, commits: int) -> None:
        super().__init__(
            f"{path} is damaged behind byte {end}, and at least {commits} commits follow, which SQLite would drop;"
            " restore the directory from a backup"
        )
        self.path = path
        self.end = end


@frozen
class _Frame:
    """One frame.

    :param size: the number of pages that the database has with this commit; 0 if the frame is not a commit.
    :param is_current: whether it has the salts of the newest round.
    :param follows: whether it is current and its checksum continues that of the frame before.
    """

    page: int
    size: int
    is_current: bool
    follows: bool


def check_wal(wal: File, database: File) -> bool:
    """Check that a WAL holds no commits that SQLite would ignore.

    This takes about 100 us for each frame, and memory for the numbers of its pages.

    :param database: the database file that the WAL belongs to.
    :return: whether it has a valid header. Without one, SQLite ignores all of it.
    :raise WalDamage: if it holds such commits.
    :raise OSError: if a file cannot be read.
    """
    scan = _Scan(wal)
    scan.run()
    if scan.lost_commits and (scan.is_headed or not scan.is_copied(database)):
        raise WalDamage(wal.path, scan.end, scan.lost_commits)
    return scan.is_headed


@define(eq=False)
class _Scan:
    """Scans a WAL once."""

    _wal: File
    end: int = field(default=0, init=False)
    """The offset after the last commit that SQLite would use."""
    lost_commits: int = field(default=0, init=False)
    """The largest number of consecutive commits that SQLite would ignore; 0 if there are never more than one."""
    is_headed: bool = field(default=False, init=False)
    """Whether the header is valid. If not, SQLite ignores the WAL."""
    _page_bytes: int = field(default=_PAGE_BYTES, init=False)
    _big_endian: bool = field(default=sys.byteorder == "big", init=False)
    _salts: tuple[int, int] | None = field(default=None, init=False)
    # The offset of the newest version of each page in the commits that would be lost, and how many pages count.
    _pages: dict[int, int] = field(factory=dict, init=False)
    _size: int = field(default=0, init=False)

    def run(self) -> None:
        header = self._wal.pread(_HEADER.size, 0)
        if len(header) < _HEADER.size:
            return
        magic, version, page_bytes, _, *salts, first, second = _HEADER.unpack(header)
        sound = magic & ~1 == _MAGIC and version == _VERSION
        if sound and _sum((0, 0), header[:24], big_endian=bool(magic & 1)) == (first, second):
            self.is_headed, self._page_bytes, self._big_endian = True, page_bytes, bool(magic & 1)
            self.end = _HEADER.size
            self._salts = salts[0], salts[1]
        in_use, commits, pages = self.is_headed, 0, dict[int, int]()
        for offset, frame in self._frames((first, second)):
            if frame.follows and in_use:
                if frame.size:
                    self.end = offset + _FRAME.size + self._page_bytes
                continue
            in_use = False
            if not frame.follows:
                # The frame begins another run. Its own checksum proves nothing, but those that continue it do.
                commits, pages = 0, {}
            if frame.is_current:
                pages[frame.page] = offset + _FRAME.size
                commits += frame.size > 0
            if frame.size and commits > 1:
                self.lost_commits = max(self.lost_commits, commits)
                self._pages.update(pages)
                self._size = frame.size

    def is_copied(self, database: File) -> bool:
        """Whether the database already holds the pages of the commits that would be lost.

        When a WAL begins another round, SQLite rewrites its header. A crash that tears the header leaves the frames of
        the previous round, which have already been copied into the database.
        """
        size = self._page_bytes
        return all(
            database.pread(size, (page - 1) * size) == self._wal.pread(size, offset)
            for page, offset in self._pages.items()
            if page <= self._size
        )

    def _frames(self, checksum: _Sum) -> Iterator[tuple[int, _Frame]]:
        """Return all frames with their offsets."""
        length = _FRAME.size + self._page_bytes
        step = max(1, _READ_BYTES // length) * length
        offset = _HEADER.size
        while data := self._wal.pread(step, offset):
            for start in range(0, len(data) - length + 1, length):
                page, size, salt, other_salt, first, second = _FRAME.unpack_from(data, start)
                if self._salts is None and (salt or other_salt):
                    # Without a header, the first frame is of the newest round. Remains of older rounds follow.
                    self._salts = salt, other_salt
                is_current, follows = self._salts == (salt, other_salt), False
                if is_current:
                    content = data[start : start + 8] + data[start + _FRAME.size : start + length]
                    follows = _sum(checksum, content, self._big_endian) == (first, second)
                checksum = first, second
                yield offset + start, _Frame(page, size, is_current, follows)
            offset += step


def _sum(checksum: _Sum, data: bytes, big_endian: bool) -> _Sum:
    """Return SQLite's checksum, which continues ``checksum``: numbers are added to its two sums in turn."""
    numbers = array("I", data)
    if big_endian != (sys.byteorder == "big"):
        numbers.byteswap()
    first, second = checksum
    following = iter(numbers)
    for one, other in zip(following, following, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second
