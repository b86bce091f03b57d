"""Who may keep an answer, and for how long (PROTOCOL 10.1, 12.7).

A server can't know whether a stream is private, so nothing may be kept unless the operator says so.
"""

from __future__ import annotations

from dstreams.http.context import Context
from dstreams.model.changes import StreamConfig

NO_STORE = b"Cache-Control: no-store\r\n"

MAX_AGE = 60
"""Seconds for which an answer to a read is fresh."""

STALE_WHILE_REVALIDATE = 300
"""Seconds for which it may still be served while it is fetched anew."""


def for_read(context: Context, config: StreamConfig) -> bytes:
    """The ``Cache-Control`` line of an answer that carries messages.

    :return: what the operator allows, but never for longer than the stream itself may live.
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
