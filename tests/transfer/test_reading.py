"""Reading documents: right ones in every form, wrong ones with a reason."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from dstreams.protocol.json_mode import MAX_DEPTH
from dstreams.protocol.names import NameLimits
from dstreams.runtime.progress import silently
from dstreams.transfer.errors import InvalidDocument
from dstreams.transfer.reading import read_document
from dstreams.transfer.records import Record
from dstreams.transfer.staging import Staging
from tests.transfer.stores import Document, document, stream

OTHER_SERVER = Path(__file__).with_name("other_server.json")


@define
class Read:
    """A stream as it was read."""

    record: Record
    data: bytes
    entries: list[int]


def read(given: Document | bytes) -> dict[str, Read]:
    """Read a document."""
    data = given if isinstance(given, bytes) else json.dumps(given).encode()
    with Staging.open() as staging:
        return {
            staged.record.name: Read(staged.record, staging.read(staged, 0, staged.size), list(staging.entries(staged)))
            for staged in read_document(io.BytesIO(data), staging, NameLimits(), silently)
        }


def problems(given: Document | bytes) -> str:
    """Why a document can't be read."""
    with pytest.raises(InvalidDocument) as caught:
        read(given)
    assert str(caught.value).startswith("nothing was imported:\n")
    return "\n".join(caught.value.problems)


def of_dstreams(*messages: Any, at: int = 0, **extension: Any) -> Document:
    """A stream with the extension."""
    found = stream("s", dstreams=extension, next_offset=f"0000000000000000_{at:016d}")
    found["messages"] = list(messages)
    return document(found)


class ReadTests:
    """What is read."""

    def test_nothing(self) -> None:
        """A document may hold no stream."""
        assert read(document()) == {}

    def test_plain(self) -> None:
        """The messages of a plain document lie one behind the other, each its own append."""
        found = read(document(stream("a", b"one", b"\x00\xff"), stream("b")))
        assert (found["a"].data, found["a"].entries) == (b"one\x00\xff", [3 << 1 | 1, 5 << 1 | 1])
        assert (found["b"].data, found["b"].entries) == (b"", [])
        assert not found["a"].record.extended

    def test_other_server(self) -> None:
        """The document that the Rust server writes is read, its times and forks as they are there."""
        found = read(OTHER_SERVER.read_bytes())
        assert list(found) == ["events/2026", "finished", "fork of events", "über x"]
        events = found["events/2026"]
        assert events.data == '{"a":[1]},[1,2],"é",'.encode()
        # With a TTL it also writes the moment at which that runs out.
        assert (events.record.ttl, events.record.expires_at) == (3600, None)
        assert events.record.created_at == pytest.approx(1772359200.738, abs=0.001)
        assert found["finished"].record.closed
        assert found["finished"].record.created_closed
        assert found["fork of events"].data == b"onetwo"
        assert found["über x"].record.expires_at == 4891363200.0

    def test_messages_without_bytes(self) -> None:
        """A message without bytes can't be told from none, and is left out."""
        found = read(document(stream("s", b"", b"x", b"")))["s"]
        assert (found.data, found.entries) == (b"x", [3])

    def test_json_messages(self) -> None:
        """A message of a JSON stream is one value, kept byte for byte; also one that is an array."""
        found = read(
            document(stream("s", b'{"b": 1, "a":1e2}', b"[1, [2]]", b"[]", b" 1 ", content_type="application/json"))
        )
        assert found["s"].data == b'{"b": 1, "a":1e2},[1, [2]],[],1,'
        assert len(found["s"].entries) == 4

    def test_deepest_json(self) -> None:
        """What an append may have brought, an import takes."""
        deep = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
        assert read(document(stream("s", deep, content_type="application/json")))["s"].data == deep + b","

    def test_any_order_and_unknown_members(self) -> None:
        """Unknown members are skipped, and the order doesn't matter but for a stream's config and messages."""
        plain = stream("s", b"x", content_type="text/plain")
        reordered = dict(sorted(plain.items())) | {"tags": [{"deep": [1, {}, 1.5]}], "messages": plain["messages"]}
        given = {"streams": [reordered], "more": {"streams": [1]}, "format_version": 1}
        assert read(json.dumps(given, indent=3).encode())["s"].data == b"x"

    def test_extension(self) -> None:
        """The extension says what the plain form has no room for."""
        given = of_dstreams(
            {"data_base64": "eA==", "append_continues": True},
            {"data_base64": "eQ=="},
            at=2,
            content_type="Text/Plain; charset=utf-8",
            stream_seq="7\xff",
            producers=[{"id": "p\xe9", "epoch": 1, "seq": 2}],
            fork={
                "source": "other",
                "position": "0000000000000000_0000000000000001",
                "requested_offset": None,
                "requested_sub_offset": 0,
                "inherits_expiry": False,
            },
        )
        found = read(given)["s"]
        assert found.entries == [1 << 1, 2 << 1 | 1]
        assert found.record.content_type.value == "Text/Plain; charset=utf-8"
        assert found.record.stream_seq == b"7\xff"
        assert [(each.id, each.epoch, each.seq) for each in found.record.producers] == [("p\xe9", 1, 2)]
        assert found.record.origin is not None
        assert (found.record.origin.source, found.record.origin.position) == ("other", 1)


