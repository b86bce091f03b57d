"""Exports streams to a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from attrs import frozen

from dstreams.runtime.progress import Progress
from dstreams.transfer.errors import NoSuchStream
from dstreams.transfer.records import Record
from dstreams.transfer.writing import DocumentWriter, Message


class Exportable(Protocol):
    """A source of streams for an export."""

    def names(self) -> Sequence[str]:
        """Return the names of all streams, sorted."""

    def record(self, name: str, exported: frozenset[str]) -> Record:
        """Return a stream's members; ``exported`` are the names of all streams of the document.

        :raise NoSuchStream: if there is no stream of that name.
        """

    def messages(self, name: str) -> Iterable[Message]:
        """Yield a stream's messages."""


SHOWN_BYTES = 1024 * 1024
"""The number of bytes written between two progress reports."""


@frozen
class Exported:
    """The number of streams and messages in a document."""

    streams: int
    messages: int


def export_streams(
    streams: Exportable, names: Sequence[str], write: Callable[[bytes], object], now: float, progress: Progress
) -> Exported:
    """Write a document. At most about one piece of one stream is in memory at a time.

    A stream that ends while others are being exported is left out, unless it was selected by name.

    :param names: the streams to export; all of them if empty.
    :param write: called with the document's bytes, in order.
    :param now: Unix seconds.
    :raise NoSuchStream: if a selected stream does not exist.
    """
    chosen = sorted(set(names)) or streams.names()
    exported = frozenset(chosen)
    for name in names:
        streams.record(name, exported)  # fails before anything is written
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
