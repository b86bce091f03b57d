"""Makes the HTTP/2 connections of listeners."""

from __future__ import annotations

from dstreams.http.factories import ConnectionFactory
from dstreams.http.http2.connection import Http2Connection


class Http2Factory(ConnectionFactory[Http2Connection]):
    """Makes HTTP/2 connections."""

    def make(self) -> Http2Connection:
        """What speaks on a new connection."""
        return Http2Connection(self._application, self._wheel, self._limits, self._date, self._connections)
