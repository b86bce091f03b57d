"""What a configuration must fulfil beyond its types."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.config.building import settings_of
from dstreams.config.keys import Value
from dstreams.config.paths import RESERVED_PATHS
from dstreams.config.problems import shown
from dstreams.config.profiles import DeploymentProfile
from dstreams.config.schema import DAY, KEYS, YEAR, Config
from dstreams.config.settings import Setting
from dstreams.config.validation import validate


def problems(path: str, value: Value) -> list[str]:
    """What is wrong when one key has a value."""
    settings = {each.path: Setting(each, each.default, "default") for each in KEYS.values()}
    settings[path] = Setting(KEYS[path], value, "here")
    return [str(problem) for problem in validate(settings, DeploymentProfile())]


def why(path: str, value: Value) -> str:
    """What is wrong with the one key, or one item of its list, without the key and the value."""
    (problem,) = problems(path, value)
    at = re.match(re.escape(f"[validate_config] {path}") + r"\[(\d+)\] = ", problem)
    if at is not None:
        items = value if isinstance(value, tuple) else [item.strip() for item in str(value).split(",")]
        path, value = f"{path}[{at[1]}]", items[int(at[1])]
    start = f"[validate_config] {path} = {shown(value)} (here): "
    assert problem.startswith(start)
    return problem.removeprefix(start)


class RangeTests:
    """Numbers have ranges."""

    def test_defaults(self) -> None:
        """The defaults are valid."""
        assert validate(settings_of(Config()), DeploymentProfile()) == []

    @pytest.mark.parametrize(
        "path", [path for path, key in KEYS.items() if key.type is int and key.declaration.least == 1]
    )
    def test_at_least_one(self, path: str) -> None:
        """Limits and timeouts can't be zero or negative."""
        assert problems(path, 1) == []
        assert why(path, 0) == "must be at least 1"
        assert why(path, -5) == "must be at least 1"

    @pytest.mark.parametrize(
        ("path", "most"),
        [
            ("server.shutdown_grace_secs", DAY),
            ("transport.connection.long_poll_timeout_secs", DAY),
            ("transport.connection.sse_reconnect_interval_secs", YEAR),
        ],
    )
    def test_durations(self, path: str, most: int) -> None:
        """Durations have an upper bound, far below what timers can't hold."""
        assert problems(path, most) == []
        assert why(path, most + 1) == f"must be at most {most}"

    @pytest.mark.parametrize("path", ["server.shutdown_grace_secs", "transport.connection.sse_reconnect_interval_secs"])
    def test_zero(self, path: str) -> None:
        """A grace time of nothing and an SSE stream without end are allowed."""
        assert problems(path, 0) == []


