"""Which events are logged."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.config.log_filter import LEVELS, LogFilter, parse_log_filter


class ParseTests:
    """The form of RUST_LOG."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("info", LogFilter("info")),
            ("OFF", LogFilter("off")),
            (" Warning ,", LogFilter("warn")),
            ("trace", LogFilter("debug")),
            ("2", LogFilter("warn")),
            ("warn,dstreams.storage=debug", LogFilter("warn", {"dstreams.storage": "debug"})),
            ("dstreams.storage=debug , warn", LogFilter("warn", {"dstreams.storage": "debug"})),
            ("dstreams=off", LogFilter("error", {"dstreams": "off"})),
            ("info,twisted", LogFilter("info", {"twisted": "debug"})),
            ("info,twisted=", LogFilter("info", {"twisted": "debug"})),
            ("debug,durable_streams_server::http=warn", LogFilter("debug", {"dstreams.http": "warn"})),
            ("durable_streams=error,info", LogFilter("info", {"dstreams": "error"})),
        ],
    )
    def test_valid(self, text: str, expected: LogFilter) -> None:
        """A level, targets with levels, targets alone; the Rust server's own names are ours."""
        assert parse_log_filter(text) == expected

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "is blank"), (" , ", "is blank"), ("a b", "has the item 'a b'"), ("=info", "has the item '=info'"),
            ("a=loud", "has the item 'a=loud', which has the level 'loud'; the levels are debug, info"),
            ("a[span]=info", "has the item"),
            ("a..b=info", "has the item"), ("a=b=c", "has the item 'a=b=c', which has the level 'b=c'"),
            ("info\n,\x00", "has the item '\\x00'"),
        ],
    )  # fmt: skip
    def test_invalid(self, text: str, why: str) -> None:
        """Anything else is refused with what it should be."""
        with pytest.raises(ValueError, match=r"\w") as caught:
            parse_log_filter(text)
        assert str(caught.value).startswith(why)

    @given(st.text(alphabet="aif no=,.:[]", max_size=20))
    def test_any(self, text: str) -> None:
        """No text does anything but be read or be refused."""
        levels = LogFilter()
        with contextlib.suppress(ValueError):
            levels = parse_log_filter(text)
        assert {levels.default, *levels.targets.values()} <= set(LEVELS)


class LevelTests:
    """The level of one namespace."""

    @pytest.mark.parametrize(
        ("namespace", "level"),
        [
            ("dstreams", "warn"), ("dstreams.http", "warn"), ("dstreams.storage", "debug"),
            ("dstreams.storage.files.journal", "debug"), ("dstreams.storages", "warn"), ("dstreamsx", "info"),
            ("", "info"), ("twisted.web", "info"),
        ],
    )  # fmt: skip
    def test_nearest(self, namespace: str, level: str) -> None:
        """The longest target that covers a namespace decides, else the general level."""
        levels = LogFilter("info", {"dstreams": "warn", "dstreams.storage": "debug"})
        assert levels.level(namespace) == level

    def test_default(self) -> None:
        """The general level can be replaced; the targets stay."""
        levels = LogFilter("info", {"a": "warn"})
        assert levels.with_default(None) == levels
        assert levels.with_default("off") == LogFilter("off", {"a": "warn"})
