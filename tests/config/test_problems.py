"""Problems as an operator sees them."""

from __future__ import annotations

import pytest

from dstreams.config.problems import LONGEST_SHOWN, nearest, printable, printable_lines, shown
from dstreams.config.schema import KEYS

VARIABLES = [key.variable for key in KEYS.values()]


class NearestTests:
    """What was most likely meant."""

    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [
            ("server.bind_adress", "server.bind_address"), ("server.bind", "server.bind_address"),
            ("server.long_poll_timeout", "transport.connection.long_poll_timeout_secs"),
            ("tls.min_version", "transport.tls.min_version"), ("log.level", "observability.log_level"),
            ("storage.acid_shards", "storage.acid_shard_count"), ("cors_origins", "http.cors_origins"),
            ("proxy.trusted", "proxy.trusted_proxies"), ("Server.Bind_Address", "server.bind_address"),
            ("qqqq", None), ("", None), ("server.", None),
        ],
    )  # fmt: skip
    def test_keys(self, wrong: str, meant: str | None) -> None:
        """Slips of the pen, parts of a name, and right names in a wrong section are recognized."""
        assert nearest(wrong, KEYS) == meant

    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [
            ("DS_SERVR__BIND_ADRESS", "DS_SERVER__BIND_ADDRESS"), ("DS_STORAGE__DIR", "DS_STORAGE__DATA_DIR"),
            ("DS_TLS__MIN_VERSION", "DS_TRANSPORT__TLS__MIN_VERSION"), ("DS_QQQ__ZZZ", None),
        ],
    )  # fmt: skip
    def test_variables(self, wrong: str, meant: str | None) -> None:
        """So are they in variables."""
        assert nearest(wrong, VARIABLES) == meant


class PrintableTests:
    """Texts of others in lines of ours."""

    def test_lines(self) -> None:
        """What can't be printed is escaped, but for the ends of lines where there may be several."""
        assert printable("ä\u202e\n日") == "ä\\u202e\\n日"
        assert printable_lines("ä\u202e\n日\r") == "ä\\u202e\n日\\r"


class ShownTests:
    """Values in messages."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("a\n", r"'a\n'"), (True, "true"), (7, "7"), (None, "unset"), (("a", "b"), "['a', 'b']"), ((), "[]"),
            ("a" * 200, "'" + "a" * (LONGEST_SHOWN - 1) + "…"),
        ],
    )  # fmt: skip
    def test_shown(self, value: object, text: str) -> None:
        """They stay on one line of bearable length."""
        assert shown(value) == text
