"""A few dozen damaged stores of each mode; ``python -m tests.corruption`` runs many more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from unittest.mock import ANY

import pytest

from dstreams.storage.files import runs
from tests.corruption.trial import Failed, kind_of, make, run

TRIALS = 24


class CorruptionTests:
    @pytest.mark.parametrize("mode", ["acid", "file-durable", "file-fast"])
    def test_any_damage(self, mode: str, tmp_path: Path) -> None:
        """No wrong byte is answered with 200, nothing ends in a traceback, and a check finds what a start refuses."""
        template = make(mode, tmp_path)
        outcomes = Counter(run(template, seed, tmp_path) for seed in range(TRIALS))
        assert outcomes["refused"]
        assert outcomes["right"]

    @pytest.mark.parametrize(
        ("mode", "kinds"),
        [
            ("acid", {"shard_.db", "shard_.db-wal", "shards.json", "store.json"}),
            (
                "file-durable",
                {".data", ".index", ".sums", ".log", "spare", "catalog.db", "catalog.db-wal", "store.json"},
            ),
            ("file-fast", {".data", ".index", ".sums", ".log", "catalog.db", "catalog.db-wal", "store.json"}),
        ],
    )
    def test_every_kind_of_file(self, mode: str, kinds: set[str], tmp_path: Path) -> None:
        """The stores that are damaged have every kind of file that a store can have, none of them empty."""
        template = make(mode, tmp_path)
        found = {kind_of(path) for path in template.directory.rglob("*") if path.is_file() and path.stat().st_size}
        assert found - {"shard_.db-shm", "catalog.db-shm", "lock", "reserve"} == kinds

    def test_planted_mistake(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that doesn't compare data with its checksums is found out."""
        template = make("file-durable", tmp_path)
        monkeypatch.setattr(runs, "crc32", lambda *_: ANY)
        with pytest.raises(Failed, match="the stream"):
            [run(template, seed, tmp_path) for seed in range(4 * TRIALS)]
