"""Crashes, simulated: a disk that forgets what was not synced, and a driver that finds out whether it matters.

``disk`` is the disk, ``sqlite_vfs`` puts SQLite on it, ``machine`` runs a store there as one process. ``expectation``
and ``history`` say what the store must hold. ``workload`` are random clients; ``simulation`` lets them work from a
seed and checks the store after every crash; ``planted`` holds the bugs that it has to find. ``script`` is a fixed life
in which every call can be made to fail. ``python -m tests.crash --seeds 0-9999`` runs long.
"""
