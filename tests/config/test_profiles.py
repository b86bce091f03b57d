"""Deployment profiles."""

from __future__ import annotations

import pytest

from dstreams.config.building import build, settings_of
from dstreams.config.profiles import PROFILES, DeploymentProfile, read_profile
from dstreams.config.schema import KEYS, Config


class ParseTests:
    """A profile's name."""

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            (None, "default"), ("", "default"), (" ", "default"), ("Default", "default"), ("dev", "dev"),
            (" PROD-TLS\n", "prod-tls"), ("staging", "staging"), ("eu-1.blue_2", "eu-1.blue_2"), ("locals", "locals"),
        ],
    )  # fmt: skip
    def test_good(self, text: str | None, name: str) -> None:
        """Blanks around it and upper case don't matter; nothing at all is the default."""
        profile = DeploymentProfile.parse(text)
        assert (profile.name, str(profile)) == (name, name)
        assert profile.built_in is (name in PROFILES)
        assert profile.production is name.startswith("prod")

    @pytest.mark.parametrize("text", ["local", "LOCAL", "a/b", "..", ".a", "a..b", "a.", "-a", "a b", "\0", "\u00e9"])
    def test_bad(self, text: str) -> None:
        """What could name another file than one in the directory is refused."""
        with pytest.raises(ValueError, match=r"^(is reserved|is not a profile name)"):
            DeploymentProfile.parse(text)


class BuiltInTests:
    """What the built-in profiles set."""

    @pytest.mark.parametrize("name", PROFILES)
    def test_values(self, name: str) -> None:
        """Every value is of its key's type."""
        layer = read_profile(DeploymentProfile(name))
        assert {path: setting.value for path, setting in layer.settings.items()} == PROFILES[name]
        assert all(KEYS[path].holds(setting.value) for path, setting in layer.settings.items())
        build(settings_of(Config()) | layer.settings)

    def test_own(self) -> None:
        """One's own sets nothing by itself."""
        assert read_profile(DeploymentProfile("staging")).settings == {}
