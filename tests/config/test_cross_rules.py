"""What keys must fulfil together, and what is doubtful."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from attrs import evolve

from dstreams.config import ConfigError, validate_config
from dstreams.config.building import build, settings_of
from dstreams.config.keys import Value
from dstreams.config.profiles import PROFILES, DeploymentProfile
from dstreams.config.schema import KEYS, Config, Http, Server
from dstreams.config.settings import Setting
from dstreams.config.validation import validate, warnings

Values = Mapping[str, Value]

CERT: Values = {"transport.tls.cert_path": "c.pem"}
KEY: Values = {"transport.tls.key_path": "k.pem"}
CLIENT_CA: Values = {"transport.tls.client_ca_path": "a.pem"}
TLS: Values = {"transport.mode": "tls", **CERT, **KEY}
MTLS: Values = {"transport.mode": "mtls", **CERT, **KEY, **CLIENT_CA}
PROXY: Values = {
    "proxy.enabled": True,
    "proxy.forwarded_headers": "forwarded",
    "proxy.trusted_proxies": ("10.0.0.1",),
}
IDENTITY: Values = {"proxy.identity.mode": "header", "proxy.identity.header_name": "X-Client"}


def settings(values: Values) -> dict[str, Setting]:
    """The defaults, but for some values."""
    return settings_of(Config()) | {path: Setting(KEYS[path], value, "here") for path, value in values.items()}


def problems(values: Values, profile: str = "default") -> list[str]:
    """What is wrong with values, without the phase that all have."""
    found = [str(problem) for problem in validate(settings(values), DeploymentProfile(profile))]
    assert all(text.startswith("[validate_config] ") for text in found)
    return [text.removeprefix("[validate_config] ") for text in found]


class GoodTests:
    """What can be combined."""

    @pytest.mark.parametrize(
        "values",
        [
            {},
            TLS,
            MTLS,
            {**TLS, "transport.tls.min_version": "1.3"},
            {**TLS, "transport.tls.max_version": "1.2"},
            {**TLS, "transport.http.versions": ("http2",), "transport.tls.alpn_protocols": ("h2",)},
            {
                **TLS,
                "transport.http.versions": ("http1", "http2"),
                "transport.tls.alpn_protocols": ("http/1.1", "h2"),
            },
            PROXY,
            {**PROXY, "proxy.trusted_proxies": ("10.0.0.0/8", "::1", "fd00::1/8", "10.1.2.3/16")},
            {**PROXY, **MTLS, **IDENTITY},
            {"admin.endpoint": "127.0.0.1:9090"},
            {"admin.endpoint": "tcp:4437", "server.bind_address": "10.0.0.1:4437"},
            {"admin.endpoint": "127.0.0.1:0", "server.bind_address": "127.0.0.1:0"},
            {"admin.endpoint": "127.0.0.1:4437", "server.bind_address": "10.0.0.1:4437"},
            {"admin.endpoint": "127.0.0.1:4437", "server.endpoints": ("unix:/run/a",)},
            {"http.cors_origins": "https://a.example"},
        ],
    )
    def test_good(self, values: Values) -> None:
        """These are."""
        assert problems(values) == []


class TransportTests:
    """The mode, its files, the versions of HTTP and of TLS."""

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (
                CERT,
                (
                    "transport.tls.cert_path = 'c.pem' (here): is not used with transport.mode = 'http' (Config);"
                    ' set transport.mode = "tls" or "mtls", or remove this key'
                ),
            ),
            (KEY, "transport.tls.key_path = 'k.pem' (here): is not used with transport.mode = 'http' (Config);"),
            (CLIENT_CA, "transport.tls.client_ca_path = 'a.pem' (here): is not used with transport.mode = 'http'"),
            (
                {**TLS, **CLIENT_CA},
                (
                    "transport.tls.client_ca_path = 'a.pem' (here): is not used with transport.mode = 'tls' (here);"
                    ' set transport.mode = "mtls", or remove this key'
                ),
            ),
            (
                {"transport.mode": "tls", **CERT},
                (
                    "transport.tls.key_path = unset (Config): is required with transport.mode = 'tls' (here); give the"
                    " path of a PEM file"
                ),
            ),
            ({"transport.mode": "tls", **KEY}, "transport.tls.cert_path = unset (Config): is required with"),
            (
                {**TLS, "transport.mode": "mtls"},
                "transport.tls.client_ca_path = unset (Config): is required with transport.mode = 'mtls' (here)",
            ),
            (
                {"transport.http.versions": ("http1", "http2"), "transport.tls.alpn_protocols": ("h2", "http/1.1")},
                (
                    "transport.http.versions = ['http1', 'http2'] (here): has http2, which needs TLS, with"
                    " transport.mode = 'http' (Config); set"
                ),
            ),
            ({**TLS, "transport.http.versions": ()}, "transport.http.versions = [] (here): must not be empty"),
            (
                {**TLS, "transport.http.versions": ("http1", "http1")},
                "transport.http.versions[1] = 'http1' (here): repeats item [0]; keep one of them",
            ),
            (
                {**TLS, "transport.http.versions": ("http1", "http3")},
                "transport.http.versions[1] = 'http3' (here): HTTP/3 is not supported; remove it",
            ),
            (
                {**TLS, "transport.tls.min_version": "1.3", "transport.tls.max_version": "1.2"},
                "transport.tls.min_version = '1.3' (here): is above transport.tls.max_version = '1.2' (here); lower it",
            ),
            (
                {**TLS, "transport.tls.alpn_protocols": ("h2", "http/1.1")},
                (
                    "transport.tls.alpn_protocols = ['h2', 'http/1.1'] (here): has h2 without http2 in"
                    " transport.http.versions = ['http1'] (Config); add http2 there, or remove h2 here"
                ),
            ),
            (
                {**TLS, "transport.tls.alpn_protocols": ()},
                (
                    "transport.tls.alpn_protocols = [] (here): lacks http/1.1, which belongs to transport.http.versions"
                    " = ['http1'] (Config); add it, or remove this key"
                ),
            ),
            (
                {**TLS, "transport.tls.alpn_protocols": ("http/1.1", "http/1.1")},
                "transport.tls.alpn_protocols[1] = 'http/1.1' (here): repeats item [0]",
            ),
            (
                {"transport.tls.alpn_protocols": ("h2", "http/1.1")},
                "transport.tls.alpn_protocols = ['h2', 'http/1.1'] (here): has h2 without http2",
            ),
            ({**TLS, "transport.tls.cert_path": " "}, "transport.tls.cert_path = ' ' (here): must not be blank"),
            ({**TLS, "transport.tls.key_path": ""}, "transport.tls.key_path = '' (here): must not be blank"),
            (
                {**MTLS, "transport.tls.client_ca_path": "\0"},
                "transport.tls.client_ca_path = '\\x00' (here): has a null",
            ),
        ],
    )
    def test_bad(self, values: Values, expected: str) -> None:
        """Each is refused once, with the other key that it clashes with and the remedy."""
        (found,) = problems(values)
        assert found.startswith(expected)

    def test_all_missing(self) -> None:
        """A production profile with TLS asks for all its files at once."""
        found = problems({**PROFILES["prod-mtls"], "transport.tls.alpn_protocols": ("h2", "http/1.1")}, "prod-mtls")
        assert [text.partition(" ")[0] for text in found] == [
            "transport.tls.cert_path", "transport.tls.key_path", "transport.tls.client_ca_path", "http.cors_origins",
        ]  # fmt: skip


class ProxyTests:
    """Reverse proxies and identity."""

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (
                {"proxy.forwarded_headers": "forwarded"},
                (
                    "proxy.forwarded_headers = 'forwarded' (here): is not used with proxy.enabled = false (Config); set"
                    " proxy.enabled = true, or remove this key"
                ),
            ),
            ({"proxy.trusted_proxies": ("::1",)}, "proxy.trusted_proxies = ['::1'] (here): is not used with"),
            ({"proxy.identity.mode": "header"}, "proxy.identity.mode = 'header' (here): is not used with"),
            ({"proxy.identity.header_name": "x"}, "proxy.identity.header_name = 'x' (here): is not used with"),
            (
                {**PROXY, "proxy.forwarded_headers": "none"},
                "proxy.forwarded_headers = 'none' (here): must be x-forwarded or forwarded with proxy.enabled = true",
            ),
            ({**PROXY, "proxy.trusted_proxies": ()}, "proxy.trusted_proxies = [] (here): must not be empty with"),
            (
                {**PROXY, "proxy.trusted_proxies": ("10.0.0.0/33",)},
                (
                    "proxy.trusted_proxies[0] = '10.0.0.0/33' (here): must be an IP address or a network, such as"
                    " 10.1.2.3"
                ),
            ),
            (
                {**PROXY, "proxy.trusted_proxies": ("10.0.0.0/8", "10.1.0.0/8")},
                (
                    "proxy.trusted_proxies[1] = '10.1.0.0/8' (here): means the same as item [0], '10.0.0.0/8'; keep"
                    " one of them"
                ),
            ),
            (
                {**PROXY, **TLS, **IDENTITY},
                (
                    "proxy.identity.mode = 'header' (here): needs a proxy that presents a client certificate, but"
                    " transport.mode = 'tls' (here); set that to \"mtls\""
                ),
            ),
            (
                {**PROXY, **MTLS, "proxy.identity.mode": "header"},
                "proxy.identity.header_name = unset (Config): is required with proxy.identity.mode = 'header' (here)",
            ),
            (
                {**PROXY, "proxy.identity.header_name": "x"},
                "proxy.identity.header_name = 'x' (here): is not used with proxy.identity.mode = 'none' (Config)",
            ),
            (
                {**PROXY, **MTLS, **IDENTITY, "proxy.identity.header_name": "a b"},
                "proxy.identity.header_name = 'a b' (here): is not a header name",
            ),
            (
                {**PROXY, **MTLS, **IDENTITY, "proxy.identity.header_name": ""},
                "proxy.identity.header_name = '' (here): is not a header name",
            ),
            (
                {**PROXY, **MTLS, **IDENTITY, "proxy.identity.header_name": "X-Forwarded-For"},
                "proxy.identity.header_name = 'X-Forwarded-For' (here): is a header with another meaning",
            ),
        ],
    )
    def test_bad(self, values: Values, expected: str) -> None:
        """Each is refused once, with the other key that it clashes with and the remedy."""
        (found,) = problems(values)
        assert found.startswith(expected)


class ListenerTests:
    """Listeners that want the same place."""

    @pytest.mark.parametrize(
        ("admin", "values", "other"),
        [
            ("127.0.0.1:4437", {}, "server.bind_address = '0.0.0.0:4437' (Config)"),
            (
                "tcp:4437:interface=0.0.0.0",
                {"server.bind_address": "127.0.0.1:4437"},
                "server.bind_address = '127.0.0.1:4437' (here)",
            ),
            (
                "tcp:80:interface=::1".replace("::", r"\:\:"),
                {"server.endpoints": (r"tcp6:80:interface=\:\:1",)},
                "server",
            ),
            (
                "unix:/run/a",
                {"server.endpoints": ("tcp:1", "unix:/run/a")},
                "server.endpoints = ['tcp:1', 'unix:/run/a']",
            ),
        ],
    )
    def test_admin(self, admin: str, values: Values, other: str) -> None:
        """The admin listener needs a place of its own."""
        (found,) = problems({"admin.endpoint": admin, **values})
        assert f"conflicts with the listener for clients: {other}" in found


class CredentialsTests:
    """Cookies and the like are for known origins."""

    @pytest.mark.parametrize(
        ("origins", "meaning"), [("*", "all origins"), ("null", "null, which"), ("https://a, null", "null, which")]
    )
    def test_any_site(self, origins: str, meaning: str) -> None:
        """They aren't allowed where any site could use them."""
        (found,) = problems({"http.cors_origins": origins, "http.cors_credentials": True})
        assert found.startswith(f"http.cors_credentials = true (here): isn't allowed for {meaning}")
        assert f"http.cors_origins = '{origins}' (here); list" in found
        assert problems({"http.cors_origins": origins}) == []

    def test_listed(self) -> None:
        """They are for listed origins."""
        assert problems({"http.cors_origins": "https://a, http://b:8080", "http.cors_credentials": True}) == []


