"""Imports the streams of a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import IO, Protocol

from attrs import frozen

from dstreams.protocol.names import NameLimits
from dstreams.runtime.progress import Progress
from dstreams.transfer.errors import TransferError
from dstreams.transfer.planning import OnConflict, Step, plan
from dstreams.transfer.reading import read_document
from dstreams.transfer.staging import Staging


class Importable(Protocol):
    """A destination for imported streams."""

    def taken(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of the names that are in use."""

    def check(self, steps: Sequence[Step], staging: Staging) -> None:
        """Check that everything can be stored.

        :raise InvalidDocument: if something cannot; it lists all problems, and nothing has been changed.
        """

    def store(self, steps: Sequence[Step], staging: Staging, done: Callable[[int], object]) -> None:
        """Store all steps, each stream completely or not at all.

        :param done: called with the number of streams stored so far.
        :raise TransferError: if storing fails; what was stored before remains.
        """


@frozen
class Imported:
    """The result of an import.

    :param messages: the number of messages of the stored streams, including inherited ones.
    :param skipped: the streams that were left out: name, and ``existing`` or ``expired``.
    """

    streams: int
    messages: int
    skipped: tuple[tuple[str, str], ...]


def import_streams(
    file: IO[bytes],
    target: AbstractContextManager[Importable],
    on_conflict: OnConflict,
    limits: NameLimits,
    now: float,
    progress: Progress,
) -> Imported:
    """Read a document, check all of it, and only then store its streams.

    Memory holds one stream at a time, and a few hundred bytes for each; the messages are kept in a temporary file.

    :param target: entered after the document has been read, so that an invalid one does not create an empty store.
    :param limits: limits on stream names.
    :param now: Unix seconds.
    :raise InvalidDocument: if something is wrong with the document; nothing has been changed.
    :raise TransferError: if storing fails; each stream has been stored completely or not at all.
    """
    try:
        with Staging.open() as staging:
            streams = read_document(file, staging, limits, progress)
            with target as opened:
                taken = opened.taken(staged.record.name for staged in streams)
                planned = plan(streams, staging, taken, on_conflict, now)
                opened.check(planned.steps, staging)
                total = len(planned.steps)
                opened.store(planned.steps, staging, lambda stored: progress("storing streams", stored, total))
    except OSError as error:
        raise TransferError(f"the import failed: {error}; TMPDIR sets the directory of temporary files") from error
    return Imported(total, sum(step.staged.messages for step in planned.steps), tuple(planned.skipped))
