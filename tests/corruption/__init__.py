"""Damaged stores: whatever is flipped, zeroed or cut off in any file, no wrong byte is ever answered with 200.

``trial`` makes a store in one of the persistent modes, damages a copy of it by a seed, and compares what
``durable-streams check`` says with what a start does and what its reads answer. ``python -m tests.corruption`` runs
many seeds.
"""
