"""The configuration as the real ``twistd`` command takes it: every layer, and each kind of rule.

All commands are run at once, a few at a time; a configuration that can't be used ends them before they do anything.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attrs import field, frozen

from dstreams.config.schema import KEYS
from dstreams.config.value_rules import VALUE_RULES
from tests.support.servers import TWISTD, child_environment, twistd_server

pytestmark = pytest.mark.slow

PROCESSES = 3
"""How many commands run at a time."""

PAIRS = {
    "default.toml": "max_memory_bytes",
    "dev.toml": "max_disk_bytes",
    "local.toml": "max_stream_bytes",
    "named.toml": "max_stream_name_bytes",
    "environment": "max_stream_name_segments",
}
"""A key for each layer: the layer and the one before it set the key, both wrong."""


def _layers() -> Mapping[str, str]:
    """Files in which each layer's key is set once more by the layer before, to another wrong value."""
    names = list(PAIRS)
    files = {}
    for index, name in enumerate(names[:-1]):
        files[name] = f"[limits]\n{PAIRS[name]} = -{index + 1}\n{PAIRS[names[index + 1]]} = -99\n"
    files["default.toml"] += '[server]\nbind_address = "default"\n'
    return {name if name == "named.toml" else f"config/{name}": text for name, text in files.items()}


@frozen(kw_only=True)
class Case:
    """One command, and what it must say on stderr.

    :param files: their text by their path.
    """

    arguments: str = ""
    files: Mapping[str, str] = field(factory=dict)
    environ: Mapping[str, str] = field(factory=dict)
    twistd: str = "--pidfile= -n"
    expected: tuple[str, ...]


