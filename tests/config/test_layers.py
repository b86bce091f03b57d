"""How the layers of a configuration are laid over each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstreams.config import Config, ConfigError, ConfigLoadOptions, LoadedConfig, load
from dstreams.config import layers as layers_module
from dstreams.config.keys import LEVEL_SEPARATOR

LAYERS = ("profile", "default.toml", "dev.toml", "local.toml", "--config", "environment")
"""The layers above the defaults, the weakest first."""

SERVER_PORT = "server.port (DS_SERVER__PORT) is an old name; use server.bind_address"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration directory; the working directory is the one above it."""
    made = tmp_path / "config"
    made.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layers_module, "DIRECTORIES", ("config", str(tmp_path / "etc")))
    return made


def loaded(
    *, profile: str | None = None, config: str | None = None, config_dir: str | None = None, **environ: str
) -> LoadedConfig:
    """What the layers come to, without the warning that every origin is let in."""
    options = ConfigLoadOptions(config_dir=config_dir, profile=profile, config_override=config)
    return load(options, {"DS_HTTP__ALLOW_WILDCARD_CORS": "true", **environ})


def value(result: LoadedConfig, path: str) -> tuple[object, str]:
    """A key's value and origin."""
    setting = result.settings[path]
    return setting.value, setting.origin


def problems(*, profile: str | None = None, config_dir: str | None = None, **environ: str) -> list[str]:
    """What is wrong with the layers."""
    with pytest.raises(ConfigError) as caught:
        loaded(profile=profile, config_dir=config_dir, **environ)
    return str(caught.value).splitlines()


class LayerTests:
    """A later layer wins over an earlier one, key by key."""

    def test_defaults(self) -> None:
        """Without any layer the configuration is the defaults."""
        assert load(ConfigLoadOptions(), {}).config == Config()

    @pytest.mark.parametrize("count", range(len(LAYERS) + 1))
    def test_order(self, count: int, directory: Path, tmp_path: Path) -> None:
        """Of the layers that set a key, the last one's value holds, and is named as the origin."""
        expected: list[tuple[object, str]] = [("0.0.0.0:4437", "default"), ("127.0.0.1:4437", "profile dev")]
        environ: dict[str, str] = {}
        config = None
        for port, layer in enumerate(LAYERS[1:count], start=1):
            text = f'[server]\nbind_address = "127.0.0.1:{port}"\n'
            if layer == "environment":
                environ["DS_SERVER__BIND_ADDRESS"] = f"127.0.0.1:{port}"
                expected.append((f"127.0.0.1:{port}", "DS_SERVER__BIND_ADDRESS"))
                continue
            path = tmp_path / "named.toml" if layer == "--config" else directory / layer
            path.write_text(text)
            config = "named.toml" if layer == "--config" else None
            expected.append((f"127.0.0.1:{port}", f"file {path.relative_to(tmp_path)}"))
        result = loaded(profile="dev" if count else None, config=config, **environ)
        assert value(result, "server.bind_address") == expected[count]

    def test_key_by_key(self, directory: Path) -> None:
        """A layer replaces only what it names."""
        (directory / "default.toml").write_text('[server]\nbind_address = "127.0.0.1:1"\nshutdown_grace_secs = 7\n')
        config = loaded(DS_SERVER__BIND_ADDRESS="127.0.0.1:2").config
        assert config.server.bind_address == "127.0.0.1:2"
        assert config.server.shutdown_grace_secs == 7

    def test_only_the_winner_is_validated(self, directory: Path) -> None:
        """A value that a later layer replaces needn't be valid, only of its type."""
        (directory / "default.toml").write_text('[server]\nbind_address = "nowhere"\n')
        loaded(DS_SERVER__BIND_ADDRESS="127.0.0.1:2")

    def test_files(self, directory: Path, tmp_path: Path) -> None:
        """The files that were read are named in their order; those of other profiles aren't read."""
        for name in ("local", "prod", "dev", "default"):
            (directory / f"{name}.toml").touch()
        (tmp_path / "named.toml").touch()
        assert loaded(profile="dev", config="named.toml").files == (
            "config/default.toml", "config/dev.toml", "config/local.toml", "named.toml",
        )  # fmt: skip

    def test_missing_override(self) -> None:
        """The file of --config must exist."""
        with pytest.raises(ConfigError, match=r"configuration file not found: 'none.toml' \(--config\)"):
            loaded(config="none.toml")

    def test_all_problems(self, directory: Path) -> None:
        """All problems of all layers are reported together, each with its origin."""
        (directory / "local.toml").write_text("[limits]\nmax_stream_bytes = 0\nmax_memory_bytes = true\n")
        assert problems(profile="a b", DS_HTTP__CACHE="x", DS_HTTP__STREAM_BASE_PATH="v1") == [
            (
                "[load_config] unknown profile 'a b' (--profile): is not a profile name; use default, dev, prod,"
                " prod-tls, prod-mtls, or letters, digits, - and _"
            ),
            "[load_config] limits.max_memory_bytes = true (file config/local.toml): must be a whole number",
            "[load_config] http.cache = 'x' (DS_HTTP__CACHE): must be one of no-store, private, public",
            "[validate_config] limits.max_stream_bytes = 0 (file config/local.toml): must be at least 1",
            "[validate_config] http.stream_base_path = 'v1' (DS_HTTP__STREAM_BASE_PATH): must begin with /",
        ]