class ProductionTests:
    """What only production profiles ask for."""

    @pytest.mark.parametrize("profile", ["prod", "prod-tls", "prod-mtls"])
    def test_wildcard(self, profile: str) -> None:
        """Every web site may not use a production server, unless that is said to be meant."""
        (found,) = problems({}, profile)
        assert found.startswith(f"http.cors_origins = '*' (Config): is not allowed in the profile {profile}; list the")
        assert problems({"http.allow_wildcard_cors": True}, profile) == []
        assert problems({"http.cors_origins": "https://a"}, profile) == []

    @pytest.mark.parametrize("profile", ["default", "dev", "production"])
    def test_others(self, profile: str) -> None:
        """Elsewhere they may."""
        assert problems({}, profile) == []


class ManyTests:
    """Everything that is wrong is found."""

    def test_all(self) -> None:
        """Problems of single values and of combinations come together, one for each key."""
        values: Values = {
            "limits.max_stream_bytes": 0,
            "transport.mode": "tls",
            "transport.tls.cert_path": " ",
            **PROXY,
        }
        found = problems({**values, "proxy.trusted_proxies": ()})
        assert [text.partition(" ")[0] for text in found] == [
            "limits.max_stream_bytes", "transport.tls.cert_path", "transport.tls.key_path", "proxy.trusted_proxies",
        ]  # fmt: skip


