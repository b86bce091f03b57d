"""Importing: from a document into wherever streams are to be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import IO, Protocol

from attrs import frozen

from dstreams.progress import Progress
from dstreams.protocol.names import NameLimits
from dstreams.transfer.errors import TransferError
from dstreams.transfer.planning import OnConflict, Step, plan
from dstreams.transfer.reading import read_document
from dstreams.transfer.staging import Staging


class Importable(Protocol):
    """Where streams are imported to."""

    def taken(self, names: Iterable[str]) -> frozenset[str]:
        """Which of these names are taken."""

    def check(self, steps: Sequence[Step]) -> None:
        """See that everything can be stored.

        :raise InvalidDocument: with everything that can't; nothing has been changed.
        """

    def store(self, steps: Sequence[Step], staging: Staging, done: Callable[[int], object]) -> None:
        """Store all of the steps, each stream as a whole or not at all.

        :param done: told how many streams are stored.
        :raise TransferError: when something fails; what was stored before stays.
        """


@frozen
class Imported:
    """What has been imported.

    :param messages: of the streams that were stored, inherited ones included.
    :param skipped: the streams that were left out: their name, and ``existing`` or ``expired``.
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
    """Read a document, see that all of it is right, and only then store its streams.

    Memory holds one stream at a time, and a few hundred bytes for each; the messages wait in a temporary file.

    :param target: entered when the document has been read: a wrong one doesn't even make an empty store.
    :param limits: how large a name may be.
    :param now: Unix seconds.
    :raise InvalidDocument: when something is wrong with it; nothing has been changed.
    :raise TransferError: when storing fails; each stream is there as a whole or not at all.
    """
    try:
        with Staging.open() as staging:
            streams = read_document(file, staging, limits, progress)
            with target as opened:
                taken = opened.taken(staged.record.name for staged in streams)
                decided = plan(streams, staging, taken, on_conflict, now)
                opened.check(decided.steps)
                total = len(decided.steps)
                opened.store(decided.steps, staging, lambda stored: progress("storing streams", stored, total))
    except OSError as error:
        raise TransferError(f"the import failed: {error}; TMPDIR says where temporary files go") from error
    return Imported(total, sum(step.staged.messages for step in decided.steps), tuple(decided.skipped))