class FollowUpTests:
    """A mistake that was told isn't told again by what follows from it."""

    @pytest.mark.parametrize(
        ("text", "environ", "keys"),
        [
            ("", {"TRANSPORT__MODE": "tsl", "TRANSPORT__TLS__CERT_PATH": "c"}, ["transport.mode"]),
            ("", {"TRANSPORT__MODE": "tls", "TRANSPORT__TLS__CERT_PTH": "c", "TLS__KEY_PATH": "k"}, ["unknown"]),
            ('transport = {mode = "tls", tls = {cert_pth = "c", key_path = "k"}}', {}, ["transport.tls.cert_pth"]),
            ('[transport]\nmode = "tls"\n[transport.tsl]\ncert_path = "c"\nkey_path = "k"', {}, ["unknown"]),
            ("[transport]\nmode = 'tls'\n[tls]\ncert_path = 1\nkey_path = 2", {}, ["tls.cert_path", "tls.key_path"]),
            ("nonsense", {"TRANSPORT__MODE": "tls"}, ["configuration"]),
            ("", {"HTTP__CACHE": "x", "TRANSPORT__TLS__CERT_PATH": "c"}, ["http.cache", "transport.tls.cert_path"]),
            ("nonsense", {"LIMITS__MAX_STREAM_BYTES": "0"}, ["configuration", "limits.max_stream_bytes"]),
        ],
    )
    def test_once(self, text: str, environ: dict[str, str], keys: list[str], directory: Path) -> None:
        """Nothing is concluded from what can't be read; single values are checked all the same."""
        (directory / "local.toml").write_text(text)
        found = problems(**{f"DS_{name}": each for name, each in environ.items()})
        assert [line.split(" ")[1] for line in found] == keys


class DirectoryTests:
    """Which directory the files come from."""

    def test_named(self, directory: Path, tmp_path: Path) -> None:
        """A directory that is named is the only one that is looked into."""
        (directory / "default.toml").write_text("[limits]\nmax_stream_bytes = 1\n")
        (tmp_path / "mine").mkdir()
        assert value(loaded(config_dir="mine"), "limits.max_stream_bytes")[1] == "default"
        (tmp_path / "mine" / "default.toml").write_text("[limits]\nmax_stream_bytes = 2\n")
        assert value(loaded(config_dir="mine"), "limits.max_stream_bytes") == (2, "file mine/default.toml")

    def test_named_and_missing(self) -> None:
        """A directory that is named must exist."""
        assert problems(config_dir="none") == [
            (
                "[load_config] configuration directory not found: 'none' (--config-dir): give the path of an existing"
                " directory"
            )
        ]

    @pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
    def test_impossible(self, name: str) -> None:
        """What can't be a directory is refused, too."""
        (problem,) = problems(config_dir=name)
        assert problem.startswith("[load_config] configuration directory ")

    def test_system_wide(self, directory: Path, tmp_path: Path) -> None:
        """The system's directory is used where the working directory has none."""
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "default.toml").write_text("[limits]\nmax_stream_bytes = 3\n")
        assert loaded().settings["limits.max_stream_bytes"].origin == "default"
        directory.rmdir()
        assert value(loaded(), "limits.max_stream_bytes") == (3, f"file {tmp_path}/etc/default.toml")

    def test_none(self, directory: Path) -> None:
        """It goes without any."""
        directory.rmdir()
        assert loaded().files == ()


