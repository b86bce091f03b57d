"""Exporting: from wherever streams are into a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from attrs import frozen

from dstreams.progress import Progress
from dstreams.transfer.errors import NoSuchStream
from dstreams.transfer.records import Record
from dstreams.transfer.writing import DocumentWriter, Message


class Exportable(Protocol):
    """Where streams are exported from."""

    def names(self) -> Sequence[str]:
        """All streams there are, in order."""

    def record(self, name: str, exported: frozenset[str]) -> Record:
        """A stream's members; ``exported`` are the names of all streams of the document.

        :raise NoSuchStream: when there is none of that name.
        """

    def messages(self, name: str) -> Iterable[Message]:
        """A stream's messages."""


SHOWN_BYTES = 1024 * 1024
"""How many bytes are written between two notes of progress."""


@frozen
class Exported:
    """How much a document holds."""

    streams: int
    messages: int


def export_streams(
    streams: Exportable, names: Sequence[str], write: Callable[[bytes], object], now: float, progress: Progress
) -> Exported:
    """Write a document. Memory holds about one piece of one stream at a time.

    A stream that ends while others are being exported is left out, unless it was named.

    :param names: which streams; all of them when it is empty.
    :param write: takes the document's bytes.
    :param now: Unix seconds.
    :raise NoSuchStream: when a stream that is named doesn't exist.
    """
    chosen = sorted(set(names)) or streams.names()
    exported = frozenset(chosen)
    for name in names:
        streams.record(name, exported)  # before anything is written
    written = shown = 0

    def counted(data: bytes) -> None:
        nonlocal written, shown
        write(data)
        written += len(data)
        if written - shown >= SHOWN_BYTES:
            shown = written
            progress("exporting bytes", written, 0)

    writer = DocumentWriter(counted)
    writer.begin(now)
    for name in chosen:
        try:
            record = streams.record(name, exported)
        except NoSuchStream:
            if names:
                raise
            continue
        writer.add(record, streams.messages(name))
    writer.end()
    progress("exporting bytes", written, written)
    return Exported(writer.streams, writer.messages)
