"""Storage of committed changes: the interface that the engine commits to and reads from, and its backends."""