class RefusedTests:
    """What is wrong with a document, and what is said about it."""

    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            (b"", "this is not a complete JSON document"),
            (b"hello", "this is not a complete JSON document"),
            (b'{"format_version":1' + b"0" * 5000, "this is not a complete JSON document"),
            (b'{"format_version":1,"streams":[],"x":1' + b"0" * 5000 + b"}", "this is not a complete JSON document"),
            (b'{"format_version":1,"streams":[', "this is not a complete JSON document"),
            (b'{"format_version":1,"streams":[]} {}', "this is not a complete JSON document"),
            (b'{"format_version":1,"streams":[{"name":"\xff"}]}', "JSON document"),
            (b"[]", "a document must be a JSON object"),
            (b"{}", "the document has no 'format_version'\nthe document has no 'streams'"),
            (b'{"format_version":2,"streams":[]}', "unsupported format version: 2; this server reads 1"),
            (b'{"format_version":true,"streams":[]}', "unsupported format version: True"),
            (b'{"format_version":1,"dstreams":{"version":9},"streams":[]}', "unsupported version of 'dstreams': 9"),
            (b'{"format_version":1,"streams":{}}', "'streams' must be an array"),
            (b'{"format_version":1,"streams":[1]}', "every element of 'streams' must be an object"),
            (b'{"format_version":1,"streams":[],"streams":[]}', "the document has two members 'streams'"),
        ],
    )
    def test_document(self, given: bytes, problem: str) -> None:
        """A document that is none, or another server's, is refused as a whole."""
        assert problem in problems(given)

    @pytest.mark.parametrize(
        ("changed", "problem"),
        [
            ({"name": "/a"}, "'name' is not a valid stream name: Segment 1 of the stream name is empty."),
            ({"name": "a/../b"}, "'name' is not a valid stream name"),
            ({"name": "a" * 1025}, "'name' is not a valid stream name: The stream name has 1025 bytes"),
            ({"name": "__ds/x"}, "'name' is not a valid stream name"),
            ({"name": "a\nb"}, "'name' is not a valid stream name"),
            ({"name": 7}, "'name' is of the wrong type"),
            ({"config": {}}, "'content_type' is missing"),
            ({"config": 3}, "'content_type' is missing"),
            ({"config": {"content_type": "text"}}, "'text' is not a content type"),
            ({"config": {"content_type": "téxt/plain"}}, "is not a content type"),
            ({"config": {"content_type": "a/b", "ttl_seconds": -1}}, "'ttl_seconds' must be a whole number"),
            ({"config": {"content_type": "a/b", "ttl_seconds": 1.5}}, "'ttl_seconds' must be a whole number"),
            ({"config": {"content_type": "a/b", "ttl_seconds": True}}, "'ttl_seconds' must be a whole number"),
            ({"config": {"content_type": "a/b", "ttl_seconds": 2**53}}, "'ttl_seconds' must be a whole number"),
            ({"config": {"content_type": "a/b", "expires_at": "soon"}}, "'expires_at' must be a time"),
            ({"config": {"content_type": "a/b", "created_closed": "no"}}, "'created_closed' is of the wrong type"),
            ({"closed": None}, "'closed' is of the wrong type"),
            ({"created_at": "yesterday"}, "'created_at' must be a time"),
            ({"messages": [{}]}, "message 0: 'data_base64' is missing"),
            ({"messages": [{"data_base64": "eA"}]}, "message 0: 'data_base64' cannot be decoded"),
            ({"messages": [{"data_base64": "e A=="}]}, "message 0: 'data_base64' cannot be decoded"),
            ({"messages": [{"data_base64": "é"}]}, "message 0: 'data_base64' cannot be decoded"),
            (
                {"messages": [{"data_base64": "eA==", "append_continues": 1}]},
                "'append_continues' must be true or false",
            ),
        ],
    )
    def test_stream(self, changed: Document, problem: str) -> None:
        """A stream that no client could have made is refused, with its name and the reason."""
        assert problem in problems(document(stream("s", b"x") | changed))

    @pytest.mark.parametrize("missing", ["name", "config", "closed", "messages"])
    def test_missing(self, missing: str) -> None:
        """What a stream can't be made without must be there."""
        given = stream("s", b"x")
        del given[missing]
        assert f"'{missing}'" in problems(document(given))

    @pytest.mark.parametrize(
        "payload", [b"", b"{", b"1 2", b"1,2", b"[1],[2]", b"]", b"[1", b"\xff", b"NaN", b"\xef\xbb\xbf1"]
    )
    def test_json(self, payload: bytes) -> None:
        """A message of a JSON stream must be exactly one JSON value."""
        given = document(stream("s", b"1", payload, content_type="application/json"))
        assert "stream 's': message 1: it is not JSON" in problems(given)

    @pytest.mark.parametrize(
        ("extension", "problem"),
        [
            ({"content_type": "text/html"}, "the types 'text/plain' and 'text/html' differ"),
            ({"stream_seq": "€"}, "'stream_seq' contains characters beyond U+00FF"),
            ({"stream_seq": "x" * 65_536}, "'stream_seq' has 65536 bytes"),
            ({"producers": [1]}, "a producer must be an object"),
            ({"producers": [{"id": "", "epoch": 0, "seq": 0}]}, "a producer's 'id' must have 1 to 512 bytes"),
            ({"producers": [{"id": "p", "epoch": -1, "seq": 0}]}, "'epoch' must be a whole number"),
            ({"producers": [{"id": "p", "epoch": 0, "seq": 0}] * 2}, "'producers' has two entries with the same id"),
            ({"fork": {"source": "a"}}, "'position' is missing"),
            ({"fork": {"source": "a", "position": "now"}}, "'position' must be an offset of this server"),
            ({"fork": {"source": "a", "position": "0_0"}}, "'position' must be an offset of this server"),
            ({"fork": 1}, "'fork' must be an object"),
        ],
    )
    def test_extension(self, extension: Document, problem: str) -> None:
        """The extension is checked as closely as the plain form."""
        assert problem in problems(of_dstreams(**extension))

    def test_messages_missing(self) -> None:
        """A document of this server says where each stream ends, so that a message cut out of it is noticed."""
        assert "do not end at 'next_offset'" in problems(of_dstreams({"data_base64": "eA=="}, at=2))

    def test_twice(self) -> None:
        """A name, or a member, that stands there twice is refused: nobody can say which counts."""
        assert "stream 's': there are two streams with that name" in problems(document(stream(), stream()))
        twice = b'{"format_version":1,"streams":[{"name":"a","name":"b"}]}'
        assert "the stream has two members 'name'" in problems(twice)

    def test_messages_first(self) -> None:
        """A stream's config must come before its messages: it says how they are stored."""
        given = {"messages": [], **stream("s")}
        given = {"messages": [{"data_base64": "eA=="}]} | {key: given[key] for key in ("name", "config", "closed")}
        assert "'messages' must come after 'config'" in problems(document(given))

    def test_all_at_once(self) -> None:
        """Everything that is wrong is told together."""
        found = problems(
            document(stream("/a"), stream("ok", b"x"), stream("b", closed=3), stream("c") | {"config": {}})
        )
        assert [line.split(":")[0] for line in found.split("\n")] == ["stream '/a'", "stream 'b'", "stream 'c'"]
