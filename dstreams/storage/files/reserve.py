"""A file that reserves space for deletes, which must still be written on a disk without a single free page.

    <data_dir>/reserve   RESERVE_BYTES of random bytes

It is removed when there is no space for a delete, and created again when there is space. Its contents are never read: a
crash may leave it, a part of it, or nothing.
"""

from __future__ import annotations

import os
from typing import Final

from attrs import define, field
from twisted.logger import Logger

from dstreams.storage.disk import Disk, write_all

_log = Logger()

NAME: Final = "reserve"

RESERVE_BYTES: Final = 1024 * 1024
"""Number of bytes of the file: enough for the deletes of one group, a new segment and the catalog's pages."""


@define(eq=False)
class Reserve:
    """Creates and removes the file.

    :param directory: the data directory.
    :param size: the number of bytes of the file.
    """

    _disk: Disk
    _directory: str
    size: int = RESERVE_BYTES
    is_there: bool = field(default=False, init=False)

    @property
    def _path(self) -> str:
        return f"{self._directory}/{NAME}"

    def lend(self) -> None:
        """Free the space if the disk is full, because a start needs some itself; :meth:`make` reserves it again."""
        if self._disk.free_bytes(self._directory) < self.size:
            self._remove()

    def make(self) -> None:
        """Reserve the space, if there is enough. May run in a thread."""
        if self.is_there:
            return
        try:
            file = self._disk.open(self._path, create=True)
            if file.size() != self.size:
                # Random bytes, because a file system with compression would reserve nothing for zeros.
                write_all(file, os.urandom(self.size), 0)
        except OSError as error:
            _log.warn("there is no room for {path}: {error}", path=self._path, error=error)
            self._remove()
        else:
            self.is_there = True

    def release(self) -> bool:
        """Free the space.

        :return: whether the file existed and was removed.
        """
        if not self.is_there:
            return False
        self.is_there = False
        return self._remove()

    def _remove(self) -> bool:
        try:
            self._disk.unlink(self._path)
        except OSError as error:
            _log.warn("{path} can't be removed: {error}", path=self._path, error=error)
            return False
        return True