class ProfileTests:
    """Which profile is in force."""

    @pytest.mark.parametrize("name", ["DEV", " dev ", "Dev"])
    def test_names(self, name: str) -> None:
        """Blanks around a profile's name and upper case don't matter."""
        assert loaded(profile=name).profile.name == "dev"

    @pytest.mark.parametrize("name", [None, "", " ", "default", "DEFAULT"])
    def test_default(self, name: str | None) -> None:
        """The profile default, or none, sets nothing."""
        result = loaded(profile=name, DS_HTTP__ALLOW_WILDCARD_CORS="false")
        assert result.config == Config()
        assert result.profile.name == "default"

    @pytest.mark.parametrize(
        ("name", "mode", "versions", "alpn"),
        [
            ("prod", "http", ("http1",), ("http/1.1",)),
            ("prod-tls", "tls", ("http1", "http2"), ("h2", "http/1.1")),
            ("prod-mtls", "mtls", ("http1", "http2"), ("h2", "http/1.1")),
        ],
    )
    def test_production(self, name: str, mode: str, versions: object, alpn: object) -> None:
        """The production profiles keep streams durably in the system's place, and differ in their transport."""
        tls = {"CERT": "c", "KEY": "k", "CLIENT_CA": "a"} if mode == "mtls" else {"CERT": "c", "KEY": "k"}
        environ = {f"DS_TRANSPORT__TLS__{key}_PATH": path for key, path in tls.items() if mode != "http"}
        config = loaded(profile=name, **environ).config
        assert (config.storage.mode, config.storage.data_dir) == ("file-durable", "/var/lib/durable-streams")
        assert (config.limits.max_memory_bytes, config.limits.max_stream_bytes) == (512 << 20, 256 << 20)
        assert config.transport.mode == mode
        assert config.transport.http.versions == versions
        assert config.transport.tls.alpn_protocols == alpn

    def test_own(self, directory: Path) -> None:
        """A profile of one's own is a file."""
        (directory / "staging.toml").write_text("[limits]\nmax_stream_bytes = 4\n")
        assert value(loaded(profile="Staging"), "limits.max_stream_bytes") == (4, "file config/staging.toml")

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("prod-tsl", "did you mean prod-tls?; a custom profile needs the file config/prod-tsl.toml"),
            ("local", "is reserved, because local.toml is read with every profile; choose another"),
            (
                "../etc",
                "is not a profile name; use default, dev, prod, prod-tls, prod-mtls, or letters, digits, - and _",
            ),
        ],
    )
    def test_unknown(self, name: str, why: str) -> None:
        """A profile of one's own without its file, most likely a misspelt one, is refused."""
        assert problems(profile=name) == [f"[load_config] unknown profile '{name}' (--profile): {why}"]

    def test_variable(self) -> None:
        """DS_PROFILE names the profile where the command line doesn't."""
        assert loaded(DS_PROFILE="dev").profile.name == "dev"
        assert loaded(profile="default", DS_PROFILE="dev").profile.name == "default"
        assert problems(DS_PROFILE="devv")[0].startswith("[load_config] unknown profile 'devv' (DS_PROFILE): did you")

    @pytest.mark.parametrize("blank", ["", " "])
    def test_blank(self, blank: str) -> None:
        """A blank name, as of a variable that isn't set, gets a warning: the profile that was meant doesn't hold."""
        why = "is blank, so the profile is default; name a profile, or remove it"
        assert loaded(profile=blank).warnings == (f"--profile {why}",)
        assert loaded(DS_PROFILE=blank).warnings == (f"DS_PROFILE {why}",)

    @pytest.mark.parametrize("blank", ["", " "])
    def test_blank_paths(self, blank: str) -> None:
        """A blank path isn't that of the working directory."""
        assert problems(config_dir=blank)[0].startswith(f"[load_config] configuration directory not found: {blank!r}")
        with pytest.raises(ConfigError, match="configuration file not found: "):
            loaded(config=blank)


