"""The ``acid`` mode: SQLite databases, one transaction for each group of changes and shard.

    <data_dir>/store.json       layout, format, number of shards, hash
    <data_dir>/shards.json      the store's identity; written when all of its shards exist
    <data_dir>/lock             held by the server that uses the directory
    <data_dir>/acid/shard_00.db and so on: hexadecimal, up to the number of shards

``shard`` describes a database, ``chunks`` how a stream's bytes lie in it. A stream lives in the shard that the
CRC-32 of its name says, a fork in its source's, so that whatever touches a family of forks is one transaction.

The way of a group: ``group`` works out on the reactor's thread what to write, ``writer`` writes it in a thread:
first the statements of all shards, then their commits, those in parallel. Recent bytes stay in memory (``tails``);
``readers`` and ``source`` fetch older ones in a thread. ``maintenance`` runs checkpoints and removes deleted streams.

When is a group of several shards half committed? After a crash between two commits: nothing of it had been
acknowledged, every stream's part is whole, and opening the store settles the one rule that spans shards (see
``recovery``). Else only when one shard's commit fails after another's has succeeded: then the disk says more than
the memory, and the store takes no more changes until it is opened again.
"""

from dstreams.storage.acid.storage import AcidStorage

__all__ = ["AcidStorage"]
