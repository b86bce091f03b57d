"""The interface between the engine and a storage backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Change
from dstreams.model.state import StreamState
from dstreams.runtime.progress import Progress

if TYPE_CHECKING:
    from dstreams.storage.damage import DamageLog


class StorageError(Exception):
    """A commit or a read failed. The text is for the log, not for clients."""


class StorageFull(StorageError):
    """There is no space for the bytes of this commit."""


class StorageDamaged(StorageError):
    """Stored bytes are missing or differ from those written.

    :param stream_id: the stream that they belong to.
    :param place: distinguishes this damage from other damage of the stream: a file and a position in it.
    """

    def __init__(self, text: str, stream_id: int, place: str) -> None:
        super().__init__(text)
        self.stream_id = stream_id
        self.place = place


@frozen
class Verified:
    """The result of one step of a scrub.

    :param size: the number of bytes read. Each additional file or row counts as at least a page.
    :param damaged: the damage found.
    """

    size: int
    damaged: Sequence[StorageDamaged] = ()


@frozen
class Charges:
    """The overhead of streams in addition to their payload: bytes in memory and on disk together.

    :param stream: for each stream, in addition to its name.
    :param message: for each message.
    :param producer: for each producer, in addition to its id.
    """

    stream: int = 0
    message: int = 0
    producer: int = 0


class Descriptor(Protocol):
    """An object that keeps a file descriptor open as long as it exists."""

    def fileno(self) -> int:
        """Return the descriptor."""


@frozen
class FileRange:
    """A range of bytes in a file, which is in the page cache as far as a quick check can tell.

    :param offset: the position of the first byte in the file.
    :param size: the number of bytes.
    """

    file: Descriptor
    offset: int
    size: int


class ByteSource(Protocol):
    """The stored bytes of one stream incarnation and the index of its message ends.

    Everything read is verified: damaged bytes are never returned, but raise :class:`StorageDamaged`.

    A source stays readable as long as there is a reference to it, even after its stream was deleted. Every method
    returns its result immediately if it can, else a Deferred of it. Positions are absolute; they lie between the
    incarnation's own start and its durable tail.
    """

    def read(self, start: int, end: int) -> bytes | Deferred[bytes]:
        """Return the bytes from ``start`` up to ``end``."""

    def in_file(self, start: int, end: int) -> FileRange | None:
        """Return the location of the bytes from ``start`` up to ``end`` or earlier; ``None`` if they have to be read.

        The file may contain fewer bytes than it should; in that case :meth:`read` reports the damage.
        """

    def floor(self, position: int) -> int | Deferred[int]:
        """Return the last message end at or before ``position``, or the incarnation's own start if there is none."""

    def extent(self, start: int, limit: int) -> int | Deferred[int]:
        """Return the end of the last message that lies within ``limit`` bytes from ``start``.

        If even the first message is longer, return its end. There must be bytes after ``start``.
        """

    def append_ends(self, position: int) -> Sequence[int] | Deferred[Sequence[int]]:
        """Return the message ends after ``position``, up to the first that also ends an append.

        The last of them is the next data boundary of PROTOCOL 4.2. There are none if ``position`` is the tail.
        """

    def entries(self, position: int, most: int) -> Sequence[int] | Deferred[Sequence[int]]:
        """Return the entries of the messages that end after ``position``, in the form of ``storage.index``.

        There must be bytes after ``position``.

        :param most: maximum number of entries. Fewer are returned only if there are no more.
        """


class Sources(Protocol):
    """Gives access to the bytes of streams."""

    def source(self, state: StreamState) -> ByteSource:
        """Return the bytes of a committed stream, up to the present tail of ``state``."""


class Storage(Sources, Protocol):
    """A storage backend: commits changes in order and keeps their bytes."""

    @property
    def name(self) -> str:
        """The name of the mode in the configuration."""

    @property
    def immediate(self) -> bool:
        """Whether ``commit`` usually keeps the mode's promise before it returns, so that no groups are needed."""

    @property
    def persistent(self) -> bool:
        """Whether anything outlives the process, so that renewals noted only in memory should be committed too."""

    @property
    def charges(self) -> Charges:
        """The overhead that counts against the total limit in addition to payload."""

    @property
    def failure(self) -> str | None:
        """Why the store rejects all changes until it is opened again; ``None`` while it accepts them."""

    @property
    def damage(self) -> DamageLog:
        """The damage found since the start."""

    def scrub(self) -> Iterator[Deferred[Verified]]:
        """Verify everything stored once, one step for each item of the iterator.

        A step reads at most about a megabyte, in a thread if it has to wait, and ends when its Deferred fires. The next
        item may be requested only then. Streams may be created and deleted meanwhile.
        """

    def open(self, catalog: Catalog, progress: Progress) -> None:
        """Open the store, and fill the catalog with its streams.

        The store may continue to read this catalog: the engine applies every change to it after the commit.

        :param catalog: an empty catalog.
        :raise StorageError: if the store cannot be used; the text says what to do.
        """

    def next_stream_id(self) -> int:
        """Return a number that no stream of this store has ever had."""

    def commit(self, changes: Sequence[Change]) -> Deferred[None] | None:
        """Make ``changes`` durable as the mode promises, in order, all of them or none.

        The caller commits one group at a time, and waits for its result before it commits the next.

        :return: ``None`` if the changes are durable already, else a Deferred that fires when they are.
        :raise StorageError: (or the Deferred fails with it) if nothing of the group was kept.
        """

    def close(self) -> Deferred[None] | None:
        """Release everything; no other method is called afterwards."""
