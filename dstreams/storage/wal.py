"""Telling a damaged write-ahead log from one that a crash cut off, before SQLite opens it.

SQLite reads a WAL up to the first frame that is wrong and takes what precedes it for the whole: a flipped bit would
silently take every later commit along. But a shard syncs each transaction before the next one begins. So a crash
leaves at most one transaction that isn't whole, and of a transaction only the last frame is marked as a commit. Two
commits behind a wrong frame mean that the file was damaged afterwards.

Form (https://www.sqlite.org/fileformat2.html, section 4): a header of 32 bytes, with the page size, two salts and a
checksum, then frames: 24 bytes (page number, size of the database for a commit, else 0, the salts, a checksum) and
a page. A frame's checksum goes on from the one before. Behind the last commit may lie frames of earlier rounds, which
have other salts, and of transactions that were cut off, which don't go on from each other's checksums.
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
"""The lowest bit says that the checksums are over big-endian numbers, which SQLite chooses where these are native."""

_VERSION: Final = 3_007_000
_PAGE_BYTES: Final = 4096
_READ_BYTES: Final = 1024 * 1024

_Sum = tuple[int, int]


class WalDamage(StorageError):
    """A WAL is damaged in a way that no crash explains.

    :param path: its file.
    :param end: how many of its first bytes SQLite would use.
    :param commits: how many commits lie behind, at least.
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

    :param size: how many pages the database has with this commit; 0 when it is no commit.
    :param is_current: whether it has the salts of the newest round.
    :param follows: whether that is so, and its checksum goes on from the frame before.
    """

    page: int
    size: int
    is_current: bool
    follows: bool


def check_wal(wal: File, database: File) -> bool:
    """See that a WAL holds nothing that SQLite would pass over.

    Takes about 100 us for each frame, and memory for the numbers of its pages.

    :param database: the file that the WAL belongs to.
    :return: whether it has a header, without which SQLite uses nothing of it.
    :raise WalDamage: when it does.
    :raise OSError:
    """
    scan = _Scan(wal)
    scan.run()
    if scan.lost_commits and (scan.is_headed or not scan.is_copied(database)):
        raise WalDamage(wal.path, scan.end, scan.lost_commits)
    return scan.is_headed


@define(eq=False)
class _Scan:
    """One look through a WAL."""

    _wal: File
    end: int = field(default=0, init=False)
    """Behind the last commit that SQLite would see."""
    lost_commits: int = field(default=0, init=False)
    """How many commits it wouldn't see, as far as more than one follow each other."""
    is_headed: bool = field(default=False, init=False)
    """Whether the header is sound: without it SQLite sees nothing."""
    _page_bytes: int = field(default=_PAGE_BYTES, init=False)
    _big_endian: bool = field(default=sys.byteorder == "big", init=False)
    _salts: tuple[int, int] | None = field(default=None, init=False)
    # The newest version of each page in the commits that would be lost: where it lies; and how many pages count.
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
                # It begins another run of frames. Its own checksum tells nothing, those that go on from it do.
                commits, pages = 0, {}
            if frame.is_current:
                pages[frame.page] = offset + _FRAME.size
                commits += frame.size > 0
            if frame.size and commits > 1:
                self.lost_commits = max(self.lost_commits, commits)
                self._pages.update(pages)
                self._size = frame.size

    def is_copied(self, database: File) -> bool:
        """Whether the database has all of it.

        When a WAL begins another round, its header is written anew. A crash that tears it leaves the frames of the
        round before, and these have been copied.
        """
        size = self._page_bytes
        return all(
            database.pread(size, (page - 1) * size) == self._wal.pread(size, offset)
            for page, offset in self._pages.items()
            if page <= self._size
        )

    def _frames(self, checksum: _Sum) -> Iterator[tuple[int, _Frame]]:
        """All frames and where they are."""
        length = _FRAME.size + self._page_bytes
        step = max(1, _READ_BYTES // length) * length
        offset = _HEADER.size
        while data := self._wal.pread(step, offset):
            for start in range(0, len(data) - length + 1, length):
                page, size, salt, other_salt, first, second = _FRAME.unpack_from(data, start)
                if self._salts is None and (salt or other_salt):
                    # Without a header: the newest round begins where the file does, what is left of older ones follows.
                    self._salts = salt, other_salt
                is_current, follows = self._salts == (salt, other_salt), False
                if is_current:
                    content = data[start : start + 8] + data[start + _FRAME.size : start + length]
                    follows = _sum(checksum, content, self._big_endian) == (first, second)
                checksum = first, second
                yield offset + start, _Frame(page, size, is_current, follows)
            offset += step


def _sum(checksum: _Sum, data: bytes, big_endian: bool) -> _Sum:
    """SQLite's checksum, going on from ``checksum``: every second number is added to the one sum or the other."""
    numbers = array("I", data)
    if big_endian != (sys.byteorder == "big"):
        numbers.byteswap()
    first, second = checksum
    following = iter(numbers)
    for one, other in zip(following, following, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second
