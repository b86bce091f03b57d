"""Times to live and expiry dates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstreams.protocol.expiry import format_expires_at, parse_expires_at, parse_ttl
from dstreams.protocol.problems import BadRequest

DAY = 86400


class TtlTests:
    """Stream-TTL."""

    @pytest.mark.parametrize(("raw", "seconds"), [(b"0", 0), (b"3600", 3600), (b"9007199254740991", 2**53 - 1)])
    def test_plain_integers(self, raw: bytes, seconds: int) -> None:
        """A decimal number of seconds is taken, zero included."""
        assert parse_ttl(raw) == seconds

    @pytest.mark.parametrize("raw", [b"+3600", b"03600", b"3600.0", b"3.6e3", b"-1", b"", b"abc", b" 1"])
    def test_other_notations_are_refused(self, raw: bytes) -> None:
        """Everything the specification excludes is a bad request that names the header."""
        with pytest.raises(BadRequest, match="Invalid header value for Stream-TTL"):
            parse_ttl(raw)


class ParseTests:
    """Stream-Expires-At, read."""

    @pytest.mark.parametrize(
        ("raw", "seconds"),
        [
            (b"1970-01-01T00:00:00Z", 0.0),
            (b"1970-01-02t00:00:00z", DAY),
            (b"2030-01-31T12:00:00Z", 1896091200.0),
            (b"2030-01-31T12:00:00.5Z", 1896091200.5),
            (b"2030-01-31T12:00:00.123456789Z", 1896091200.123456789),
            (b"2030-01-31T14:30:00+02:30", 1896091200.0),
            (b"2030-01-31T00:00:00-12:00", 1896091200.0),
            (b"2030-01-31T12:00:00+00:00", 1896091200.0),
            (b"2030-01-31T12:00:00-00:00", 1896091200.0),
            (b"2024-02-29T00:00:00Z", 1709164800.0),
            (b"1969-12-31T23:59:59.75Z", -0.25),
            (b"2016-12-31T23:59:60Z", 1483228799.999999),
            (b"2016-12-31T23:59:60.9Z", 1483228799.999999),
            (b"2017-01-01T01:59:60+02:00", 1483228799.999999),
            (b"0001-01-01T00:00:00Z", -62135596800.0),
            (b"0001-01-01T00:00:00-23:59", -62135596800.0 + DAY - 60),
            (b"9999-12-31T23:59:59Z", 253402300799.0),
        ],
    )
    def test_moments(self, raw: bytes, seconds: float) -> None:
        """Every form of RFC 3339 gives its Unix time."""
        assert parse_expires_at(raw) == seconds

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"not-a-timestamp",
            b"2030-01-31",
            b"2030-01-31T12:00:00",
            b"2030-01-31 12:00:00Z",
            b"2030-01-31T12:00Z",
            b"2030-1-31T12:00:00Z",
            b"20300131T120000Z",
            b"2030-01-31T12:00:00.Z",
            b"2030-01-31T12:00:00,5Z",
            b"2030-01-31T12:00:00.1234567890Z",
            b"2030-01-31T12:00:00+0200",
            b"2030-01-31T12:00:00+02",
            b"2030-01-31T12:00:00+24:00",
            b"2030-01-31T12:00:00+02:60",
            b"2030-01-31T24:00:00Z",
            b"2030-01-31T12:60:00Z",
            b"2030-01-31T12:00:61Z",
            b"2030-01-31T12:00:60Z",
            b"2016-12-31T23:59:60+02:00",
            b"2030-00-31T12:00:00Z",
            b"2030-13-31T12:00:00Z",
            b"2030-01-00T12:00:00Z",
            b"2030-01-32T12:00:00Z",
            b"2030-02-29T12:00:00Z",
            b"1900-02-29T12:00:00Z",
            b"0000-01-01T00:00:00Z",
            b"0001-01-01T00:00:00+00:01",
            b"9999-12-31T23:59:59-00:01",
            b"10000-01-01T00:00:00Z",
            b" 2030-01-31T12:00:00Z",
            b"2030-01-31T12:00:00Z\n",
            b"2030-01-31T12:00:00Z, 2031-01-31T12:00:00Z",
            b"+2030-01-31T12:00:00Z",
            b"\xd9\xa2030-01-31T12:00:00Z",
            b"1896091200",
        ],
    )
    def test_refusals(self, raw: bytes) -> None:
        """Anything that isn't a moment in RFC 3339 is a bad request that names the header."""
        with pytest.raises(BadRequest, match="Invalid header value for Stream-Expires-At: '"):
            parse_expires_at(raw)

    @given(st.datetimes(timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))))
    @example(datetime(2030, 1, 31, 12, 0, 0, 1, tzinfo=UTC))
    def test_agrees_with_the_standard_library(self, moment: datetime) -> None:
        """What the standard library writes is read as the same instant, unless beyond years 1 to 9999."""
        try:
            universal = moment.astimezone(UTC)
        except OverflowError:
            with pytest.raises(BadRequest):
                parse_expires_at(moment.isoformat().encode())
            return
        expected = (universal - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
        assert parse_expires_at(moment.isoformat().encode()) == pytest.approx(expected, rel=1e-15, abs=1e-6)


class FormatTests:
    """Stream-Expires-At, written."""

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.0, b"1970-01-01T00:00:00.000Z"),
            (1896091200.0, b"2030-01-31T12:00:00.000Z"),
            (1896091200.25, b"2030-01-31T12:00:00.250Z"),
            (1896091200.123456, b"2030-01-31T12:00:00.123456Z"),
            (1.000000001, b"1970-01-01T00:00:01.000000001Z"),
            (-0.25, b"1969-12-31T23:59:59.750Z"),
            (-62135596800.0, b"0001-01-01T00:00:00.000Z"),
            (0.9999999999, b"1970-01-01T00:00:01.000000000Z"),
        ],
    )
    def test_form(self, seconds: float, text: bytes) -> None:
        """Times are written in UTC with as many digits as they need, at least three."""
        assert format_expires_at(seconds) == text

    @given(
        st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds")),
        st.from_regex(r"(?:\.[0-9]{1,9})?", fullmatch=True),
    )
    @example("9999-12-31T23:59:59", ".999999999")
    @example("9999-12-31T23:59:60", "")
    @example("0001-01-01T00:00:00", ".999999999")
    @example("1970-01-01T00:00:00", ".999999999")
    def test_round_trip_is_stable(self, text: str, fraction: str) -> None:
        """What was read is written so that it reads back as the same number, for ever."""
        seconds = parse_expires_at(f"{text}{fraction}Z".encode())
        written = format_expires_at(seconds)
        assert parse_expires_at(written) == seconds
        assert format_expires_at(parse_expires_at(written)) == written

    def test_milliseconds_of_scripts_come_back_as_sent(self) -> None:
        """The form that JavaScript's toISOString writes isn't changed."""
        assert format_expires_at(parse_expires_at(b"2031-07-04T01:02:03.007Z")) == b"2031-07-04T01:02:03.007Z"
