"""Limits on the number of streams and producers, in every mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dstreams.http.messages import Request, Response
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid import AcidStorage
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import Storage, StorageError
from dstreams.storage.memory import MemoryStorage
from dstreams.storage.sync import ThreadSyncer
from dstreams.streams.limits import StoreLimits
from tests.support.engine import DelayedStorage, Engine, FailingStorage, Reply

pytestmark = pytest.mark.usefixtures("failures")

PERSISTENT: dict[str, Callable[[Path], Storage]] = {
    "file-fast": lambda path: FileStorage(str(path), None, run_inline),
    "file-durable": lambda path: FileStorage(str(path), lambda: ThreadSyncer(run_inline), run_inline),
    "acid": lambda path: AcidStorage(str(path), 4, run_inline),
}
MODES: dict[str, Callable[[Path], Storage]] = {
    **PERSISTENT,
    "memory": lambda _: MemoryStorage(),
    "acid in memory": lambda _: AcidStorage("", 4, run_inline, in_memory=True),
    "delayed": lambda _: DelayedStorage(),
}
"""How the storage of each mode is made."""

every_mode = pytest.mark.parametrize("mode", MODES)


def settle(engine: Engine, *replies: Reply) -> list[int]:
    """The statuses of replies, once the changes before them are durable."""
    if isinstance(engine.storage, DelayedStorage):
        engine.storage.finish_all()
    return [reply.status for reply in replies]


def same_early(engine: Engine, request: Request) -> Reply:
    """The answer to a request; it must be the one that its head alone gets."""
    head = Request(request.method, request.path, request.query, request.headers, request.content_length)
    early, final = engine.application.validate_head(head), engine.application.respond(request)
    assert early is not None
    assert isinstance(final, Response)
    assert (early.status, early.head, early.body) == (final.status, final.head, final.body)
    return Reply(final)


class StreamTests:
    """``limits.max_streams``."""

    @every_mode
    def test_limit(self, mode: str, tmp_path: Path) -> None:
        """One stream more is refused, from its head on; a deleted stream that has forks counts until they go."""
        engine = Engine(MODES[mode](tmp_path), StoreLimits(streams=3))
        settle(engine, engine.put("source"), engine.put("other"))
        settle(engine, engine.fork("fork", "source"))
        assert settle(engine, engine.delete("source")) == [204]
        for body, more in [
            (b"", {"content_type": "text/plain"}),
            (b"not json", {"content_type": "application/json"}),
            (b"", {"stream_forked_from": "/v1/stream/none"}),
        ]:
            refused = same_early(engine, engine.request("PUT", "new", body, **more))
            assert (refused.status, refused.code) == (507, "TOO_MANY_STREAMS")
        assert engine.put("other").status == 200
        assert settle(engine, engine.delete("fork")) == [204]
        assert settle(engine, engine.put("new")) == [201]
        assert engine.streams.statistics().streams == 2

    def test_changes_in_flight_count(self, failures: list[str]) -> None:
        """Accepted creates and deletes count at once, and no more when their commit has failed."""
        storage = DelayedStorage()
        engine = Engine(storage, StoreLimits(streams=2))
        replies = [engine.put("a"), engine.put("b"), engine.put("c")]
        assert settle(engine, *replies) == [201, 201, 507]
        replies = [engine.delete("a"), engine.put("c"), engine.put("d")]
        storage.fail()
        assert [reply.status for reply in replies] == [503, 503, 503]
        replies = [engine.put("c"), engine.delete("a"), engine.put("c")]
        assert settle(engine, *replies) == [507, 204, 201]
        failures.clear()

    def test_failed_create(self, failures: list[str]) -> None:
        """A create whose commit fails at once doesn't count."""
        storage = FailingStorage()
        engine = Engine(storage, StoreLimits(streams=1))
        storage.error = StorageError("disk")
        assert engine.put("s").status == 503
        storage.error = None
        assert engine.put("s").status == 201
        assert engine.put("t").status == 507
        failures.clear()


