"""Crashes, simulated: a disk that forgets what was not synced, and a driver that finds out whether it matters.

``disk`` is the disk, ``sqlite_vfs`` puts SQLite on it, ``expectation`` says what a store must hold after a history of
changes, ``machine`` runs a store on the disk, ``simulation`` drives it at random from a seed and checks it after every
crash, ``planted`` holds the bugs that the simulation has to find. ``python -m tests.crash --seeds 0-9999`` runs long.
"""
