"""The streams of an idle data directory, for export and listing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from attrs import frozen

from dstreams.model.catalog import Catalog
from dstreams.model.state import StreamState
from dstreams.protocol.producers import Producer, unpack
from dstreams.runtime.pending import at_once
from dstreams.storage.index import APPEND_END
from dstreams.storage.interface import Sources
from dstreams.streams import reading
from dstreams.streams.expiry import is_over_at_rest
from dstreams.transfer.errors import NoSuchStream
from dstreams.transfer.listing import Listed
from dstreams.transfer.records import Origin, Record
from dstreams.transfer.writing import Message

PIECE_BYTES = 1024 * 1024
"""The number of bytes, in whole messages, that are read before they are written."""

ENTRIES = 4096
"""The number of message ends that are looked up at a time."""


@frozen(eq=False)
class DirectoryStreams:
    """The streams that clients would see: neither expired ones, nor deleted ones that are kept for their forks.

    :param sources: where the streams' bytes are read from.
    :param now: Unix seconds.
    """

    _catalog: Catalog
    _sources: Sources
    _now: float

    def names(self) -> list[str]:
        """Return the names of all streams, sorted."""
        return sorted(name for name, state in self._catalog.names.items() if self._is_there(state))

    def find(self, name: str) -> StreamState:
        """Return the state of one stream.

        :raise NoSuchStream: if there is no stream of that name.
        """
        state = self._catalog.names.get(name)
        if state is None or not self._is_there(state):
            raise NoSuchStream(name)
        return state

    def listed(self, name: str) -> Listed:
        """Return a stream's entry for the listing.

        :raise NoSuchStream: if there is no stream of that name.
        """
        return Listed.of(self.find(name))

    def record(self, name: str, exported: frozenset[str]) -> Record:
        """Return a stream's members for an export document.

        :param exported: all streams of the document; a fork's source is named only if it is one of them.
        """
        state = self.find(name)
        never_changed = state.updated_at == state.created_at
        producers = {**(state.base_producers or {}), **(state.producers or {})}
        return Record(
            name=name,
            content_type=state.config.content_type,
            ttl=state.config.ttl,
            expires_at=state.config.expires_at,
            # A later close would have changed the stream after its creation.
            created_closed=state.closed and never_changed,
            closed=state.closed,
            created_at=state.created_at,
            updated_at=None if never_changed else state.updated_at,
            stream_seq=state.stream_seq,
            producers=tuple(Producer(each, *unpack(producers[each])) for each in sorted(producers)),
            closed_by=state.closed_by,
            origin=self._origin(state, exported),
        )

    def messages(self, name: str) -> Iterator[Message]:
        """Yield a stream's messages, including inherited ones."""
        state = self.find(name)
        pieces = reading.lineage(self._sources, self._catalog, state)
        whole = at_once(reading.take(self._sources, self._catalog, state, 0, sys.maxsize))
        comma = int(state.config.content_type.is_json)
        waiting: list[int] = []
        start = position = 0
        while found := at_once(reading.entries(pieces, position, ENTRIES)):
            position = found[-1] >> 1
            for entry in found:
                waiting.append(entry)
                end = entry >> 1
                if end - start >= PIECE_BYTES:
                    yield from _cut(at_once(whole.read(start, end)), start, waiting, comma)
                    start, waiting = end, []
        if waiting:
            yield from _cut(at_once(whole.read(start, position)), start, waiting, comma)

    def _is_there(self, state: StreamState) -> bool:
        return not state.soft_deleted and not is_over_at_rest(state, self._now)

    def _origin(self, state: StreamState, exported: frozenset[str]) -> Origin | None:
        fork = state.fork
        if fork is None or fork.source_name not in exported:
            return None
        if self.find(fork.source_name).id != fork.source_id:
            return None
        return Origin(fork.source_name, fork.position, fork.anchor, fork.sub_offset, fork.inherits_expiry)


def _cut(data: bytes, start: int, entries: Sequence[int], comma: int) -> Iterator[Message]:
    """Cut stored bytes into messages.

    :param start: the position of the first byte in the stream.
    """
    at = 0
    for entry in entries:
        following = (entry >> 1) - start
        yield Message(data[at : following - comma], following - at, bool(entry & APPEND_END))
        at = following