class FollowingTests:
    """Keys that follow others."""

    def test_alpn_follows_versions(self) -> None:
        """The protocols of the handshake follow the versions of HTTP, the newer first."""
        result = loaded(
            DS_TRANSPORT__MODE="tls",
            DS_TRANSPORT__TLS__CERT_PATH="c",
            DS_TRANSPORT__TLS__KEY_PATH="k",
            DS_TRANSPORT__HTTP__VERSIONS="http1, h2",
        )
        assert value(result, "transport.tls.alpn_protocols") == (
            ("h2", "http/1.1"), "follows transport.http.versions (DS_TRANSPORT__HTTP__VERSIONS)",
        )  # fmt: skip

    def test_later_versions_reset_alpn(self, directory: Path) -> None:
        """A list of protocols holds against versions of its own layer and of earlier ones, not of later ones."""
        text = '[transport]\ntls.alpn_protocols = ["http/1.1"]\n'
        (directory / "default.toml").write_text(text)
        assert value(loaded(), "transport.tls.alpn_protocols")[1] == "file config/default.toml"
        (directory / "local.toml").write_text('[transport]\nhttp.versions = ["http1"]\n')
        assert value(loaded(), "transport.tls.alpn_protocols")[1].startswith("follows ")
        (directory / "local.toml").write_text(text + 'http.versions = ["http1"]\n')
        assert value(loaded(), "transport.tls.alpn_protocols")[1] == "file config/local.toml"

    @pytest.mark.parametrize(
        ("early", "late", "level"),
        [
            ({}, {}, "info"),
            ({"log_level": "warn"}, {}, "warn"),
            ({"rust_log": "error"}, {}, "error"),
            ({"rust_log": "error", "log_level": "warn"}, {}, "warn"),
            ({"log_level": "warn"}, {"rust_log": "error"}, "error"),
            ({"rust_log": "error"}, {"log_level": "warn"}, "warn"),
        ],
    )
    def test_log_levels(self, directory: Path, early: dict[str, str], late: dict[str, str], level: str) -> None:
        """Of the two names of the log level, that of the later layer holds; within a layer, our own."""
        for name, layer in (("default", early), ("local", late)):
            lines = [f'{key} = "{word}"' for key, word in layer.items()]
            (directory / f"{name}.toml").write_text("\n".join(["[observability]", *lines]))
        assert loaded().config.observability.log_filter.default == level

    def test_rust_log_variable(self) -> None:
        """The variable RUST_LOG wins over every layer, if it can be read; else there is a warning."""
        wins = loaded(RUST_LOG="debug", DS_OBSERVABILITY__LOG_LEVEL="error")
        assert wins.config.observability.log_filter.default == "debug"
        assert value(wins, "observability.rust_log")[1] == "RUST_LOG"
        ignored = loaded(RUST_LOG="a=loud", DS_OBSERVABILITY__LOG_LEVEL="error")
        assert ignored.config.observability.log_filter.default == "error"
        (warning,) = ignored.warnings
        assert warning.startswith("RUST_LOG = 'a=loud' has the item 'a=loud', which has the level 'loud'")
        assert loaded(RUST_LOG="").warnings == ()


