"""The ``acid`` mode: SQLite databases, one transaction for each group of changes and shard.

    <data_dir>/store.json       layout, format, number of shards, hash
    <data_dir>/shards.json      the store's identity; written when all of its shards exist
    <data_dir>/lock             held by the server that uses the directory
    <data_dir>/acid/shard_00.db and so on: hexadecimal, up to the number of shards

``shard`` describes a database, and ``chunks`` describes how a stream's bytes are stored in it. The CRC-32 of a stream's
name determines its shard. A fork is stored in its source's shard, so that every change to a family of forks is one
transaction.

A group is planned in the reactor's thread (``group``) and written in another thread (``writer``): first the statements
of all shards, then their commits, in parallel. Recent bytes stay in memory (``tails``); ``readers`` and ``source``
fetch older ones in a thread. ``maintenance`` runs checkpoints and removes deleted streams.

A group of several shards can be committed in part in two cases. The first is a crash between two commits. Then nothing
of the group had been acknowledged, every stream's part is complete, and opening the store restores the only rule that
spans shards (see ``recovery``). The second is a commit that fails after another shard's has succeeded. Then the disk
contains more than the memory, and the store takes no more changes until it is opened again.
"""

from dstreams.storage.acid.storage import AcidStorage

__all__ = ["AcidStorage"]