CASES: Mapping[str, Case] = {
    "every layer wins over the one before": Case(
        arguments="--profile dev --config named.toml",
        files=_layers(),
        environ={"DS_LIMITS__MAX_STREAM_NAME_SEGMENTS": "0"},
        expected=(
            ("[validate_config] server.bind_address = 'default' (file config/default.toml): must be an IP address and a"
            " port, such as 127.0.0.1:4437 or [::1]:4437"),
            "[validate_config] limits.max_memory_bytes = -1 (file config/default.toml): must be at least 1",
            "[validate_config] limits.max_disk_bytes = -2 (file config/dev.toml): must be at least 0",
            "[validate_config] limits.max_stream_bytes = -3 (file config/local.toml): must be at least 1",
            "[validate_config] limits.max_stream_name_bytes = -4 (file named.toml): must be at least 1",
            ("[validate_config] limits.max_stream_name_segments = 0 (DS_LIMITS__MAX_STREAM_NAME_SEGMENTS): must be at"
            " least 1"),
        ),
    ),
    "a named directory replaces ./config": Case(
        arguments="--config-dir mine --profile staging",
        files={
            "config/default.toml": "nonsense",
            "mine/default.toml": "[limits]\nmax_stream_bytes = 0\n",
            "mine/staging.toml": "[limits]\nmax_memory_bytes = 0\n",
        },
        expected=(
            "[validate_config] limits.max_memory_bytes = 0 (file mine/staging.toml): must be at least 1",
            "[validate_config] limits.max_stream_bytes = 0 (file mine/default.toml): must be at least 1",
        ),
    ),
    "what can't be loaded": Case(
        arguments="--config-dir none --profile devv --config none.toml",
        environ={
            "DS_SERVER__BIND_ADRESS": "x",
            "DS_SERVER__PORT": "http",
            "DS_HTTP__CACHE": "x",
            "DS_TRANSPORT__HTTP__VERSIONS": "http1,spdy",
            "DS_PROXY__ENABLED": "yes",
        },
        expected=(
            ("[load_config] configuration directory not found: 'none' (--config-dir): give the path of an existing"
            " directory"),
            ("[load_config] unknown profile 'devv' (--profile): did you mean dev?; a custom profile needs the file"
            " none/devv.toml"),
            "[load_config] configuration file not found: 'none.toml' (--config): give the path of an existing file",
            "[load_config] http.cache = 'x' (DS_HTTP__CACHE): must be one of no-store, private, public",
            "[load_config] proxy.enabled = 'yes' (DS_PROXY__ENABLED): must be exactly true or false",
            ("[load_config] unknown environment variable DS_SERVER__BIND_ADRESS = 'x': did you mean"
            " DS_SERVER__BIND_ADDRESS?"),
            ("[load_config] server.port = 'http' (DS_SERVER__PORT): must be a whole number in decimal digits, without"
            " spaces"),
            ("[load_config] transport.http.versions[1] = 'spdy' (DS_TRANSPORT__HTTP__VERSIONS): must be one of http1,"
            " http2"),
        ),
    ),
    "a file with mistakes": Case(
        files={
            "config/local.toml": """
                [limts]
                x = 1
                [limits]
                max_stream_bytes = "1"
                x = 1
                [transport.tls]
                min_version = 1.2
            """
        },
        expected=(
            "[load_config] unknown section [limts] (file config/local.toml): did you mean limits?",
            ("[load_config] limits.max_stream_bytes = '1' (file config/local.toml): must be a whole number, without"
            " quotes"),
            "[load_config] limits.x = 1 (file config/local.toml): unknown key; remove it",
            "[load_config] transport.tls.min_version = 1.2 (file config/local.toml): must be a string",
        ),
    ),
    "not TOML": Case(
        files={"config/default.toml": "[server\n"},
        expected=(
            ("[load_config] configuration file is not valid TOML: 'config/default.toml': Expected ']' at the end of a"
            " table declaration (at line 1, column 8); fix the file there"),
        ),
    ),
    "http mode": Case(
        environ={
            "DS_TRANSPORT__HTTP__VERSIONS": "http1,http2",
            "DS_TRANSPORT__TLS__CERT_PATH": "c",
            "DS_TRANSPORT__TLS__KEY_PATH": "k",
            "DS_TRANSPORT__TLS__CLIENT_CA_PATH": "a",
            "DS_PROXY__FORWARDED_HEADERS": "forwarded",
            "DS_PROXY__TRUSTED_PROXIES": "::1",
            "DS_PROXY__IDENTITY__MODE": "header",
            "DS_PROXY__IDENTITY__HEADER_NAME": "x-client",
            "DS_ADMIN__ENDPOINT": "127.0.0.1:4437",
        },
        expected=(
            "transport.tls.cert_path", "transport.tls.key_path", "transport.tls.client_ca_path",
            "transport.http.versions", "proxy.forwarded_headers", "proxy.trusted_proxies", "proxy.identity.mode",
            "proxy.identity.header_name", "admin.endpoint",
        ),
    ),
    "tls mode": Case(
        environ={
            "DS_TRANSPORT__MODE": "TLS",
            "DS_TRANSPORT__TLS__CERT_PATH": "",
            "DS_TRANSPORT__TLS__CLIENT_CA_PATH": "a",
            "DS_TRANSPORT__TLS__MIN_VERSION": "tls1.3",
            "DS_TRANSPORT__TLS__MAX_VERSION": "TLS-1.2",
            "DS_TRANSPORT__TLS__ALPN_PROTOCOLS": "h2",
            "DS_PROXY__ENABLED": "true",
            "DS_PROXY__IDENTITY__MODE": "header",
        },
        expected=(
            "transport.tls.cert_path", "transport.tls.key_path", "transport.tls.client_ca_path",
            "transport.tls.min_version", "transport.tls.alpn_protocols", "transport.tls.alpn_protocols",
            "proxy.forwarded_headers", "proxy.trusted_proxies", "proxy.identity.mode", "proxy.identity.header_name",
        ),
    ),
    "a production profile": Case(
        arguments="--profile prod-mtls",
        expected=(
            "transport.tls.cert_path", "transport.tls.key_path", "transport.tls.client_ca_path", "http.cors_origins",
        ),
    ),
    "mtls mode": Case(
        files={
            "config/default.toml": """
                [transport]
                mode = "mtls"
                http.versions = ["http1", "http2"]
                tls.cert_path = "c"
                tls.key_path = "k"
                tls.alpn_protocols = ["http/1.1"]
                [proxy]
                enabled = true
                forwarded_headers = "x-forwarded"
                trusted_proxies = ["::1"]
                identity.header_name = "x-client"
            """
        },
        expected=("transport.tls.client_ca_path", "transport.tls.alpn_protocols", "proxy.identity.header_name"),
    ),
    "the profile's variable": Case(environ={"DS_PROFILE": "prod"}, expected=("http.cors_origins",)),
    "a daemon": Case(
        twistd="",
        environ={"DS_LIMITS__MAX_STREAM_BYTES": "0"},
        expected=("limits.max_stream_bytes",),
    ),
}  # fmt: skip
"""The commands. Where only keys are expected, the texts are those of the tests of the rules."""


