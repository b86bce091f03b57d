"""A file that takes up room until it is needed: on a disk without a single free page a delete still has to be written.

    <data_dir>/reserve   RESERVE_BYTES of noise

It is removed when a delete finds no room, and made again when there is some. It means nothing to a store; a crash
may leave it, a part of it, or none.
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
"""Enough for the deletes of one group, a new segment and the catalog's pages."""


@define(eq=False)
class Reserve:
    """The file.

    :param directory: the data directory.
    :param size: how many bytes it takes.
    """

    _disk: Disk
    _directory: str
    size: int = RESERVE_BYTES
    is_there: bool = field(default=False, init=False)

    @property
    def _path(self) -> str:
        return f"{self._directory}/{NAME}"

    def lend(self) -> None:
        """Free the room for a start on a full disk, which needs some itself; :meth:`make` takes it again."""
        if self._disk.free_bytes(self._directory) < self.size:
            self._remove()

    def make(self) -> None:
        """Take up the room, if there is any. May run in a thread."""
        if self.is_there:
            return
        try:
            file = self._disk.open(self._path, create=True)
            if file.size() != self.size:
                # Noise: a file system that compresses would keep nothing free for zeros.
                write_all(file, os.urandom(self.size), 0)
        except OSError as error:
            _log.warn("there is no room for {path}: {error}", path=self._path, error=error)
            self._remove()
        else:
            self.is_there = True

    def release(self) -> bool:
        """Free the room; whether there was any."""
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
