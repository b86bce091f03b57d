"""A configuration as text."""

from __future__ import annotations

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from dstreams.config import Config, render_effective_json
from dstreams.config.building import settings_of
from dstreams.config.keys import Declaration, Key
from dstreams.config.rendering import MASK, nested, render_toml
from dstreams.config.schema import KEYS
from dstreams.config.settings import Setting


class JsonTests:
    """For programs."""

    def test_json(self) -> None:
        """A configuration is rendered nested and indented, with the names of its keys."""
        document = json.loads(render_effective_json(Config()))
        for path in KEYS:
            value = document
            for name in path.split("."):
                value = value[name]
            assert not isinstance(value, dict)
        assert render_effective_json(Config()).startswith('{\n  "server": {\n    "bind_address": "0.0.0.0:4437",\n')


class SecretTests:
    """What is shown to nobody."""

    def test_secrets(self) -> None:
        """A secret's value is shown to nobody; whether it is set may be known."""
        key = Key("a.token", str, None, Declaration(about="A secret.", secret=True))
        assert nested({"a.token": Setting(key, "hunter2", "here")}) == {"a": {"token": MASK}}
        assert "hunter2" not in render_toml({"a.token": Setting(key, "hunter2", "here")})
        assert render_toml({"a.token": Setting(key, None, "default")}) == "#a.token is unset  # default\n"


class TomlTests:
    """For people, and to be read again."""

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    def test_any_text(self, text: str) -> None:
        """Whatever is in a value and in an origin, the text is TOML and has one line for each key."""
        settings = settings_of(Config())
        settings["storage.data_dir"] = Setting(KEYS["storage.data_dir"], text, f"file {text}")
        rendered = render_toml(settings)
        assert tomllib.loads(rendered)["storage"]["data_dir"] == text
        assert len(rendered.split("\n")) == len(KEYS) + 1
