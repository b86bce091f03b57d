"""Delete and soft delete, including ancestors that are no longer needed (PROTOCOL 4.2, 5.4)."""

from __future__ import annotations

from dstreams.model.catalog import AnyCatalog
from dstreams.model.changes import Delete, SoftDelete
from dstreams.model.state import StreamState


def plan(catalog: AnyCatalog, state: StreamState, at: float) -> Delete | SoftDelete:
    """Return the change that deletes a stream.

    A stream with forks is only marked as deleted. A stream without forks is removed, together with every soft-deleted
    ancestor that has no other fork.
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
