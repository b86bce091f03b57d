"""Rebuilding the state from a snapshot and changes that it may hold already."""

from __future__ import annotations

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Create, Delete, StreamConfig
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import DEFAULT
from dstreams.storage.rebuild import Rebuild


def creation(stream_id: int, name: str) -> Create:
    return Create(stream_id, name, StreamConfig(DEFAULT), None, b"", (), False, 0.0)


class NameTests:
    def test_name_that_was_used_before(self) -> None:
        """A stream that the snapshot knows keeps its name, though the changes first make and delete another of it."""
        rebuild = Rebuild(Catalog())
        rebuild.insert(StreamState.created(creation(2, "a")))
        changes = creation(1, "a"), Delete((1,), (), 0.0), creation(2, "a")
        assert [rebuild.apply(change) for change in changes] == [changes[0], None, None]
        assert {name: state.id for name, state in rebuild.catalog.names.items()} == {"a": 2}
        assert set(rebuild.catalog.streams) == {2}

    def test_stream_that_is_deleted_further_on(self) -> None:
        """Nor does a name come back that a later change frees."""
        rebuild = Rebuild(Catalog())
        rebuild.insert(StreamState.created(creation(2, "a")))
        for change in (creation(1, "a"), Delete((1,), (), 0.0), creation(2, "a"), Delete((2,), (), 0.0)):
            rebuild.apply(change)
        assert not rebuild.catalog.names
        assert not rebuild.catalog.streams