class ProducerTests:
    """``limits.max_producers``."""

    @every_mode
    def test_limit(self, mode: str, tmp_path: Path) -> None:
        """One producer more is refused, from its head on; known ones, other streams and plain appends go on."""
        engine = Engine(MODES[mode](tmp_path), StoreLimits(producers=2))
        settle(engine, engine.put("s"), engine.put_json("json"), engine.put("t"))
        for each in "pq":
            settle(engine, engine.produce("s", each, 0, 0))
            settle(engine, engine.produce("json", each, 0, 0, b"1", content_type="application/json"))
        new = {"producer_id": "new", "producer_epoch": "0", "producer_seq": "0"}
        for name, content_type, body in [("s", "text/plain", b"x"), ("json", "application/json", b"not json")]:
            refused = same_early(engine, engine.request("POST", name, body, content_type=content_type, **new))
            assert (refused.status, refused.code) == (409, "TOO_MANY_PRODUCERS")
        replies = [
            engine.produce("s", "new", 0, 1),
            engine.produce("s", "p", 0, 0),
            engine.produce("s", "p", 1, 0),
            engine.produce("s", "q", 0, 1),
            engine.post("s", b"x"),
            engine.produce("t", "new", 0, 0),
        ]
        assert settle(engine, *replies) == [409, 204, 200, 200, 204, 200]
        assert replies[0].code == "SEQUENCE_CONFLICT"

    def test_producers_in_flight_count(self) -> None:
        """Each producer of the appends in flight counts once, whether the stream has it already or not."""
        engine = Engine(DelayedStorage(), StoreLimits(producers=3))
        settle(engine, engine.put("s"))
        settle(engine, engine.produce("s", "p", 0, 0))
        replies = [engine.produce("s", *numbers) for numbers in [("p", 0, 1), ("q", 0, 0), ("p", 0, 2), ("r", 0, 0)]]
        refused = engine.produce("s", "new", 0, 0)
        assert settle(engine, *replies) == [200] * 4
        assert refused.code == "TOO_MANY_PRODUCERS"


class LoweredTests:
    """A store that has more than its limits allow now."""

    def test_served(self) -> None:
        """All that is there is served; only what is new is refused."""
        storage = DelayedStorage()
        engine = Engine(storage)
        settle(engine, engine.put("s"), engine.put("t"), engine.put("u"))
        settle(engine, *[engine.produce("s", producer, 0, 0) for producer in "pqr"])
        lowered = Engine(DelayedStorage(journal=storage.journal), StoreLimits(streams=1, producers=1))
        assert lowered.put("new").status == 507
        assert lowered.produce("s", "new", 0, 0).code == "TOO_MANY_PRODUCERS"
        assert settle(lowered, *[lowered.produce("s", each, 0, 1) for each in "pqr"]) == [200] * 3
        assert lowered.get("s").body == b"x" * 6
        assert settle(lowered, lowered.delete("t")) == [204]
        assert lowered.put("new").status == 507


class ChargeTests:
    """What counts besides payload."""

    @every_mode
    def test_total(self, mode: str, tmp_path: Path) -> None:
        """Streams and producers without payload fill a store in every mode."""
        engine = Engine(MODES[mode](tmp_path), StoreLimits(total_bytes=10_000))
        made = 0
        while settle(engine, engine.put(f"s{made}")) == [201]:
            made += 1
        assert 5 <= made <= 10
        assert engine.put("more").code == "PAYLOAD_TOO_LARGE"
        settle(engine, engine.delete("s0"))
        added = 0
        while settle(engine, engine.produce("s1", f"p{added}", 0, 0)) == [200]:
            added += 1
        assert 1 <= added <= 10
        assert engine.produce("s1", "more", 0, 0).code == "PAYLOAD_TOO_LARGE"
        assert engine.used <= 10_000

    @pytest.mark.parametrize("mode", PERSISTENT)
    def test_restart(self, mode: str, tmp_path: Path) -> None:
        """After a restart the same counts."""
        engine = Engine(MODES[mode](tmp_path))
        engine.put("s", b"12345")
        engine.produce("s", "p", 0, 0, stream_seq="abc")
        engine.fork("f", "s")
        used = engine.used
        engine.streams.close()
        again = Engine(MODES[mode](tmp_path))
        assert again.used == used
        assert again.streams.statistics().streams == 2
