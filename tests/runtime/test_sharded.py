"""Tests for the dictionary that grows without a long pause."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.runtime.sharded import SHARD_SHIFT, SHARDS, ShardedDict

KEYS = st.one_of(st.text(max_size=2), st.integers(0, 5), st.integers(0, 1 << 62))
STEPS = st.lists(st.tuples(st.sampled_from(["set", "delete", "pop", "setdefault"]), KEYS, st.integers()))


def filled(*keys: Any) -> ShardedDict[Any, Any]:
    """A dictionary in which each key is its own value."""
    found: ShardedDict[Any, Any] = ShardedDict()
    for key in keys:
        found[key] = key
    return found


class ShardedDictTests:
    @given(STEPS)
    def test_it_is_a_dictionary(self, steps: list[tuple[str, Any, int]]) -> None:
        """Whatever is added and removed, the entries are a dictionary's."""
        ours: ShardedDict[Any, Any] = ShardedDict()
        expected: dict[Any, Any] = {}
        for step, key, value in steps:
            if step == "set":
                ours[key] = expected[key] = value
            elif step == "pop":
                assert ours.pop(key, None) == expected.pop(key, None)
            elif step == "setdefault":
                assert ours.setdefault(key, value) == expected.setdefault(key, value)
            elif key in expected:
                del ours[key], expected[key]
            assert ours == expected
            assert ours.get(key, 7) == expected.get(key, 7)
            assert (key in ours) == (key in expected)
        assert len(ours) == len(expected)
        assert bool(ours) == bool(expected)
        assert dict(ours.items()) == expected
        assert sorted(map(str, ours.values())) == sorted(map(str, expected.values()))
        assert set(ours) == set(expected)
        ours.clear()
        assert not ours
        assert len(ours) == 0

    def test_a_missing_key(self) -> None:
        """A missing key raises KeyError when it is looked up and when it is removed."""
        with pytest.raises(KeyError):
            filled()["a"]
        with pytest.raises(KeyError):
            del filled()["a"]

    @pytest.mark.parametrize("first", [0, 1_790_000_000_000_000_000 >> 10])
    def test_consecutive_numbers_are_spread(self, first: int) -> None:
        """A million stream ids fill many shards evenly: none holds more than one run of them."""
        found = filled(*range(first, first + 1_000_000))
        assert max(map(len, found.shards)) <= 1 << SHARD_SHIFT

    def test_names_are_spread(self) -> None:
        """No shard holds much more of 100,000 names than the others."""
        found = filled(*(f"stream/{number}" for number in range(100_000)))
        assert max(map(len, found.shards)) < 2 * 100_000 / SHARDS

    def test_key_lists_while_entries_change(self) -> None:
        """Keys that stay are listed once, whatever is added and removed between two lists."""
        names = [f"stream/{number}" for number in range(5000)]
        found = filled(*names)
        listed: list[str] = []
        for number, some in enumerate(found.key_lists()):
            listed += some
            found[f"more/{number}"] = None
            del found[names[number]]
        assert set(names[SHARDS:]) <= set(listed)
        assert len(listed) == len(set(listed))
        assert len(listed) < 7000
