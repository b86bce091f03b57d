"""The engine: validates requests against streams, commits the resulting changes, and wakes live readers."""
