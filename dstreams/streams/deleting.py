"""Delete, soft delete and the cascade that follows (PROTOCOL 4.2, 5.4)."""

from __future__ import annotations

from dstreams.model.catalog import AnyCatalog
from dstreams.model.changes import Delete, SoftDelete
from dstreams.model.state import StreamState


def plan(catalog: AnyCatalog, state: StreamState, at: float) -> Delete | SoftDelete:
    """The change that deletes a stream.

    A stream with forks is only marked; one without goes, and takes along every soft-deleted ancestor that
    had no other fork.
    """
    if state.forks:
        return SoftDelete(state.id, at)
    removed = [state.id]
    fork = state.fork
    while fork is not None:
        source = catalog.get(fork.source_id)
        assert source is not None, "a fork keeps its source"
        if not source.soft_deleted or source.forks > 1:
            return Delete(tuple(removed), (source.id,), at)
        removed.append(source.id)
        fork = source.fork
    return Delete(tuple(removed), (), at)