class EmbeddedTests:
    """Configurations that programs make themselves."""

    def test_good(self) -> None:
        """A good one passes, and one made from settings is the same again."""
        validate_config(Config())
        assert build(settings_of(Config())) == Config()

    def test_bad(self) -> None:
        """What is wrong is told, with the class as its origin."""
        with pytest.raises(ConfigError, match=r"http.stream_base_path = 'v1' \(Config\): must begin with /"):
            validate_config(Config(http=Http(stream_base_path="v1")))

    def test_profile(self) -> None:
        """It can be held to what production asks for."""
        with pytest.raises(ConfigError, match="is not allowed in the profile prod"):
            validate_config(Config(), DeploymentProfile("prod"))

    @pytest.mark.parametrize(
        ("server", "why"),
        [
            (Server(shutdown_grace_secs=True), "server.shutdown_grace_secs = true (Config): must be a whole number"),
            (Server(bind_address=None), "server.bind_address = unset (Config): must be a string"),  # type: ignore[arg-type]
            (Server(endpoints=["a"]), "server.endpoints = ['a'] (Config): must be a list of strings"),  # type: ignore[arg-type]
            (Server(endpoints=(1,)), "server.endpoints = [1] (Config): must be a list of strings"),  # type: ignore[arg-type]
        ],
    )
    def test_types(self, server: Server, why: str) -> None:
        """A value of another type is refused."""
        with pytest.raises(ConfigError) as caught:
            validate_config(Config(server=server))
        assert str(caught.value) == f"[validate_config] {why}"


