"""What an import decides before it changes anything."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from dstreams.protocol.names import NameLimits
from dstreams.runtime.progress import silently
from dstreams.transfer.errors import InvalidDocument
from dstreams.transfer.planning import OnConflict, Plan, plan
from dstreams.transfer.reading import read_document
from dstreams.transfer.staging import Staging
from tests.transfer.stores import NOW, Document, document, stream


def planned(given: Document, taken: set[str] | None = None, on_conflict: OnConflict = OnConflict.SKIP) -> Plan:
    """The plan for a document."""
    with Staging.open() as staging:
        streams = read_document(io.BytesIO(json.dumps(given).encode()), staging, NameLimits(), silently)
        return plan(streams, staging, frozenset(taken or ()), on_conflict, NOW)


def fork(name: str, source: str, position: int, *messages: bytes, **more: Any) -> Document:
    """A fork in a document with the extension."""
    found = stream(name, *messages, **more)
    size = sum(len(each) for each in messages) + (
        len(messages) if found["config"]["content_type"].endswith("json") else 0
    )
    origin = {
        "source": source,
        "position": f"0000000000000000_{position:016d}",
        "requested_offset": None,
        "requested_sub_offset": 0,
        "inherits_expiry": True,
    }
    return found | {"dstreams": {"fork": origin}, "next_offset": f"0000000000000000_{size:016d}"}


def steps(found: Plan) -> list[tuple[str, int]]:
    """The streams to be stored, and how many bytes each shares."""
    return [(step.record.name, step.own_start) for step in found.steps]


class ConflictTests:
    """Names that are taken."""

    def test_skip(self) -> None:
        """What is there is kept, and said to be."""
        found = planned(document(stream("a"), stream("b")), {"a"})
        assert (steps(found), found.skipped) == ([("b", 0)], [("a", "existing")])

    def test_fail(self) -> None:
        """All that are taken are named."""
        with pytest.raises(InvalidDocument) as caught:
            planned(document(stream("a"), stream("b"), stream("c")), {"a", "c"}, OnConflict.FAIL)
        assert caught.value.problems == ("stream 'a' already exists", "stream 'c' already exists")

    def test_replace(self) -> None:
        """All are stored."""
        assert steps(planned(document(stream("a"), stream("b")), {"a"}, OnConflict.REPLACE)) == [("a", 0), ("b", 0)]


class ExpiryTests:
    """Streams whose time is over."""

    def test_over(self) -> None:
        """One that would expire at once is left out, and said to be."""
        over = {"content_type": "text/plain", "expires_at": "2020-01-01T00:00:00Z"}
        never = {"content_type": "text/plain", "ttl_seconds": 0}
        found = planned(document(stream("a", config=over), stream("b", config=never), stream("c")))
        assert (steps(found), found.skipped) == ([("c", 0)], [("a", "expired"), ("b", "expired")])


class ForkTests:
    """Forks in a document."""

    def test_sources_first(self) -> None:
        """A fork is stored after its source, in whatever order the document has them."""
        found = planned(
            document(fork("a", "b", 2, b"xy", b"!"), fork("b", "c", 1, b"x", b"y"), stream("c", b"x", b"z"))
        )
        assert steps(found) == [("c", 0), ("b", 1), ("a", 2)]

    def test_source_elsewhere(self) -> None:
        """Without its source in the document, or when that is skipped, a fork is a stream of its own."""
        assert steps(planned(document(fork("a", "b", 1, b"xy")))) == [("a", 0)]
        found = planned(document(fork("a", "b", 1, b"x", b"y"), stream("b", b"x")), {"b"})
        assert steps(found) == [("a", 0)]

    @pytest.mark.parametrize(
        ("given", "fault"),
        [
            ([fork("a", "b", 1, b"x"), stream("b", b"y")], "their first messages differ"),
            ([fork("a", "b", 2, b"xx"), stream("b", b"x")], "it starts at 2, beyond the end of one of them"),
            ([fork("a", "b", 2, b"x"), stream("b", b"xx")], "it starts at 2, beyond the end of one of them"),
            ([fork("a", "b", 1, b"xx"), stream("b", b"xx")], "it starts at 1, inside a message"),
            ([fork("a", "b", 1, b"x"), stream("b", b"x", content_type="a/b")], "their content types differ"),
            ([fork("a", "a", 0)], "they are forks of each other"),
            ([fork("a", "b", 0), fork("b", "a", 0)], "they are forks of each other"),
        ],
    )
    def test_wrong(self, given: list[Document], fault: str) -> None:
        """A fork that can't be one of its source is refused."""
        with pytest.raises(InvalidDocument, match=f"stream 'a': it cannot be a fork of '.': {fault}"):
            planned(document(*given))

    def test_inside_json(self) -> None:
        """A fork of a JSON stream leaves it between two messages."""
        source = stream("b", b'"aaaa"', content_type="application/json")
        with pytest.raises(InvalidDocument, match="it starts at 2, inside a message of the source"):
            planned(document(fork("a", "b", 2, b"1", content_type="application/json"), source))
