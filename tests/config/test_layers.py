"""How the layers of a configuration are laid over each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstreams.config import Config, ConfigError, load_config


def write(directory: Path, text: str) -> str:
    """The path of a configuration file."""
    path = directory / "server.toml"
    path.write_text(text)
    return str(path)


class LayerTests:
    """A later layer wins over an earlier one, key by key."""

    def test_defaults(self) -> None:
        """Without any layer the configuration is the defaults."""
        assert load_config(None, None, {}) == Config()

    def test_profile_over_default(self) -> None:
        """The profile dev listens on this machine only, and changes nothing else."""
        config = load_config(None, "dev", {})
        assert config.server.bind_address == "127.0.0.1:4437"
        assert config.limits == Config().limits

    @pytest.mark.parametrize("name", ["DEV", " dev ", "Dev"])
    def test_profile_names(self, name: str) -> None:
        """Blanks around a profile's name and upper case don't matter."""
        assert load_config(None, name, {}).server.bind_address == "127.0.0.1:4437"

    @pytest.mark.parametrize("name", [None, "", " ", "default"])
    def test_default_profile(self, name: str | None) -> None:
        """The profile default, or none, sets nothing."""
        assert load_config(None, name, {}) == Config()

    def test_file_over_profile(self, tmp_path: Path) -> None:
        """The file wins over the profile."""
        path = write(tmp_path, '[server]\nbind_address = "127.0.0.1:1"\n')
        assert load_config(path, "dev", {}).server.bind_address == "127.0.0.1:1"

    def test_environment_over_file(self, tmp_path: Path) -> None:
        """The environment wins over the file, for the keys it names."""
        path = write(tmp_path, '[server]\nbind_address = "127.0.0.1:1"\nshutdown_grace_secs = 7\n')
        config = load_config(path, None, {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:2"})
        assert config.server.bind_address == "127.0.0.1:2"
        assert config.server.shutdown_grace_secs == 7

    def test_only_the_winner_is_validated(self, tmp_path: Path) -> None:
        """A value that a later layer replaces needn't be valid, only of its type."""
        path = write(tmp_path, '[server]\nbind_address = "nowhere"\n')
        load_config(path, None, {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:2"})

    def test_origins(self) -> None:
        """The list of origins is available one by one."""
        config = load_config(None, None, {"DS_HTTP__CORS_ORIGINS": "https://a, https://b"})
        assert config.http.origins == ("https://a", "https://b")
        assert Config().http.origins == ("*",)

    def test_all_problems(self, tmp_path: Path) -> None:
        """All problems of all layers are reported together, each with its origin."""
        path = write(tmp_path, "[limits]\nmax_stream_bytes = 0\nmax_memory_bytes = true\n")
        environ = {"DS_HTTP__CACHE": "x", "DS_HTTP__STREAM_BASE_PATH": "v1"}
        with pytest.raises(ConfigError) as caught:
            load_config(path, "prod", environ)
        assert str(caught.value).splitlines() == [
            "[load_config] unknown profile 'prod' (--profile): this version has default, dev",
            f"[load_config] limits.max_memory_bytes = true (file {path}): must be a whole number",
            "[load_config] http.cache = 'x' (DS_HTTP__CACHE): must be one of no-store, private, public",
            f"[validate_config] limits.max_stream_bytes = 0 (file {path}): must be at least 1",
            "[validate_config] http.stream_base_path = 'v1' (DS_HTTP__STREAM_BASE_PATH): must begin with /",
        ]
        assert len(caught.value.problems) == 5