class RuleTests:
    """Texts follow rules."""

    def test_bind_address(self) -> None:
        """The address must be an IP address and a port."""
        assert "host names are not resolved" in why("server.bind_address", "localhost:80")

    @pytest.mark.parametrize(
        "path", ["/", "/v1/stream", "/a", "/a/b.c/-_~", "/!$&'()*+,;=:@", "/healthz2", "/x/health"]
    )
    def test_base_paths(self, path: str) -> None:
        """A path of one or more segments is good, and so is the root."""
        assert problems("http.stream_base_path", path) == []

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("", "begin with /"), ("v1", "begin with /"), (" /v1", "begin with /"),
            ("/v1/", "not end with /"), ("//", "not end with /"),
            ("//v1", "empty segment"), ("/a//b", "empty segment"),
            ("/a?b", "are allowed"), ("/a#b", "are allowed"), ("/%41", "are allowed"),
            ("/a b", "are allowed"), ("/a ", "are allowed"), ("/a\n", "are allowed"),
            ("/a\x7f", "are allowed"), ("/é", "are allowed"), ("/{a}", "are allowed"),
            ("/a\\b", "are allowed"), ("/.", "remove it"), ("/a/../b", "remove it"),
            ("/healthz", "overlaps"), ("/readyz", "overlaps"), ("/metrics/a", "overlaps"),
            ("/health/streams", "overlaps"),
        ],
    )  # fmt: skip
    def test_bad_base_paths(self, path: str, reason: str) -> None:
        """Everything that would be ambiguous in a URL, or hide the health checks, is refused."""
        assert reason in why("http.stream_base_path", path)

    @given(st.text(max_size=30))
    def test_any_base_path(self, path: str) -> None:
        """No text makes the check fail, and what passes is a plain path."""
        if problems("http.stream_base_path", path) == []:
            assert path.startswith("/")
            assert path.isascii()
            assert path.isprintable()
            assert f"/{path.split('/')[1]}" not in RESERVED_PATHS

    @pytest.mark.parametrize(
        "origins",
        [
            "*", " * ", "https://app.example", "https://app.example, http://localhost:3000", "null",
            "http://[::1]:8080", "capacitor://localhost", "chrome-extension://abcdef",
        ],
    )  # fmt: skip
    def test_origins(self, origins: str) -> None:
        """All origins, or a list of them as browsers send them."""
        assert problems("http.cors_origins", origins) == []

    @pytest.mark.parametrize(
        ("origins", "reason"),
        [
            ("https://a,https://a", "repeats item [0]"),
            ("", "is empty"), ("https://a,", "is empty"),
            ("https://a, *", "is mixed with other origins"), ("app.example", "is not an origin"),
            ("https://", "is not an origin"),
            ("https://a/b", "is not an origin"), ("https://a b", "is not an origin"),
            ("https://a\r\nX: y", "is not an origin"),
            ("https://é.example", "is not an origin"), ("https://u@a", "is not an origin"),
            ("https://App.example", "sent by browsers as 'https://app.example'"),
            ("https://app.example/", "sent by browsers as 'https://app.example'"),
            ("https://app.example:443", "sent by browsers as 'https://app.example'"),
            ("http://app.example:080", "sent by browsers as 'http://app.example:80'"),
        ],
    )  # fmt: skip
    def test_bad_origins(self, origins: str, reason: str) -> None:
        """An entry that no browser would ever send is refused, where possible with what it sends."""
        assert reason in why("http.cors_origins", origins)

    @pytest.mark.parametrize("names", [(), ("x-request-id",), ("X-Request-ID", "b3"), ("authorization",)])
    def test_allowed_headers(self, names: tuple[str, ...]) -> None:
        """Names of headers, also such as are allowed already."""
        assert problems("http.cors_allow_headers", names) == []

    @pytest.mark.parametrize("name", ["", "*", "a b", "a,b", "x:", "x\r\ny: z", "é", "a\0"])
    def test_bad_allowed_headers(self, name: str) -> None:
        """What isn't a name is refused, and so is the wildcard."""
        assert "isn't the name of a header" in why("http.cors_allow_headers", (name,))

    def test_allowed_headers_twice(self) -> None:
        """A name is there once, in whatever letter case."""
        assert "means the same as item [0]" in why("http.cors_allow_headers", ("X-A", "x-a"))

    @pytest.mark.parametrize("count", [3, 6, 255])
    def test_shard_count(self, count: int) -> None:
        """A shard count that isn't a power of two is refused."""
        assert "power of two" in why("storage.acid_shard_count", count)

    @pytest.mark.parametrize(
        ("path", "value", "reason"),
        [
            ("storage.data_dir", "", "must not be blank"),
            ("storage.data_dir", "  ", "must not be blank"),
            ("storage.data_dir", "a\0b", "null character"),
            ("admin.base_path", "admin", "must begin with /"),
            ("admin.base_path", "/metrics", "overlaps"),
            ("admin.endpoint", "", "is blank"),
            ("admin.endpoint", "9090", "is not an address; write 127.0.0.1:9090"),
            ("admin.endpoint", "localhost:9090", "has an unknown type"),
            ("admin.endpoint", "tcp:99999", "must have a port from 0 to 65535"),
            ("observability.rust_log", " ", "is blank"),
            ("observability.rust_log", "a b", "is neither a level nor target=level"),
        ],
    )
    def test_texts(self, path: str, value: str, reason: str) -> None:
        """Texts that are blank, or not what they should be, are refused."""
        assert reason in why(path, value)

    @pytest.mark.parametrize("endpoint", ["127.0.0.1:9090", "[::1]:0", "tcp:9090:interface=127.0.0.1", "unix:/run/a"])
    def test_admin_endpoint(self, endpoint: str) -> None:
        """The admin listener has an address, or an endpoint string."""
        assert problems("admin.endpoint", endpoint) == []

    @pytest.mark.parametrize(
        "endpoints",
        [
            (), ("tcp:4437",), ("tcp:port=80:interface=127.0.0.1", r"tcp6:80:interface=\:\:1"),
            ("unix:/run/a.sock", "Systemd:domain=INET:index=0"), ("ssl:443:privateKey=k:certKey=c",),
            ("tcp:0", "tcp:0:backlog=9"),
        ],
    )  # fmt: skip
    def test_endpoints(self, endpoints: tuple[str, ...]) -> None:
        """Endpoint strings of Twisted and its plugins are good."""
        assert problems("server.endpoints", endpoints) == []

    @pytest.mark.parametrize(
        ("endpoints", "reason"),
        [
            (("",), "is blank"),
            (("4437",), "isn't an endpoint; write tcp:4437"),
            (("127.0.0.1:4437",), "isn't an endpoint; write tcp:4437:interface=127.0.0.1"),
            (("[::1]:4437",), r"isn't an endpoint; write tcp:4437:interface=\:\:1"),
            (("nowhere",), "isn't an endpoint such as tcp:4437"),
            (("tcq:4437",), "has an unknown type; the known types are"),
            (("TCP:4437",), "has an unknown type"), (("tcp4:80",), "has an unknown type"),
            (("unix:a\\",), "must not end in a backslash"),
            (("tcp:",), "must have a port from 0 to 65535, as in tcp:4437"),
            (("tcp:65536",), "must have a port"), (("tcp:http",), "must have a port"),
            (("unix:",), "must have a path"),
            (("tcp:1", "unix:a", "tcp:1"), "repeats item [0]; keep one of them"),
            (("tcp:1", "tcp:1:interface=127.0.0.1"), "uses port 1, like item [0]"),
        ],
    )  # fmt: skip
    def test_bad_endpoints(self, endpoints: tuple[str, ...], reason: str) -> None:
        """What no server can listen at, or listens at already, is refused with what to write."""
        assert reason in why("server.endpoints", endpoints)


