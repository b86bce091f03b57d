"""``durable-streams config check`` and ``config show``."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from dstreams.cli import main
from dstreams.config.schema import KEYS
from tests.support.certificates import Authority
from tests.support.servers import ROOT

WILDCARD = "warning: http.cors_origins is *: scripts of every web site can use this server; "


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration directory in the working directory, and no variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DS_") or name == "RUST_LOG"]:
        monkeypatch.delenv(name)
    (tmp_path / "config").mkdir()
    return tmp_path / "config"


def by_path(tables: dict[str, object], place: str = "") -> dict[str, object]:
    """The values of nested tables by their dotted path."""
    found: dict[str, object] = {}
    for name, value in tables.items():
        found |= by_path(value, f"{place}{name}.") if isinstance(value, dict) else {place + name: value}
    return found


class CheckTests:
    """Whether the configuration can be used."""

    def test_good(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A good one has status 0, with its doubtful settings on stderr."""
        assert main(["config", "check"]) == 0
        said = capsys.readouterr()
        assert said.out == "the configuration is valid: profile default, files: none\n"
        assert said.err.startswith(WILDCARD)
        assert said.err.count("\n") == 1

    def test_bad(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A bad one has status 1, with a line for everything that is wrong."""
        (directory / "local.toml").write_text("[server]\nbind = 1\n[limits]\nmax_stream_bytes = 0\n")
        assert main(["config", "check"]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert [line for line in said.err.splitlines() if not line.startswith("warning")] == [
            "[load_config] server.bind = 1 (file config/local.toml): unknown key; did you mean server.bind_address?",
            "[validate_config] limits.max_stream_bytes = 0 (file config/local.toml): must be at least 1",
        ]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--config-dir", "mine", "--profile", "dev", "--config", "my.toml", "config", "check"],
            ["config", "check", "--config-dir", "mine", "-p", "dev", "-c", "my.toml"],
            ["-p", "dev", "config", "check", "-c", "my.toml", "--config-dir", "mine"],
        ],
    )
    def test_options(self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The configuration's options may stand before the command or after it."""
        (tmp_path / "mine").mkdir()
        for name in ("mine/default.toml", "mine/dev.toml", "my.toml"):
            (tmp_path / name).touch()
        assert main(arguments) == 0
        assert capsys.readouterr().out == (
            "the configuration is valid: profile dev, files: mine/default.toml, mine/dev.toml, my.toml\n"
        )

    def test_environment(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """The environment counts, the profile's variable included."""
        monkeypatch.setenv("DS_PROFILE", "prod")
        assert main(["config", "check"]) == 1
        assert "is not allowed in the profile prod" in capsys.readouterr().err


class TlsFilesTests:
    """Whether the files of certificates can be used."""

    @pytest.fixture(autouse=True)
    def _tls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DS_TRANSPORT__MODE", "tls")
        monkeypatch.setenv("DS_TRANSPORT__TLS__CERT_PATH", "server.crt")
        monkeypatch.setenv("DS_TRANSPORT__TLS__KEY_PATH", "server.key")

    def test_good(self, tmp_path: Path) -> None:
        """Files that fit together are good."""
        Authority(tmp_path).issue("server")
        assert main(["config", "check", "--tls-files"]) == 0

    def test_missing(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Missing ones are told when they are asked for."""
        assert main(["config", "check"]) == 0
        capsys.readouterr()
        assert main(["config", "check", "--tls-files"]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.splitlines()[-1].startswith("[check_tls_files] TLS file not found: server.crt")

    def test_mismatch(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """So are ones that don't fit together."""
        authority = Authority(tmp_path)
        authority.issue("server")
        authority.issue("other").key.rename(tmp_path / "server.key")
        assert main(["config", "check", "--tls-files"]) == 1
        assert "\n[build_tls_context] failed to build TLS context: " in capsys.readouterr().err

    @pytest.fixture
    def _http(self, _tls: None, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("MODE", "TLS__CERT_PATH", "TLS__KEY_PATH"):
            monkeypatch.delenv(f"DS_TRANSPORT__{name}")

    @pytest.mark.usefixtures("_http")
    @pytest.mark.parametrize("endpoint", ["tcp:0", "systemd:domain=INET:index=0"])
    def test_http(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without TLS there are none to look at, nor are sockets that only a service inherits."""
        monkeypatch.setenv("DS_SERVER__ENDPOINTS", endpoint)
        assert main(["config", "check", "--tls-files"]) == 0

    @pytest.mark.usefixtures("_http")
    @pytest.mark.parametrize("key", ["DS_SERVER__ENDPOINTS", "DS_ADMIN__ENDPOINT"])
    @pytest.mark.parametrize(
        ("endpoint", "phase"),
        [("dstls:0:cert=no.crt:key=server.key", "check_tls_files"), ("ssl:0:privateKey=no.key", "resolve_transport")],
    )
    def test_endpoints(
        self, key: str, endpoint: str, phase: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Endpoints with files of their own are gone through as at the start."""
        monkeypatch.setenv(key, endpoint)
        assert main(["config", "check", "--tls-files"]) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"[{phase}] ")

    def test_two_kinds_of_tls(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So is what doesn't fit together."""
        Authority(tmp_path).issue("server")
        monkeypatch.setenv("DS_SERVER__ENDPOINTS", "dstls:0:cert=server.crt:key=server.key")
        assert main(["config", "check", "--tls-files"]) == 1
        assert "\n[resolve_transport] server.endpoints has 'dstls:0:" in capsys.readouterr().err

    @pytest.mark.usefixtures("_http")
    def test_traces(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Packages that the server would miss are missed here, too."""
        monkeypatch.setenv("DS_OBSERVABILITY__TRACES", "true")
        monkeypatch.setattr("dstreams.telemetry.traces._is_installed", lambda _: False)
        assert main(["config", "check", "--tls-files"]) == 1
        assert "\n[validate_config] observability.traces is true" in capsys.readouterr().err


class ShowTests:
    """What the layers come to."""

    def test_text(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The text is a TOML file with all values, and says where each was set."""
        (directory / "default.toml").write_text('[http]\ncors_origins = "https://a"\n')
        assert main(["config", "show", "--profile", "dev"]) == 0
        said = capsys.readouterr().out
        lines = said.splitlines()
        assert lines[0] == "# profile dev, files: config/default.toml"
        assert [line.partition("  ")[0] for line in lines if line.endswith(" # profile dev")] == [
            'server.bind_address = "127.0.0.1:4437"', 'observability.rust_log = "debug"',
        ]  # fmt: skip
        for start, origin in (
            ('http.cors_origins = "https://a" ', "  # file config/default.toml"),
            ("#admin.endpoint is unset ", "  # default"),
        ):
            (line,) = (line for line in lines if line.startswith(start))
            assert line.endswith(origin)
        expected = {path: key.default for path, key in KEYS.items() if key.default is not None}
        expected |= {
            "server.bind_address": "127.0.0.1:4437", "observability.rust_log": "debug", "http.cors_origins": "https://a",
        }  # fmt: skip
        shown = by_path(tomllib.loads(said))
        assert {path: tuple(value) if isinstance(value, list) else value for path, value in shown.items()} == expected

    def test_again(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """What is shown can be given to --config, whatever characters are in it."""
        monkeypatch.setenv("DS_STORAGE__DATA_DIR", '/a\x7f\\"\n\u2028\U0001f600')
        assert main(["config", "show"]) == 0
        (tmp_path / "shown.toml").write_text(capsys.readouterr().out)
        monkeypatch.delenv("DS_STORAGE__DATA_DIR")
        assert main(["config", "show", "--json", "--config", "shown.toml"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["config"]["storage"]["data_dir"] == '/a\x7f\\"\n\u2028\U0001f600'

    def test_json(self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """The JSON document has the values, their origins, and what is wrong or doubtful."""
        (directory / "local.toml").touch()
        monkeypatch.setenv("DS_SERVER__DRAIN_DELAY_SECS", "5")
        assert main(["config", "show", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert list(document) == ["profile", "files", "config", "origins", "warnings", "problems"]
        assert (document["profile"], document["files"]) == ("default", ["config/local.toml"])
        assert document["config"]["server"]["drain_delay_secs"] == 5
        assert document["config"]["transport"]["tls"]["cert_path"] is None
        assert document["config"]["transport"]["http"]["versions"] == ["http1"]
        assert set(by_path(document["config"])) == set(document["origins"]) == set(KEYS)
        assert document["origins"]["server.drain_delay_secs"] == "DS_SERVER__DRAIN_DELAY_SECS"
        assert [warning.partition(":")[0] for warning in document["warnings"]] == ["http.cors_origins is *"]
        assert document["problems"] == []

    @pytest.mark.parametrize("arguments", [["config", "show"], ["config", "show", "--json"]])
    def test_bad(self, arguments: list[str], directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A bad configuration is shown all the same, with what is wrong on stderr, and has status 1."""
        (directory / "local.toml").write_text("[transport]\nmode = \"tls\"\n[limits]\nmax_stream_bytes = 'x'\n")
        assert main(arguments) == 1
        said = capsys.readouterr()
        assert '"tls"' in said.out
        assert [line.partition(" = ")[0] for line in said.err.splitlines()] == [
            "[load_config] limits.max_stream_bytes",
            "[validate_config] transport.tls.cert_path",
            "[validate_config] transport.tls.key_path",
        ]


class DefaultTests:
    """The file that is shipped."""

    def test_default(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """It is printed as it is, and changes nothing."""
        assert main(["config", "default"]) == 0
        printed = capsys.readouterr().out
        assert printed == (ROOT / "config" / "default.toml").read_text()
        (directory / "default.toml").write_text(printed)
        assert main(["config", "show", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["files"], set(document["origins"].values())) == (["config/default.toml"], {"default"})
