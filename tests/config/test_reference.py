"""The reference page and the example file follow the schema."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from dstreams.config import Config, load_config
from dstreams.config.__main__ import main
from dstreams.config.reference import example, reference
from dstreams.config.schema import KEYS
from tests.servers import ROOT


class ReferenceTests:
    """What people read is written from what the server reads."""

    def test_page_is_up_to_date(self) -> None:
        """The page in the documentation is what the schema says: `make reference` writes it."""
        assert (ROOT / "docs" / "reference" / "configuration.md").read_text() == reference()

    def test_example_is_up_to_date(self) -> None:
        """So is the example file."""
        assert (ROOT / "config" / "example.toml").read_text() == example()

    def test_every_key(self) -> None:
        """The page has every key with its variable."""
        page = reference()
        assert all(f"| `{path}` |" in page and f"`{key.variable}`" in page for path, key in KEYS.items())

    def test_sentences(self) -> None:
        """Each key is described by a whole sentence."""
        assert all(re.fullmatch(r"[A-Z].*\.", key.declaration.about) for key in KEYS.values())

    def test_example_changes_nothing(self) -> None:
        """The example file as it is leaves every default in force."""
        assert load_config(str(ROOT / "config" / "example.toml"), None, {}) == Config()

    def test_example_values(self, tmp_path: Path) -> None:
        """With its comment signs taken away, the example file names every key with its default."""
        active = re.sub(r"^#(?=\w)", "", example(), flags=re.MULTILINE)
        path = tmp_path / "active.toml"
        path.write_text(active)
        assert load_config(str(path), None, {}) == Config()
        assert sum(active.count(f"\n{key.path.rpartition('.')[2]} = ") for key in KEYS.values()) == len(KEYS)
        tomllib.loads(active)

    def test_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        """``python -m dstreams.config`` prints either of them."""
        main(["reference"])
        assert capsys.readouterr().out == reference()
        main(["example"])
        assert capsys.readouterr().out == example()

    @pytest.mark.parametrize("arguments", [[], ["other"], ["reference", "example"]])
    def test_usage(self, arguments: list[str]) -> None:
        """Anything else is told how to use it."""
        with pytest.raises(SystemExit, match="usage"):
            main(arguments)
