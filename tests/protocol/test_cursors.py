"""Cursors of live answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol.cursors import EPOCH, INTERVAL_SECONDS, interval, next_cursor, parse_cursor


class IntervalTests:
    """Time cut into intervals."""

    def test_epoch(self) -> None:
        """Interval 0 begins on 9 October 2024."""
        assert datetime(2024, 10, 9, tzinfo=UTC).timestamp() == EPOCH

    @pytest.mark.parametrize(
        ("seconds", "number"),
        [(0, 0), (19.999, 0), (20, 1), (20.001, 1), (20_000, 1000), (-1, 0), (-EPOCH, 0)],
    )
    def test_number(self, seconds: float, number: int) -> None:
        """An interval lasts 20 seconds; before the epoch the number stays 0."""
        assert interval(EPOCH + seconds) == number


class ParseTests:
    """What clients send back."""

    @given(st.integers(0, 10**100 - 1))
    def test_takes_decimal_numbers(self, cursor: int) -> None:
        """A cursor we gave comes back as its number."""
        assert parse_cursor(b"%d" % cursor) == cursor

    @pytest.mark.parametrize(
        "raw", [None, b"", b"-1", b"+1", b"1.5", b"abc", b" 1", b"1\n", b"\xd9\xa1", b"1" * 101, b"1" * 10_000]
    )
    def test_ignores_everything_else(self, raw: bytes | None) -> None:
        """A cursor that was never ours is no cursor, and never an error."""
        assert parse_cursor(raw) is None


class NextCursorTests:
    """Cursors never go backwards."""

    @pytest.mark.parametrize("client", [None, 0, 999])
    def test_current_interval_for_those_behind(self, client: int | None) -> None:
        """A client without a cursor, or with an older one, gets the current interval."""
        assert next_cursor(client, 1000) == 1000

    @pytest.mark.parametrize(
        ("seconds", "intervals"), [(1, 1), (19, 1), (20, 1), (21, 2), (40, 2), (3599, 180), (3600, 180)]
    )
    @pytest.mark.parametrize("client", [1000, 5000])
    def test_jitter_is_whole_intervals(self, client: int, seconds: int, intervals: int) -> None:
        """A client at or beyond the current interval is put ahead by the jitter, at least one interval."""
        bounds = []

        def jitter(low: int, high: int) -> int:
            bounds.append((low, high))
            return seconds

        assert next_cursor(client, 1000, jitter) == client + intervals
        assert bounds == [(1, 3600)]

    @given(st.none() | st.integers(0, 10**17), st.integers(0, 10**17))
    def test_strictly_ahead_of_the_client(self, client: int | None, current: int) -> None:
        """The cursor exceeds the client's, isn't below the current interval, and is at most an hour ahead."""
        cursor = next_cursor(client, current)
        assert cursor >= current
        if client is not None:
            assert cursor > client
            assert cursor <= max(current, client + 3600 // INTERVAL_SECONDS)
