"""Importing into a data directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dstreams.config.schema import Storage as StorageKeys
from dstreams.model.changes import Change
from dstreams.runtime.pending import at_once
from dstreams.runtime.threads import run_inline
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import StorageFull
from dstreams.streams.limits import StoreLimits
from dstreams.transfer.errors import InvalidDocument, TransferError
from dstreams.transfer.planning import OnConflict
from dstreams.transfer.store import open_storage
from tests.support.engine import Engine
from tests.transfer.stores import MODES, NOW, Document, document, every_mode, export, import_, payloads, stream


def store(path: Path, mode: str, *streams: Document) -> None:
    """Make a store with these streams in it."""
    import_(document(*streams), MODES[mode](path))


def serve(path: Path, mode: str = "file-fast") -> Engine:
    """A server over a store; close its streams before anything else is done with the store."""
    return Engine(MODES[mode](path), wall_ahead=NOW)


class ConflictTests:
    """Streams that are there already."""

    @every_mode
    def test_skip(self, tmp_path: Path, mode: str) -> None:
        """By default what is there is kept."""
        store(tmp_path, mode, stream("a", b"old"))
        imported = import_(document(stream("a", b"new"), stream("b", b"new")), MODES[mode](tmp_path))
        assert (imported.streams, imported.skipped) == (1, (("a", "existing"),))
        assert payloads(export(tmp_path)) == {"a": b"old", "b": b"new"}

    @every_mode
    def test_fail(self, tmp_path: Path, mode: str) -> None:
        """Nothing is imported when one of them is there."""
        store(tmp_path, mode, stream("b", b"old"))
        with pytest.raises(InvalidDocument, match="stream 'b' already exists"):
            import_(document(stream("a"), stream("b", b"new")), MODES[mode](tmp_path), OnConflict.FAIL)
        assert payloads(export(tmp_path)) == {"b": b"old"}

    @every_mode
    def test_replace(self, tmp_path: Path, mode: str) -> None:
        """The new one takes the place of the old one with all that belonged to it."""
        store(tmp_path, mode, stream("a", b"old", closed=True), stream("c", b"stays"))
        before = {each["name"]: each for each in export(tmp_path)["streams"]}["c"]
        imported = import_(
            document(stream("a", b'"new"', content_type="application/json")), MODES[mode](tmp_path), OnConflict.REPLACE
        )
        assert (imported.streams, imported.skipped) == (1, ())
        after = {each["name"]: each for each in export(tmp_path)["streams"]}
        assert after["c"] == before
        assert after["a"]["config"]["content_type"] == "application/json"
        assert not after["a"]["closed"]
        engine = serve(tmp_path, mode)
        assert engine.get("a").body == b'["new"]'
        charges = engine.storage.charges
        names = len("a") + len("application/json") + len("c") + len("text/plain")
        assert engine.used == len(b'"new",') + len(b"stays") + names + 2 * (charges.stream + charges.message)

    @every_mode
    @pytest.mark.parametrize(
        "bad",
        [
            stream("z", b"1 2", content_type="application/json"),
            stream("z", messages=[{"data_base64": "?"}]),
            stream("z", b"x" * 1001),
            stream("/z"),
        ],
    )
    def test_bad_input(self, tmp_path: Path, mode: str, bad: Document) -> None:
        """Whatever is wrong anywhere in a document, no old stream is lost to it."""
        store(tmp_path, mode, stream("a", b"old"))
        before = export(tmp_path)
        with pytest.raises(InvalidDocument):
            import_(
                document(stream("a", b"new"), bad),
                MODES[mode](tmp_path),
                OnConflict.REPLACE,
                StoreLimits(stream_bytes=1000),
            )
        assert export(tmp_path) == before

    def test_expired(self, tmp_path: Path) -> None:
        """A stream that is over takes no name."""
        store(tmp_path, "file-fast", stream("a", b"old", config={"content_type": "text/plain", "ttl_seconds": 5}))
        imported = import_(document(stream("a", b"new")), MODES["file-fast"](tmp_path), OnConflict.FAIL, now=NOW + 1000)
        assert imported.streams == 1
        assert payloads(export(tmp_path, now=NOW + 1000)) == {"a": b"new"}

    def test_bad_document_makes_no_store(self, tmp_path: Path) -> None:
        """A wrong document doesn't even make an empty store."""
        with pytest.raises(InvalidDocument):
            import_(b"{", MODES["file-fast"](tmp_path / "new"))
        assert not (tmp_path / "new").exists()


