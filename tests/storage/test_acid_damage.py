"""Damage in shards: a read of it is refused as such, a scrub finds it, and nothing else suffers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attrs import define

from dstreams.storage.acid import storage as acid_storage
from dstreams.storage.interface import StorageDamaged
from tests.storage.acid_stores import engine, now
from tests.support.engine import Engine

BINARY = "application/octet-stream"


@define(eq=False)
class Store:
    """Two streams of several chunks each, in one shard, none of them in memory."""

    engine: Engine
    path: Path

    def spoil(self, sql: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as database:
            database.execute(sql, values)

    def scrub(self) -> list[StorageDamaged]:
        """What a scrub finds."""
        return [error for step in self.engine.storage.scrub() for error in now(step).damaged]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store, opened again, so that nothing is in memory."""
    monkeypatch.setattr(acid_storage, "SCRUB_CHUNKS", 3)
    served = engine(tmp_path / "store", 1)
    for name in ("a", "b"):
        served.put(name, b"", BINARY)
        for number in range(5):
            served.post(name, bytes([number]) * 20_000, BINARY)
    now(served.storage.close())
    return Store(engine(tmp_path / "store", 1), tmp_path / "store/acid/shard_00.db")


class DamagedChunkTests:
    def test_read(self, store: Store) -> None:
        """A read that needs a damaged chunk is answered with a code of its own, and is counted; all others go on."""
        stream_id = store.engine.streams.find("a").id
        store.spoil("UPDATE chunks SET data = zeroblob(20000) WHERE stream_id = ? AND start = 40000", stream_id)
        damaged = store.engine.get("a")
        assert (damaged.status, damaged.code) == (500, "DATA_DAMAGED")
        assert store.engine.get("b").body == b"".join(bytes([number]) * 20_000 for number in range(5))
        assert store.engine.get("a", "0000000000000000_0000000000080000").body == b"\4" * 20_000
        assert store.engine.post("a", b"more", BINARY).status == 204
        assert store.engine.storage.damage.places == 1
        store.engine.get("a")
        assert store.engine.storage.damage.places == 1

    def test_missing_chunk(self, store: Store) -> None:
        """So is one that needs a chunk that isn't there."""
        stream_id = store.engine.streams.find("a").id
        store.spoil("DELETE FROM chunks WHERE stream_id = ? AND start = 40000", stream_id)
        assert store.engine.get("a").code == "DATA_DAMAGED"

    def test_scrub(self, store: Store) -> None:
        """A scrub reads every chunk, and finds each damaged one."""
        assert store.scrub() == []
        sizes = [now(step).size for step in store.engine.storage.scrub()]
        assert sum(sizes) == 200_000
        store.spoil("UPDATE chunks SET number = number + 1 WHERE start IN (20000, 60000)")
        assert len(store.scrub()) == 4
        store.engine.delete("a")
        assert {error.stream_id for error in store.scrub()} == {store.engine.streams.find("b").id}

    def test_damaged_page(self, store: Store) -> None:
        """A page that SQLite can't read is damage, too; a scrub goes on with the next shard."""
        content = bytearray(store.path.read_bytes())
        for page in range(2, len(content) // 4096):
            if content[page * 4096] in (2, 5, 10, 13):  # the b-tree pages
                content[page * 4096] = 77
        store.path.write_bytes(content)
        assert store.engine.get("a").code == "DATA_DAMAGED"
        assert len(store.scrub()) == 1
