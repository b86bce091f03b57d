"""DELETE: delete a stream (PROTOCOL 5.4)."""

from __future__ import annotations

from dstreams.http.caching import NO_STORE
from dstreams.http.context import Context
from dstreams.http.messages import Request, Response
from dstreams.runtime.pending import Pending, map_result


def delete(context: Context, request: Request, name: str) -> Pending[Response]:
    """Delete the stream: 204."""
    return map_result(context.streams.delete(name), lambda _: Response(204, NO_STORE))