class ForkTests:
    """Replacing streams that have forks."""

    @every_mode
    def test_with_forks(self, tmp_path: Path, mode: str) -> None:
        """A stream is replaced together with its forks when the document has them all."""
        engine = serve(tmp_path, mode)
        engine.put("source", b"one")
        engine.fork("fork", "source", b"own")
        engine.fork("fork/of/fork", "fork", b"more")
        at_once(engine.streams.close())
        saved = export(tmp_path)
        engine = serve(tmp_path, mode)
        for name in ("source", "fork", "fork/of/fork"):
            engine.post(name, b"later")
        at_once(engine.streams.close())
        import_(saved, MODES[mode](tmp_path), OnConflict.REPLACE)
        assert export(tmp_path) == saved
        charges = MODES[mode](tmp_path).charges
        names = sum(len(name) + len("text/plain") for name in payloads(export(tmp_path)))
        assert serve(tmp_path, mode).used == len(b"one" + b"own" + b"more") + names + 3 * (
            charges.stream + charges.message
        )

    @every_mode
    def test_turned_round(self, tmp_path: Path, mode: str) -> None:
        """What was the fork may be the source now."""
        for source, fork in (("a", "b"), ("b", "a")):
            engine = serve(tmp_path / source, mode)
            engine.put(source, source.encode())
            engine.fork(fork, source, b"own")
            at_once(engine.streams.close())
        wanted = export(tmp_path / "b")
        import_(wanted, MODES[mode](tmp_path / "a"), OnConflict.REPLACE)
        assert export(tmp_path / "a") == wanted

    @every_mode
    def test_fork_stays(self, tmp_path: Path, mode: str) -> None:
        """A stream with a fork that isn't in the document cannot be replaced; the fork is named."""
        engine = serve(tmp_path, mode)
        engine.put("source", b"one")
        engine.fork("fork", "source")
        at_once(engine.streams.close())
        before = export(tmp_path)
        with pytest.raises(InvalidDocument, match="'source' cannot be replaced: 'fork' is a fork of it"):
            import_(document(stream("source", b"new")), MODES[mode](tmp_path), OnConflict.REPLACE)
        assert export(tmp_path) == before

    @every_mode
    def test_deleted_source(self, tmp_path: Path, mode: str) -> None:
        """The name of a deleted stream that its forks keep is taken, and is free with the forks."""
        engine = serve(tmp_path, mode)
        engine.put("source", b"one")
        engine.fork("fork", "source")
        engine.delete("source")
        at_once(engine.streams.close())
        given = document(stream("fork", b"new"), stream("source", b"new"))
        assert import_(given, MODES[mode](tmp_path)).streams == 0
        with pytest.raises(InvalidDocument, match="'source' cannot be replaced"):
            import_(document(stream("source", b"new")), MODES[mode](tmp_path), OnConflict.REPLACE)
        assert import_(given, MODES[mode](tmp_path), OnConflict.REPLACE).streams == 2
        assert payloads(export(tmp_path)) == {"fork": b"new", "source": b"new"}