class WarningTests:
    """Valid but doubtful settings are warned about."""

    def test_wildcard(self) -> None:
        """Letting every origin in is warned about once, until it is said to be meant."""
        assert len(warnings(Config())) == 1
        assert warnings(evolve(Config(), http=evolve(Config().http, allow_wildcard_cors=True))) == []
        assert warnings(evolve(Config(), http=evolve(Config().http, cors_origins="https://a"))) == []

    @pytest.mark.parametrize(
        ("values", "start"),
        [
            ({**PROXY, "proxy.trusted_proxies": ("0.0.0.0/0",)}, "proxy.trusted_proxies has 0.0.0.0/0: every client"),
            ({"admin.endpoint": "0.0.0.0:9090"}, "admin.endpoint = '0.0.0.0:9090' can be reached from other machines"),
            (
                {"admin.endpoint": "tcp:9090:interface=10.0.0.1"},
                "admin.endpoint = 'tcp:9090:interface=10.0.0.1' can be",
            ),
            ({"proxy.identity.require_tls": False}, "proxy.identity.require_tls = false has no effect"),
        ],
    )
    def test_others(self, values: Values, start: str) -> None:
        """Trusting everybody, an admin listener for everybody, and a key without effect, are warned about."""
        (found,) = warnings(build(settings({"http.allow_wildcard_cors": True, **values})))
        assert found.startswith(start)

    def test_unix_sockets(self) -> None:
        """Trusting whoever connects to a UNIX socket is no reason for a warning."""
        values = {"http.allow_wildcard_cors": True, **PROXY, "proxy.trusted_proxies": ("unix", "10.0.0.0/8")}
        assert warnings(build(settings(values))) == []