class LegacyTests:
    """The keys that the Rust server still accepts."""

    @pytest.mark.parametrize(
        ("old", "text", "new", "expected"),
        [
            ("server.port", "80", "server.bind_address", "0.0.0.0:80"),
            ("server.long_poll_timeout_secs", "5", "transport.connection.long_poll_timeout_secs", 5),
            ("server.sse_reconnect_interval_secs", "6", "transport.connection.sse_reconnect_interval_secs", 6),
            ("log.rust_log", "warn", "observability.rust_log", "warn"),
        ],
    )
    def test_variables_and_files(self, old: str, text: str, new: str, expected: object, directory: Path) -> None:
        """An old key sets its successor, from the environment and from a file, and each gets a warning."""
        variable = f"DS_{old.upper().replace('.', LEVEL_SEPARATOR)}"
        by_variable = loaded(**{variable: text})
        assert value(by_variable, new) == (expected, variable)
        assert by_variable.warnings == (f"{old} ({variable}) is an old name; use {new}",)
        (directory / "local.toml").write_text(f"{old} = {text if text.isdigit() else repr(text)}")
        by_file = loaded()
        assert value(by_file, new) == (expected, "file config/local.toml")
        assert by_file.warnings == (f"{old} (file config/local.toml) is an old name; use {new}",)

    def test_successor_wins_in_its_layer(self, directory: Path) -> None:
        """In one layer the new key holds; an old key of a later layer replaces a new one of an earlier."""
        (directory / "local.toml").write_text('[server]\nport = 1\nbind_address = "127.0.0.1:2"\n')
        assert loaded().config.server.bind_address == "127.0.0.1:2"
        later = loaded(DS_SERVER__PORT="3")
        assert later.config.server.bind_address == "0.0.0.0:3"
        assert SERVER_PORT in later.warnings

    @pytest.mark.parametrize("text", ["-1", "65536", "http", "", " 80"])
    def test_bad_port(self, text: str) -> None:
        """A bad old value is refused, also beside the new key."""
        (problem,) = problems(DS_SERVER__PORT=text, DS_SERVER__BIND_ADDRESS="127.0.0.1:1")
        assert problem.startswith(f"[load_config] server.port = '{text}' (DS_SERVER__PORT): must be")

    def test_tls(self, directory: Path) -> None:
        """Old paths of certificate and key alone turn TLS on, beside the shipped default file too."""
        (directory / "default.toml").write_text('[transport]\n#mode = "http"\n')
        (directory / "local.toml").write_text('[tls]\ncert_path = "c"\nkey_path = "k"\n')
        result = loaded()
        assert value(result, "transport.mode") == ("tls", "follows [tls] in file config/local.toml")
        assert (result.config.transport.tls.cert_path, result.config.transport.tls.key_path) == ("c", "k")

    def test_tls_with_mode(self, directory: Path) -> None:
        """A mode that any layer has set stays."""
        (directory / "default.toml").write_text('[tls]\ncert_path = "c"\nkey_path = "k"\n')
        assert loaded(DS_TRANSPORT__MODE="mtls", DS_TRANSPORT__TLS__CLIENT_CA_PATH="a").config.transport.mode == "mtls"

    def test_unknown_beside(self, directory: Path) -> None:
        """The old sections have no other keys."""
        (directory / "local.toml").write_text('[log]\nlevel = "info"\n[tls]\nca = 1\n')
        assert [line.partition(":")[0] for line in problems()] == [
            "[load_config] log.level = 'info' (file config/local.toml)",
            "[load_config] tls.ca = 1 (file config/local.toml)",
        ]


class WarningTests:
    """What works and should be changed."""

    def test_wildcard(self) -> None:
        """Letting in every origin is warned about."""
        assert len(load(ConfigLoadOptions(), {}).warnings) == 1

    def test_unused_address(self) -> None:
        """An address that endpoints replace is warned about, unless it is nobody's choice."""
        assert loaded(profile="dev", DS_SERVER__ENDPOINTS="tcp:1").warnings == ()
        (warning,) = loaded(DS_SERVER__ENDPOINTS="tcp:1", DS_SERVER__BIND_ADDRESS="127.0.0.1:2").warnings
        assert warning == (
            "server.bind_address = '127.0.0.1:2' (DS_SERVER__BIND_ADDRESS) has no effect, because server.endpoints ="
            " ['tcp:1'] (DS_SERVER__ENDPOINTS) says where to listen; remove one of them"
        )

    def test_undone_profile(self, directory: Path) -> None:
        """A default.toml that spells out defaults, as the Rust server's does, undoes a profile; each key is told."""
        text = '[storage]\nmode = "memory"\n[transport]\nmode = "http"\n[limits]\nmax_stream_bytes = 5\n'
        (directory / "default.toml").write_text(text)
        (directory / "prod-tls.toml").write_text('[transport]\nhttp.versions = ["http1"]\n')
        assert loaded(profile="prod-tls").warnings == (
            (
                "storage.mode = 'memory' (file config/default.toml) overrides what the profile prod-tls sets,"
                " 'file-durable'; comment it out there"
            ),
            (
                "transport.mode = 'http' (file config/default.toml) overrides what the profile prod-tls sets, 'tls';"
                " comment it out there"
            ),
        )
        assert loaded(profile="dev").warnings == ()

    def test_wildcard_in_production(self) -> None:
        """In a production profile it is refused, unless it is said to be meant."""
        (problem,) = problems(profile="prod", DS_HTTP__ALLOW_WILDCARD_CORS="false")
        assert problem == (
            "[validate_config] http.cors_origins = '*' (default): is not allowed in the profile prod; list the origins,"
            " or set http.allow_wildcard_cors = true"
        )
        loaded(profile="prod")
        loaded(profile="prod", DS_HTTP__ALLOW_WILDCARD_CORS="false", DS_HTTP__CORS_ORIGINS="https://a")