class LimitTests:
    """The limits of the configuration."""

    def test_stream(self, tmp_path: Path) -> None:
        """A stream beyond limits.max_stream_bytes is named; one of exactly as many bytes is taken."""
        given = document(stream("a", b"x" * 100), stream("b", b"x" * 101))
        with pytest.raises(InvalidDocument, match=r"'b' has 101 bytes; limits\.max_stream_bytes allows 100"):
            import_(given, MODES["file-fast"](tmp_path), limits=StoreLimits(1000, 100))
        assert export(tmp_path)["streams"] == []

    def test_total(self, tmp_path: Path) -> None:
        """All streams together must fit, those that are there included and those that are replaced not."""
        store(tmp_path, "file-fast", stream("a", b"x" * 60))
        given = document(stream("a", b"x" * 70), stream("b", b"x" * 30))
        charges = MODES["file-fast"](tmp_path).charges
        fixed = 2 * (charges.stream + len("a") + len("text/plain") + charges.message)
        with pytest.raises(
            InvalidDocument, match=f"streams together would have {100 + fixed} bytes; the configuration"
        ):
            import_(given, MODES["file-fast"](tmp_path), OnConflict.REPLACE, StoreLimits(99 + fixed, 100))
        with pytest.raises(InvalidDocument, match=f"would have {90 + fixed} bytes"):
            import_(given, MODES["file-fast"](tmp_path), OnConflict.SKIP, StoreLimits(89 + fixed, 100))
        import_(given, MODES["file-fast"](tmp_path), OnConflict.REPLACE, StoreLimits(100 + fixed, 100))
        assert {name: len(data) for name, data in payloads(export(tmp_path)).items()} == {"a": 70, "b": 30}

    def test_forks_count_their_own(self, tmp_path: Path) -> None:
        """What a fork shares with its source counts once."""
        engine = serve(tmp_path / "a")
        engine.put("source", b"x" * 80)
        engine.fork("fork", "source", b"y" * 20)
        at_once(engine.streams.close())
        given = export(tmp_path / "a")
        import_(given, MODES["file-fast"](tmp_path / "b"), limits=StoreLimits(stream_bytes=80))

    @every_mode
    def test_costs_what_it_cost(self, tmp_path: Path, mode: str) -> None:
        """A document needs exactly the bytes that its streams used where they came from."""
        engine = serve(tmp_path / "a", mode)
        engine.put("text")
        engine.produce("text", "producer", 0, 0)
        engine.produce("text", "producer", 0, 1)
        engine.produce("text", "another", 3, 0, stream_seq="abc")
        engine.put_json("json", b"[1,2,3]")
        engine.fork("fork", "json", b"[4]")
        engine.produce("fork", "closer", 0, 0, content_type="application/json", body=b"5", stream_closed="true")
        used = engine.used
        at_once(engine.streams.close())
        given = export(tmp_path / "a")
        with pytest.raises(InvalidDocument, match=f"would have {used} bytes; the configuration allows {used - 1}"):
            import_(given, MODES[mode](tmp_path / "b"), limits=StoreLimits(used - 1))
        import_(given, MODES[mode](tmp_path / "b"), limits=StoreLimits(used))
        assert serve(tmp_path / "b", mode).used == used

    def test_number_of_streams(self, tmp_path: Path) -> None:
        """There are never more streams than limits.max_streams; those that are replaced don't count twice."""
        store(tmp_path, "file-fast", stream("a"), stream("b"))
        given = document(stream("a", b"new"), stream("c", b"new"))
        with pytest.raises(InvalidDocument, match=r"there would be 3 streams; limits\.max_streams allows 2"):
            import_(given, MODES["file-fast"](tmp_path), limits=StoreLimits(streams=2))
        import_(document(stream("a", b"new")), MODES["file-fast"](tmp_path), OnConflict.REPLACE, StoreLimits(streams=1))
        import_(given, MODES["file-fast"](tmp_path), OnConflict.REPLACE, StoreLimits(streams=3))

    def test_number_of_producers(self, tmp_path: Path) -> None:
        """A stream with more producers than limits.max_producers is named; the one that closed it counts once."""
        engine = serve(tmp_path / "a")
        engine.put("s")
        engine.produce("s", "p", 0, 0)
        engine.produce("s", "q", 0, 0, stream_closed="true")
        at_once(engine.streams.close())
        given = export(tmp_path / "a")
        with pytest.raises(InvalidDocument, match=r"'s' has 2 producers; limits\.max_producers allows 1"):
            import_(given, MODES["file-fast"](tmp_path / "b"), limits=StoreLimits(producers=1))
        import_(given, MODES["file-fast"](tmp_path / "b"), limits=StoreLimits(producers=2))


class FailingTests:
    """Disks that fail."""

    def test_full(self, tmp_path: Path) -> None:
        """What was stored before stays, and what could not be stored is there as a whole or not at all."""

        class Filling(FileStorage):
            commits = 0

            def commit(self, changes: Sequence[Change]) -> None:
                Filling.commits += 1
                if Filling.commits > 1:
                    raise StorageFull("no room left")
                super().commit(changes)

        given = document(*(stream(f"s{number:04}", b"x") for number in range(700)))
        with pytest.raises(TransferError, match="storing failed: no room left"):
            import_(given, Filling(str(tmp_path), None, run_inline))
        found = export(tmp_path)
        assert len(found["streams"]) == 500  # one commit's
        assert set(payloads(found).values()) == {b"x"}


class StorageTests:
    """Which storage is meant."""

    @pytest.mark.parametrize("keys", [StorageKeys(mode="memory"), StorageKeys(mode="acid", acid_backend="in-memory")])
    def test_memory(self, keys: StorageKeys) -> None:
        """Storage in memory has no directory; the operator is told about --url."""
        with pytest.raises(TransferError, match=r"storage is in memory .* use --url"):
            open_storage(keys)

    @pytest.mark.parametrize("mode", MODES)
    def test_mode(self, mode: str, tmp_path: Path) -> None:
        """The mode is the configured one."""
        assert open_storage(StorageKeys(mode=mode, data_dir=str(tmp_path))).name == mode