class ListTests:
    """Of a list every bad item is told."""

    @pytest.mark.parametrize(
        ("path", "value", "expected"),
        [
            (
                "proxy.trusted_proxies",
                ("10.0.0.0/33", "10.0.0.0/8", "::1", "x", "10.1.0.0/8"),
                {0: "must be an IP address", 3: "must be an IP address", 4: "means the same as item [1], '10.0.0.0/8'"},
            ),
            (
                "server.endpoints",
                ("tcp:1", "nowhere", "tcp:1", "unix:"),
                {1: "isn't an endpoint", 2: "repeats item [0]", 3: "must have a path"},
            ),
            (
                "server.endpoints",
                ("tcp:1", "tcp:1:backlog=1", "unix:/a", "tcp6:1"),
                {1: "uses port 1, like item [0]", 3: "uses port 1, like item [0]"},
            ),
            ("admin.allowed_hosts", ("a:1", "b", "c d"), {0: "must be a host name", 2: "must be a host name"}),
            (
                "transport.http.versions",
                ("http3", "http1", "spdy"),
                {0: "HTTP/3 is not supported", 2: "must be one of http1"},
            ),
            ("transport.tls.alpn_protocols", ("x", "http/1.1", "y"), {0: "must be one of h2", 2: "must be one of h2"}),
            (
                "http.cors_origins",
                "https://a, b, *, , https://a",
                {1: "is not an origin", 2: "is mixed with other origins", 3: "is empty", 4: "repeats item [0]"},
            ),
            (
                "observability.rust_log",
                "info, a b,c=loud, d",
                {1: "is neither a level nor target=level", 2: "has the level 'loud'"},
            ),
        ],
    )
    def test_all(self, path: str, value: Value, expected: dict[int, str]) -> None:
        """Each has a line with its place and its own remedy; items that are right have none."""
        items = value if isinstance(value, tuple) else [item.strip() for item in str(value).split(",")]
        found = problems(path, value)
        assert len(found) == len(expected)
        for problem, (index, reason) in zip(found, expected.items(), strict=True):
            start = f"[validate_config] {path}[{index}] = {shown(items[index])} (here): "
            assert problem.startswith(start + reason)