VALUES: Mapping[str, Mapping[str, str]] = {
    "server.bind_address": {
        '"localhost:80"': "must be an IP address and a port, such as 127.0.0.1:4437 or [::1]:4437; host names",
        '"127.0.0.1:65536"': "must have a port of at most 65535",
    },
    "server.endpoints": {
        '["127.0.0.1:80"]': "isn't an endpoint; write tcp:80:interface=127.0.0.1",
        '[""]': "is blank; write an endpoint such as tcp:4437",
        '["nowhere"]': "isn't an endpoint such as tcp:4437",
        '["tcq:1"]': "has an unknown type; the known types are ",
        '["tcp:65536"]': "must have a port from 0 to 65535, as in tcp:4437",
        '["unix:"]': "must have a path, as in unix:/run/durable-streams/http.sock",
        '["tcp:1", "tcp:1"]': "repeats item [0]",
        '["tcp:1", "tcp6:1"]': "uses port 1, like item [0]",
    },
    "server.max_connections": {"-1": "must be at least 0"},
    "server.drain_delay_secs": {"86401": "must be at most 86400"},
    "server.shutdown_grace_secs": {"-1": "must be at least 0", "86401": "must be at most 86400"},
    "limits.max_memory_bytes": {"0": "must be at least 1"},
    "limits.max_disk_bytes": {"-1": "must be at least 0"},
    "limits.max_stream_bytes": {
        "0": "must be at least 1",
        "10_000_000_000_000_000": "must be at most 9999999999999999",
    },
    "limits.max_streams": {"0": "must be at least 1"},
    "limits.max_producers": {"0": "must be at least 1"},
    "limits.max_buffered_bytes": {"65535": "must be at least 65536"},
    "limits.max_stream_name_bytes": {"0": "must be at least 1", "65537": "must be at most 65536"},
    "limits.max_stream_name_segments": {"0": "must be at least 1", "32769": "must be at most 32768"},
    "limits.max_fork_depth": {"0": "must be at least 1", "1000001": "must be at most 1000000"},
    "http.cors_allow_headers": {
        '["*"]': "isn't the name of a header",
        '["X-A", "x-a"]': "means the same as item [0]",
    },
    "http.cors_origins": {
        '"https://A"': "is sent by browsers as 'https://a'; write it like that",
        '"a"': "is not an origin such as https://app.example",
        '""': "is empty",
        '"https://a, *"': "is mixed with other origins",
        '"https://a, https://a"': "repeats item [0]",
    },
    "http.stream_base_path": {
        '"v1"': "must begin with /",
        '"/v1/"': "must not end with /",
        '"/v1//a"': "has an empty segment; write single slashes",
        '"/v1/.."': "has the segment '..', which clients remove from a path",
        '"/{a}"': "has the segment '{a}'; letters, digits and",
        '"/metrics"': "overlaps with the server's own pages",
    },
    "storage.data_dir": {'" "': "must not be blank", '"a\\u0000"': "has a null character"},
    "storage.scrub_bytes_per_second": {"-1": "must be at least 0", "1099511627777": "must be at most 1099511627776"},
    "storage.checkpoint_bytes": {"1": "must be at least 4096", "1099511627777": "must be at most 1099511627776"},
    "storage.acid_shard_count": {
        "3": "must be a power of two",
        "0": "must be at least 1",
        "512": "must be at most 256",
    },
    "transport.http.versions": {
        '["http3"]': "HTTP/3 is not supported; remove it",
        "[]": "must not be empty; name at least one",
        '["http1", "h1"]': "repeats item [0]",
    },
    "transport.tls.cert_path": {'" "': "must not be blank", '"\\u0000"': "has a null character"},
    "transport.tls.key_path": {'""': "must not be blank"},
    "transport.tls.client_ca_path": {'""': "must not be blank"},
    "transport.tls.alpn_protocols": {'["http/1.1", "h1"]': "repeats item [0]"},
    "transport.tls.handshake_timeout_secs": {"0": "must be at least 1", "3601": "must be at most 3600"},
    "transport.connection.long_poll_timeout_secs": {"0": "must be at least 1", "86401": "must be at most 86400"},
    "transport.connection.sse_reconnect_interval_secs": {"-1": "must be at least 0", "31536001": "must be at most"},
    "proxy.trusted_proxies": {
        '["10.0.0.0/33"]': "must be an IP address or a network",
        '["::1", "::1/128"]': "means the same as item [0], '::1'",
    },
    "proxy.identity.header_name": {'"a b"': "is not a header name", '"Host"': "is a header with another meaning"},
    "observability.rust_log": {
        '"a=loud"': "has the level 'loud'; the levels are debug",
        '"a b"': "is neither a level nor target=level",
        '""': "is blank; write a level such as info",
    },
    "admin.endpoint": {'"9090"': "is not an address; write 127.0.0.1:9090", '""': "is blank"},
    "admin.allowed_hosts": {
        '["a:80"]': "must be a host name or an IP address without a port",
        '["a.b", "A.b."]': "means the same as item [0], 'a.b'",
    },
    "admin.base_path": {'"/a/"': "must not end with /", '"/healthz/a"': "overlaps with the server's own pages"},
}
"""Bad values of single keys, as TOML, with why each is refused."""


