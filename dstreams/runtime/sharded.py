"""A dictionary that grows without a long pause."""

from __future__ import annotations

from collections.abc import Hashable, ItemsView, Iterator, MutableMapping, ValuesView
from itertools import chain
from typing import Any, TypeVar, overload

SHARDS = 1 << 10
"""How many dictionaries a :class:`ShardedDict` consists of; at ten million entries, each grows in 2 ms."""

SHARD_SHIFT = 12
"""How many low bits of a hash don't count for the choice of a shard. Within a shard, a dictionary looks at these first;
and consecutive numbers fill a shard's table without a collision."""

SHARD_MASK = SHARDS - 1

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
_T = TypeVar("_T")


class ShardedDict(MutableMapping[_K, _V]):
    """A dictionary for millions of entries, divided into :data:`SHARDS` dictionaries by the keys' hashes.

    One dictionary copies all of its entries whenever its table is full: 50 ms with 350,000 entries, 300 ms with three
    million, in one reactor turn. Here each shard grows by itself. The order of the entries is not the order in which
    they were added. An empty one takes 72 KB.

    A hot path saves the call of a method by addressing the shard itself:
    ``d.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK]``.
    """

    __slots__ = ("shards",)

    def __init__(self) -> None:
        self.shards: list[dict[_K, _V]] = [{} for _ in range(SHARDS)]

    def shard(self, key: _K) -> dict[_K, _V]:
        """Return the dictionary that holds the key, if any does."""
        return self.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK]

    def __getitem__(self, key: _K) -> _V:
        return self.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK][key]

    def __setitem__(self, key: _K, value: _V) -> None:
        self.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK][key] = value

    def __delitem__(self, key: _K) -> None:
        del self.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK][key]

    def __contains__(self, key: object) -> bool:
        return key in self.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK]

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def __bool__(self) -> bool:
        return any(self.shards)

    def __iter__(self) -> Iterator[_K]:
        return chain.from_iterable(self.shards)

    # The rest works without these, but not as fast.

    @overload
    def get(self, key: _K, /) -> _V | None: ...

    @overload
    def get(self, key: _K, /, default: _V | _T) -> _V | _T: ...

    def get(self, key: _K, /, default: Any = None) -> Any:
        """Return the value of a key, or ``default``."""
        return self.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK].get(key, default)

    def values(self) -> ValuesView[_V]:
        """Return a view of the values."""
        return _Values(self)

    def items(self) -> ItemsView[_K, _V]:
        """Return a view of the keys with their values."""
        return _Items(self)

    def clear(self) -> None:
        """Remove all entries."""
        for shard in self.shards:
            shard.clear()

    def key_lists(self) -> Iterator[list[_K]]:
        """Return the keys, a short list at a time.

        Between two lists, entries may be added and removed; the keys of those appear or don't.
        """
        return map(list, self.shards)


class _Values(ValuesView[_V]):
    _mapping: ShardedDict[Hashable, _V]

    def __iter__(self) -> Iterator[_V]:
        return chain.from_iterable(map(dict.values, self._mapping.shards))


class _Items(ItemsView[_K, _V]):
    _mapping: ShardedDict[_K, _V]

    def __iter__(self) -> Iterator[tuple[_K, _V]]:
        return chain.from_iterable(map(dict.items, self._mapping.shards))
