"""Cache-Control: who may cache a response, and for how long (PROTOCOL 10.1, 12.7).

The server cannot know whether a stream is private, so nothing may be cached unless the operator allows it.
"""

from __future__ import annotations

from dstreams.http.context import Context
from dstreams.model.changes import StreamConfig

NO_STORE = b"Cache-Control: no-store\r\n"

MAX_AGE = 60
"""Seconds for which a cached response is fresh."""

STALE_WHILE_REVALIDATE = 300
"""Seconds for which a stale response may still be served while it is revalidated."""


def for_read(context: Context, config: StreamConfig) -> bytes:
    """Return the ``Cache-Control`` line of a response that carries messages.

    :return: what the operator allows, but never longer than the stream may exist.
    """
    scope = context.settings.cache
    if scope == "no-store":
        return NO_STORE
    age = float(MAX_AGE)
    if config.ttl is not None:
        age = min(age, config.ttl)
    if config.expires_at is not None:
        age = min(age, max(0.0, config.expires_at - context.clocks.wall()))
    stale = STALE_WHILE_REVALIDATE if not config.expires else 0
    return b"Cache-Control: %b, max-age=%d, stale-while-revalidate=%d\r\n" % (scope.encode(), age, stale)
