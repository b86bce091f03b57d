"""The engine: validates requests against streams, commits what follows from them, wakes who waits."""