def value_case(number: int) -> tuple[Case, dict[str, str]]:
    """A case with one bad value of every key that has so many, and the reason for each."""
    chosen = {path: list(values.items())[number] for path, values in VALUES.items() if len(values) > number}
    text = "".join(f"{path} = {value}\n" for path, (value, _) in chosen.items())
    reasons = {path: reason for path, (_, reason) in chosen.items()}
    return Case(files={"config/local.toml": text}, expected=tuple(reasons)), reasons


VALUE_CASES = [value_case(number) for number in range(max(map(len, VALUES.values())))]


def run(directory: Path, case: Case) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    directory.mkdir()
    for name, text in case.files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return subprocess.run(
        [str(TWISTD), *case.twistd.split(), "durable-streams", *case.arguments.split()],
        cwd=directory,
        env=child_environment(**case.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each of the commands did."""
    base = tmp_path_factory.mktemp("twistd")
    cases = {**CASES, **{f"values {number}": case for number, (case, _) in enumerate(VALUE_CASES)}}
    with ThreadPoolExecutor(PROCESSES) as pool:
        running = {
            name: pool.submit(run, base / str(number), case) for number, (name, case) in enumerate(cases.items())
        }
        return {name: future.result() for name, future in running.items()}


class RefusalTests:
    """What can't be used ends the server before it begins."""

    @pytest.mark.parametrize("name", CASES)
    def test_refused(self, name: str, ended: Mapping[str, subprocess.CompletedProcess[str]]) -> None:
        """Everything that is wrong is a line on stderr; the status is 1, and nothing else is said."""
        result, expected = ended[name], CASES[name].expected
        assert result.returncode == 1
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        if not expected[0].startswith("["):
            assert all(line.startswith("[validate_config] ") for line in lines)
            lines = [line.split(" ")[1] for line in lines]
        assert tuple(lines) == expected

    @pytest.mark.parametrize("number", range(len(VALUE_CASES)))
    def test_values(self, number: int, ended: Mapping[str, subprocess.CompletedProcess[str]]) -> None:
        """Every bad value of a file is told with its key, its origin and what to do."""
        result, (case, reasons) = ended[f"values {number}"], VALUE_CASES[number]
        lines = result.stderr.splitlines()
        paths = [line.split(" ")[1].partition("[")[0] for line in lines]
        assert paths == sorted(case.expected, key=list(KEYS).index)
        for path, line in zip(paths, lines, strict=True):
            assert line.startswith((f"[validate_config] {path} = ", f"[validate_config] {path}["))
            assert " (file config/local.toml): " in line
            assert reasons[path] in line

    def test_every_rule(self) -> None:
        """No key with a rule or a range is left out."""
        ranges = {path for path, key in KEYS.items() if key.type is int}
        assert VALUES.keys() == VALUE_RULES.keys() | ranges


class ServingTests:
    """What can be used is what the server runs with."""

    def test_layers(self, tmp_path: Path) -> None:
        """Files, profile and variables come together; old names and strangers are warned about in the log."""
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "staging.toml").write_text(
            '[http]\nstream_base_path = "/streams"\nallow_wildcard_cors = true\n[log]\nrust_log = "info"\n'
        )
        environ = {"DS_STORAGE__MODE": "file", "DS_STORAGE__DATA_DIR": "store", "DS_SERVICE_HOST": "10.0.0.1"}
        arguments = ("--config-dir", "mine", "--profile", "staging")
        with twistd_server(tmp_path, *arguments, environ=environ) as server:
            log = server.log.read_text()
        assert f"storage: file-durable in {tmp_path / 'store'}" in log
        assert f"protocol: {server.url}/streams" in log
        assert "log.rust_log (file mine/staging.toml) is an old name; use observability.rust_log" in log
        assert "environment variables that aren't configuration keys are ignored: DS_SERVICE_HOST" in log
        assert "cors_origins" not in log

    def test_production(self, tmp_path: Path) -> None:
        """A production profile keeps streams durably, where it is told to."""
        environ = {"DS_HTTP__CORS_ORIGINS": "https://a.example", "DS_STORAGE__DATA_DIR": "store"}
        with twistd_server(tmp_path, "--profile", "prod", environ=environ) as server:
            log = server.log.read_text()
        assert f"storage: file-durable in {tmp_path / 'store'}, up to any number of bytes, 268435456 bytes per" in log
