"""Lists, exports and imports streams, from an idle data directory or a running server."""
