"""What the tests of exports and imports share: a store with everything in it, in any mode, and documents of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstreams.protocol.names import NameLimits
from dstreams.runtime.pending import at_once
from dstreams.runtime.progress import silently
from dstreams.runtime.threads import run_inline
from dstreams.storage.acid import AcidStorage
from dstreams.storage.files.store import FileStorage
from dstreams.storage.interface import Storage
from dstreams.storage.snapshot import open_snapshot
from dstreams.storage.sync import ThreadSyncer
from dstreams.streams.limits import StoreLimits
from dstreams.transfer.directory import DirectoryStreams
from dstreams.transfer.exporting import export_streams
from dstreams.transfer.importing import Imported, import_streams
from dstreams.transfer.planning import OnConflict
from dstreams.transfer.store import Store
from tests.support.engine import WALL, Engine

NOW = WALL + 100.0
"""When documents are written and read, in Unix seconds."""

Document = dict[str, Any]

MODES: dict[str, Callable[[Path], Storage]] = {
    "file-fast": lambda path: FileStorage(str(path), None, run_inline),
    "file-durable": lambda path: FileStorage(str(path), lambda: ThreadSyncer(run_inline), run_inline),
    "acid": lambda path: AcidStorage(str(path), 4, run_inline),
}
"""How the storage of each mode that uses a directory is made."""

every_mode = pytest.mark.parametrize("mode", MODES)


def fill(engine: Engine) -> None:
    """One stream of every kind."""
    engine.put("empty")
    engine.put("logs/text", b"one", "Text/Plain; charset=utf-8")
    engine.clock.advance(1)
    engine.post("logs/text", b"two")
    engine.post("logs/text", "drei\r\n€".encode(), stream_seq="07\xff")
    engine.put("binary", bytes(range(256)), "application/octet-stream")
    engine.put_json("json", b'[1, {"b": 1e2, "a": [ ]}]')
    engine.clock.advance(1)
    engine.post_json("json", b'[[1,[2]], "\\u20ac", 12345678901234567890.0]')
    engine.post_json("json", b"-0")
    engine.put("produced")
    engine.clock.advance(1)
    engine.produce("produced", "p", 0, 0)
    engine.produce("produced", "q\xe9", 7, 0)
    engine.produce("produced", "p", 0, 1)
    engine.put("closed", b"x")
    engine.clock.advance(1)
    engine.close("closed", b"last")
    engine.put("closed by a producer")
    engine.clock.advance(1)
    engine.produce("closed by a producer", "p", 2, 0, stream_closed="true")
    engine.put("created closed", b"all", stream_closed="true")
    engine.put_json("created closed/json", b"[1,2]", stream_closed="true")
    engine.put("ttl", b"x", stream_ttl="100000")
    engine.put("absolute", b"x", stream_expires_at="2030-01-31T12:00:00.25Z")
    engine.put("%C3%BCber/%E2%82%AC x")
    engine.fork("a fork of text", "logs/text")
    engine.clock.advance(1)
    engine.post("a fork of text", b"own")
    engine.fork("fork/within", "logs/text", stream_fork_offset="0000000000000000_0000000000000003",
                stream_fork_sub_offset="1")  # fmt: skip
    engine.fork("fork of fork", "a%20fork%20of%20text", b"begins with this", stream_ttl="5000")
    engine.fork("json/fork", "json", b"[true]", stream_fork_offset="0000000000000000_0000000000000000",
                stream_fork_sub_offset="1")  # fmt: skip
    # These are no streams any more.
    engine.put("deleted", b"x")
    engine.delete("deleted")
    engine.put("kept for its fork", b"inherited")
    engine.fork("orphan", "kept%20for%20its%20fork", b"own")
    engine.delete("kept%20for%20its%20fork")


def filled(storage: Storage) -> None:
    """Make a store with one stream of every kind in it, and close it."""
    engine = Engine(storage)
    fill(engine)
    at_once(engine.streams.close())


def export(directory: Path, *names: str, now: float = NOW) -> Document:
    """The document of a store."""
    written = io.BytesIO()
    with open_snapshot(str(directory), silently) as snapshot:
        streams = DirectoryStreams(snapshot.catalog, snapshot.sources, now)
        export_streams(streams, names, written.write, now, silently)
    document: Document = json.loads(written.getvalue())
    return document


def import_(
    document: Document | bytes,
    storage: Storage,
    on_conflict: OnConflict = OnConflict.SKIP,
    limits: StoreLimits | None = None,
    now: float = NOW,
) -> Imported:
    """Import a document into a store that is open as long as this takes."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    store = Store(storage, limits or StoreLimits(), now, silently)
    return import_streams(io.BytesIO(data), store, on_conflict, NameLimits(), now, silently)


def document(*streams: Document) -> Document:
    """A document in the plain form."""
    return {"format_version": 1, "streams": list(streams)}


def stream(name: str = "s", *messages: bytes, content_type: str = "text/plain", **more: Any) -> Document:
    """A stream of a document in the plain form."""
    return {
        "name": name,
        "config": {"content_type": content_type, "ttl_seconds": None, "expires_at": None, "created_closed": False},
        "closed": False,
        "messages": [{"data_base64": base64.b64encode(each).decode()} for each in messages],
    } | more


def payloads(document: Document) -> dict[str, bytes]:
    """What the streams of a document hold, message after message."""
    return {
        each["name"]: b"|".join(base64.b64decode(message["data_base64"]) for message in each["messages"])
        for each in document["streams"]
    }
