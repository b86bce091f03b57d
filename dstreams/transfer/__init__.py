"""Moving streams: listing, exporting and importing them, from an idle data directory or a running server."""
