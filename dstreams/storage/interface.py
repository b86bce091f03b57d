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
    """A commit or a read failed; the text is for the log, not for clients."""


class StorageFull(StorageError):
    """There is no room for the bytes of this commit."""


class StorageDamaged(StorageError):
    """Stored bytes aren't those that were written, or are missing.

    :param stream_id: the stream that they belong to.
    :param place: what tells this damage from other damage of the stream: a file and a position in it.
    """

    def __init__(self, text: str, stream_id: int, place: str) -> None:
        super().__init__(text)
        self.stream_id = stream_id
        self.place = place


@frozen
class Verified:
    """What a step of a scrub has done.

    :param size: how many bytes it has read; a file or a row more counts as a page at least.
    :param damaged: the damage that it has found.
    """

    size: int
    damaged: Sequence[StorageDamaged] = ()


@frozen
class Charges:
    """What a stream costs besides its payload, in bytes: in memory and on disk together.

    :param stream: for every stream, whatever it holds; its name comes on top.
    :param message: for every message.
    :param producer: for every producer; its id comes on top.
    """

    stream: int = 0
    message: int = 0
    producer: int = 0


class Descriptor(Protocol):
    """Something that has a file descriptor, as long as it exists."""

    def fileno(self) -> int:
        """The descriptor."""


@frozen
class FileRange:
    """Bytes that lie in a file, and are in the page cache as far as that can be told quickly.

    :param offset: where they begin in the file.
    :param size: how many there are.
    """

    file: Descriptor
    offset: int
    size: int


class ByteSource(Protocol):
    """The stored bytes of one stream incarnation and the index of its message ends.

    What is read is verified: damaged bytes are never returned, but raise :class:`StorageDamaged`.

    A source stays readable as long as somebody holds it, also after its stream was deleted. Every method
    answers at once where it can, and with a Deferred where the bytes must be fetched first. Positions are
    absolute; they lie between the incarnation's own start and its durable tail.
    """

    def read(self, start: int, end: int) -> bytes | Deferred[bytes]:
        """The bytes from ``start`` up to ``end``."""

    def in_file(self, start: int, end: int) -> FileRange | None:
        """Where the bytes from ``start`` on lie, up to ``end`` or fewer; ``None`` when they have to be read.

        They may be fewer in the file than they should be; reading them tells what is wrong then.
        """

    def floor(self, position: int) -> int | Deferred[int]:
        """The last message end at or before ``position``; the incarnation's own start when there is none."""

    def extent(self, start: int, limit: int) -> int | Deferred[int]:
        """The end of the last message that lies within ``limit`` bytes from ``start``.

        When not even the first one does, the end of the first. Bytes must follow ``start``.
        """

    def append_ends(self, position: int) -> Sequence[int] | Deferred[Sequence[int]]:
        """The message ends after ``position``, up to the first that also ends an append.

        That last one is the next data boundary of PROTOCOL 4.2. Empty when ``position`` is the tail.
        """

    def entries(self, position: int, most: int) -> Sequence[int] | Deferred[Sequence[int]]:
        """The entries of the messages that end after ``position``, as ``storage.index`` has them.

        :param most: how many are wanted at most. Fewer only when there are no more; bytes must follow ``position``.
        """


class Sources(Protocol):
    """Where the bytes of streams are found."""

    def source(self, state: StreamState) -> ByteSource:
        """The bytes of a committed stream, up to the tail that ``state`` has now."""


class Storage(Sources, Protocol):
    """A storage backend: commits changes in order and keeps their bytes."""

    @property
    def name(self) -> str:
        """The mode's name in the configuration."""

    @property
    def immediate(self) -> bool:
        """Whether ``commit`` usually keeps the mode's promise before it returns, so that no groups need be formed."""

    @property
    def persistent(self) -> bool:
        """Whether anything outlives the process, so that what is only noted in memory should be handed over too."""

    @property
    def charges(self) -> Charges:
        """What counts against the total limit besides payload."""

    @property
    def failure(self) -> str | None:
        """Why the store takes no more changes until it is opened again, ``None`` while it does."""

    @property
    def damage(self) -> DamageLog:
        """The damage found since the start."""

    def scrub(self) -> Iterator[Deferred[Verified]]:
        """Verify all that is stored, once: a step each time the next item is asked for.

        A step reads at most about a megabyte, in a thread if it has to wait, and is over when its Deferred fires; only
        then the next one may be asked for. Streams may come and go meanwhile.
        """

    def open(self, catalog: Catalog, progress: Progress) -> None:
        """Make the store ready, and fill the catalog with what it holds.

        The store may go on reading this catalog later: the engine applies every change to it once it is committed.

        :param catalog: an empty one.
        :raise StorageError: when the store can't be used; the text says what to do.
        """

    def next_stream_id(self) -> int:
        """A number that no stream of this store ever had."""

    def commit(self, changes: Sequence[Change]) -> Deferred[None] | None:
        """Make ``changes`` durable as the mode promises, in order, all of them or none.

        Called for one group at a time: the next call comes after this one's result.

        :return: ``None`` when the promise already holds, else a Deferred that fires when it does.
        :raise StorageError: (or the Deferred fails with it) when nothing of the group was kept.
        """

    def close(self) -> Deferred[None] | None:
        """Release everything; no other method is called afterwards."""
