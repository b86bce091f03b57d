"""Comparing rows with each other and with the journal."""

from __future__ import annotations

from typing import Any

import pytest

from dstreams.model.catalog import Catalog
from dstreams.model.changes import Append, Change, Create, Delete, ForkPoint, SoftDelete, StreamConfig, Touch
from dstreams.model.state import StreamState
from dstreams.protocol.content_types import DEFAULT
from dstreams.protocol.producers import Producer
from dstreams.storage.comparing import RowComparison, contradictions
from dstreams.storage.files.catalog import Coverage

CONFIG = StreamConfig(DEFAULT, ttl=60)


def history() -> list[Change]:
    """One stream's life, a change for each batch."""
    return [
        Create(1, "s", CONFIG, None, b"", (), False, 1.0),
        Append(1, 0, b"abc", (3,), Producer("p", 0, 0), b"1", False, 2.0),
        Append(1, 3, b"def", (6,), Producer("p", 0, 1), b"2", False, 3.0),
        Touch(1, 4.0),
        Append(1, 6, b"g", (7,), Producer("q", 0, 0), None, False, 5.0),
        Append(1, 7, b"", (), Producer("q", 0, 1), None, True, 6.0),
        SoftDelete(1, 7.0),
    ]


def after(count: int) -> StreamState:
    """The state after so many changes of that life."""
    catalog = Catalog()
    for change in history()[:count]:
        catalog.apply(change)
    return catalog.streams[1]


def compared(state: StreamState | None, position: int, seen: int, first: int = 0) -> list[str]:
    """What is said of a row.

    :param first: the first batch that the journal still has.
    """
    comparison = RowComparison(Coverage(position, seen), {} if state is None else {1: state})
    for sequence, change in enumerate(history()[first:], first):
        comparison.note(sequence, change)
    return list(comparison.problems())


class JournalTests:
    @pytest.mark.parametrize("count", range(1, 8))
    @pytest.mark.parametrize("first", range(8))
    def test_right_rows(self, count: int, first: int) -> None:
        """A row of any moment between the checkpoint's position and the last batch that rows tell of fits."""
        for position in range(first, count + 1):
            for seen in range(count, 8):
                assert compared(after(count), position, seen, first) == []

    @pytest.mark.parametrize("count", range(1, 7))
    def test_row_that_is_too_old(self, count: int) -> None:
        """A row must tell of all that the checkpoint covers."""
        assert compared(after(count), count + 1, count + 1, count)

    @pytest.mark.parametrize(
        ("wrong", "what"),
        [
            ({"tail": 5}, "its tail is 5, at which no append of the journal ends"),
            ({"stream_seq": b"1"}, "its Stream-Seq is b'1', by batch 5 b'2'"),
            ({"closed": False}, "it is open, by batch 5 closed"),
            ({"closed_by": Producer("q", 0, 7)}, "it was closed by Producer"),
            ({"producers": {"p": 0, "q": 1}}, "its producer 'p' has epoch and number (0, 0), by batch 5 (0, 1)"),
            ({"producers": {"q": 1}}, "its producer 'p' is missing"),
            ({"updated_at": 5.5}, "its last append was at 5.5"),
            ({"touched_at": 1.0}, "its time-to-live was renewed at 1.0"),
            ({"config": StreamConfig(DEFAULT, ttl=61)}, "its expiry is (61, None), by batch 5 (60, None)"),
            ({"name": "t"}, "its name is 't'"),
            ({"fork": ForkPoint(9, "x", 0)}, "its fork point is"),
        ],
    )
    def test_wrong_row(self, wrong: dict[str, Any], what: str) -> None:
        """Whatever a row has wrong is named."""
        state = after(6)
        for member, value in wrong.items():
            setattr(state, member, value)
        problems = compared(state, 6, 6)
        assert len(problems) == 1
        assert what in problems[0]

    def test_missing_row(self) -> None:
        """A stream that a checkpoint covers has a row, unless it was deleted."""
        assert compared(None, 1, 7) == ["the stream 's' 1 of the journal's batch 0 has no row in catalog.db"]
        assert compared(None, 0, 7) == []
        assert compared(None, 3, 3, 3) == ["the stream 1 of the journal's batch 3 has no row in catalog.db"]
        comparison = RowComparison(Coverage(8, 8), {})
        for sequence, change in enumerate([*history(), Delete((1,), (), 8.0)]):
            comparison.note(sequence, change)
        assert list(comparison.problems()) == []


class ContradictionTests:
    @pytest.mark.parametrize(
        ("wrong", "what"),
        [
            ({}, None),
            ({"soft_deleted": True, "forks": 0}, "is kept for its forks, but has none"),
            ({"config": StreamConfig(DEFAULT, 1, 2.0)}, "has both a time-to-live and a time of expiry"),
            ({"closed": False}, "is open, but was closed by producer 'q'"),
            ({"closed_by": Producer("q", 0, 5)}, "but it knows (0, 1) of it"),
            ({"closed_by": Producer("z", 0, 0)}, "but it knows None of it"),
            ({"fork": ForkPoint(2, "source", 3)}, "goes from 0 to 7, but begins at 3"),
            ({"fork": ForkPoint(2, "source", 0)}, "is older than its source"),
            ({"fork": ForkPoint(2, "other", 0)}, "is named 'source', and should be 'other'"),
            ({"name": "source"}, "two streams of the name 'source'"),
        ],
    )
    def test_state(self, wrong: dict[str, Any], what: str | None) -> None:
        """What can't be true is named."""
        catalog = Catalog()
        state = catalog.streams[1] = after(6)
        for member, value in wrong.items():
            setattr(state, member, value)
        catalog.names[state.name] = state
        catalog.apply(Create(2, "source", CONFIG, None, b"abcdefg", (7,), False, 1.0))
        problems = list(contradictions(catalog))
        assert (what is None and not problems) or (what is not None and any(what in each for each in problems))
