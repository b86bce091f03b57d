"""What the how-to guides say about configuration is what happens."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

from dstreams.cli import main
from dstreams.config import ConfigLoadOptions, read
from tests.support.servers import ROOT

GUIDE = (ROOT / "docs" / "how-to" / "configure.md").read_text()
MIGRATION = (ROOT / "docs" / "how-to" / "migrate-from-the-rust-server.md").read_text()

RUST_DEFAULTS = """
[server]
bind_address = "0.0.0.0:4437"
[limits]
max_memory_bytes = 104857600
max_stream_bytes = 10485760
max_stream_name_bytes = 1024
max_stream_name_segments = 8
[http]
cors_origins = "*"
stream_base_path = "/v1/stream"
[storage]
mode = "memory"
[transport]
mode = "http"
[transport.http]
versions = ["http1"]
[transport.connection]
long_poll_timeout_secs = 30
sse_reconnect_interval_secs = 60
[proxy]
enabled = false
forwarded_headers = "none"
trusted_proxies = []
[proxy.identity]
mode = "none"
[observability]
rust_log = "info"
"""
"""What the Rust server's own default.toml sets."""


def block(page: str, start: str) -> str:
    """The indented block of a page that begins with a line, without its indentation."""
    lines = page[page.index(f"    {start}") :].splitlines()
    end = next(number for number, line in enumerate(lines) if line and not line.startswith("    "))
    return dedent("\n".join(lines[:end]))


class GuideTests:
    """How to configure the server."""

    def test_file(self, tmp_path: Path) -> None:
        """The example of a file can be used."""
        example = block(GUIDE, "[server]").partition("twistd")[0]
        assert len(tomllib.loads(example)) == 3
        (tmp_path / "default.toml").write_text(example)
        loaded = read(ConfigLoadOptions(config_dir=str(tmp_path)), {})
        assert (loaded.problems, loaded.warnings) == ((), ())

    def test_problems(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The examples of problems are what is said."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "local.toml").write_text('[server]\nbind_adress = "127.0.0.1:80"\n')
        environ = {"DS_TRANSPORT__TLS__CERT_PATH": "c", "DS_HTTP__ALLOW_WILDCARD_CORS": "true"}
        loaded = read(ConfigLoadOptions(profile="prod-tls"), environ)
        assert "\n".join(map(str, loaded.problems)) == block(GUIDE, "[load_config]").strip()

    @pytest.mark.parametrize("page", [GUIDE, MIGRATION])
    def test_commands(self, page: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The commands that are named exist."""
        commands = set(re.findall(r"durable-streams (config [a-z]+)", page))
        assert commands >= {"config show", "config check", "config default"}
        for command in commands:
            with pytest.raises(SystemExit) as caught:
                main([*command.split(), "--help"])
            assert caught.value.code == 0

    def test_program(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """The example of a program runs."""
        program = block(GUIDE, "import os").replace("/etc/durable-streams", str(tmp_path))
        monkeypatch.setenv("DS_HTTP__CORS_ORIGINS", "https://app.example")
        exec(compile(program, "configure.md", "exec"), {})
        assert '"data_dir": "/var/lib/durable-streams"' in capsys.readouterr().out


class MigrationTests:
    """The Rust server's own file."""

    @pytest.mark.parametrize("profile", ["default", "dev", "prod", "prod-tls"])
    def test_rust_defaults(self, profile: str, tmp_path: Path) -> None:
        """It can be read, and its keys win over the profile's, each with a warning."""
        (tmp_path / "default.toml").write_text(RUST_DEFAULTS)
        loaded = read(ConfigLoadOptions(config_dir=str(tmp_path), profile=profile), {"DS_HTTP__CORS_ORIGINS": "null"})
        assert loaded.problems == ()
        assert loaded.config.storage.mode == "memory"
        undone = {"default": 0, "dev": 2, "prod": 3, "prod-tls": 5}
        assert len(loaded.warnings) == undone[profile]
        assert all("overrides what the profile" in warning for warning in loaded.warnings)
