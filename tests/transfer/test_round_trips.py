"""Exporting and importing again, from every mode into every mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstreams.model.state import StreamState
from dstreams.runtime.pending import at_once
from dstreams.runtime.progress import silently
from dstreams.storage.snapshot import Snapshot, open_snapshot
from dstreams.streams import reading
from tests.support.engine import Engine
from tests.transfer.stores import MODES, NOW, every_mode, export, fill, filled, import_


def told(state: StreamState, snapshot: Snapshot) -> tuple[object, ...]:
    """All that is known of a stream, but for its number."""
    pieces = reading.lineage(snapshot.sources, snapshot.catalog, state)
    data = b"".join(at_once(piece.source.read(piece.begin, piece.end)) for piece in pieces)
    entries = list(at_once(reading.entries(pieces[-1:], state.start, 1000))) if state.size else []
    fork = state.fork
    return (
        data,
        entries,
        (state.name, state.config, state.start, state.tail, state.messages, state.forks),
        (state.created_at, state.updated_at, state.closed, state.closed_by, state.stream_seq),
        state.producers or {},
        fork and (fork.source_name, fork.position, fork.anchor, fork.sub_offset, fork.inherits_expiry),
    )


def contents(directory: Path) -> dict[str, tuple[object, ...]]:
    """All streams of a store that are there for clients."""
    with open_snapshot(str(directory), silently) as snapshot:
        states = snapshot.catalog.streams.values()
        return {state.name: told(state, snapshot) for state in states if not state.soft_deleted}


class RoundTripTests:
    """What comes back."""

    @every_mode
    @pytest.mark.parametrize("target", MODES)
    def test_equal(self, tmp_path: Path, mode: str, target: str) -> None:
        """A store that was exported and imported is exported as the same document."""
        filled(MODES[mode](tmp_path / "a"))
        first = export(tmp_path / "a")
        imported = import_(first, MODES[target](tmp_path / "b"))
        assert imported.streams == len(first["streams"]) == 17
        assert imported.skipped == ()
        assert export(tmp_path / "b") == first

    @every_mode
    def test_exactly(self, tmp_path: Path, mode: str) -> None:
        """Bytes, message and append ends, forks, producers, Stream-Seq, closure and times come back as they were."""
        filled(MODES[mode](tmp_path / "a"))
        import_(export(tmp_path / "a"), MODES[mode](tmp_path / "b"))
        before, after = contents(tmp_path / "a"), contents(tmp_path / "b")
        # Its source was deleted: it is a stream of its own now, with the same bytes.
        orphans = before.pop("orphan"), after.pop("orphan")
        assert orphans[0][0] == orphans[1][0] == b"inheritedown"
        assert after == before

    @every_mode
    def test_answers(self, tmp_path: Path, mode: str) -> None:
        """A server over the imported store answers as the one before did: duplicates, refusals, forks."""
        filled(MODES[mode](tmp_path / "a"))
        import_(export(tmp_path / "a"), MODES[mode](tmp_path / "b"))
        engine = Engine(MODES[mode](tmp_path / "b"), wall_ahead=NOW)
        assert engine.produce("produced", "p", 0, 1).status == 204
        assert engine.produce("produced", "p", 0, 3).headers["producer-expected-seq"] == "2"
        assert engine.produce("closed%20by%20a%20producer", "p", 2, 0, stream_closed="true").status == 204
        assert engine.post("logs/text", b"x", stream_seq="07\xff").status == 409
        assert engine.fork("a%20fork%20of%20text", "logs/text").status == 200
        assert engine.head("logs/text").headers["content-type"] == "Text/Plain; charset=utf-8"
        assert engine.get("json").body == (b'[1,{"b": 1e2, "a": [ ]},[1,[2]],"\\u20ac",12345678901234567890.0,-0]')
        assert engine.get("fork/within").body == b"onet"

    def test_ttl_begins_anew(self, tmp_path: Path) -> None:
        """A backup may be old: a TTL runs from the import on, an Expires-At stays what it was."""
        filled(MODES["file-fast"](tmp_path / "a"))
        saved = export(tmp_path / "a")
        later = NOW + 1_000_000
        import_(saved, MODES["file-fast"](tmp_path / "b"), now=later)
        engine = Engine(MODES["file-fast"](tmp_path / "b"), wall_ahead=later)
        assert engine.get("ttl").status == 200
        engine.clock.advance(100_001 + 31)
        assert engine.get("ttl").status == 404
        assert engine.get("absolute").status == 200

    def test_shared_again(self, tmp_path: Path) -> None:
        """Forks share the bytes of their sources again: what they inherit isn't stored twice."""
        engine = Engine(MODES["file-fast"](tmp_path / "a"))
        engine.put("source", b"x" * 1000)
        for number in range(10):
            engine.fork(f"fork{number}", "source", b"y")
        used = engine.used
        at_once(engine.streams.close())
        import_(export(tmp_path / "a"), MODES["file-fast"](tmp_path / "b"))
        charges = engine.storage.charges
        assert used < 1010 + 11 * (charges.stream + charges.message + 30)
        assert Engine(MODES["file-fast"](tmp_path / "b"), wall_ahead=NOW).used == used

    def test_after_a_crash(self, tmp_path: Path) -> None:
        """A store that nobody closed is exported whole, and nothing of it is written in the file modes."""
        storage = MODES["file-durable"](tmp_path / "a")
        engine = Engine(storage)
        fill(engine)
        storage._lock.release()  # type: ignore[attr-defined]
        storage._checkpoints.close()  # type: ignore[attr-defined]
        files = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.parent.name != "a"}
        first = export(tmp_path / "a")
        assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.parent.name != "a"} == files
        assert len(first["streams"]) == 17
        Engine(MODES["file-durable"](tmp_path / "a"), wall_ahead=NOW)  # it opens as ever
