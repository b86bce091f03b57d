"""The reference page and the example file follow the schema."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dstreams.config.__main__ import main
from dstreams.config.reference import default_file, reference
from dstreams.config.schema import KEYS
from dstreams.config.toml_file import read_file
from tests.support.servers import ROOT


class ReferenceTests:
    """What people read is written from what the server reads."""

    def test_page_is_up_to_date(self) -> None:
        """The page in the documentation is what the schema says: `make reference` writes it."""
        assert (ROOT / "docs" / "reference" / "configuration.md").read_text() == reference()

    def test_default_file_is_up_to_date(self) -> None:
        """So is the file that is shipped."""
        assert (ROOT / "config" / "default.toml").read_text() == default_file()

    def test_every_key(self) -> None:
        """The page has every key with its variable."""
        page = reference()
        assert all(f"| `{path}` |" in page and f"`{key.variable}`" in page for path, key in KEYS.items())

    def test_sentences(self) -> None:
        """Each key is described by a whole sentence."""
        assert all(re.fullmatch(r"[A-Z].*\.", key.declaration.about) for key in KEYS.values())

    def test_default_file_changes_nothing(self) -> None:
        """The shipped file as it is sets nothing, so that it undoes no profile."""
        layer = read_file(str(ROOT / "config" / "default.toml"))
        assert (layer.settings, layer.legacy, layer.problems) == ({}, {}, [])

    def test_default_file_values(self, tmp_path: Path) -> None:
        """With its comment signs taken away, it names every key: with its default, else an example."""
        path = tmp_path / "active.toml"
        path.write_text(re.sub(r"^#(?=\w)", "", default_file(), flags=re.MULTILINE))
        layer = read_file(str(path))
        assert layer.problems == []
        assert list(layer.settings) == list(KEYS)
        for path_, setting in layer.settings.items():
            default = KEYS[path_].default
            assert setting.value == default if default not in (None, ()) else setting.value

    def test_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        """``python -m dstreams.config`` prints either of them."""
        main(["reference"])
        assert capsys.readouterr().out == reference()
        main(["default"])
        assert capsys.readouterr().out == default_file()

    @pytest.mark.parametrize("arguments", [[], ["other"], ["reference", "default"]])
    def test_usage(self, arguments: list[str]) -> None:
        """Anything else is told how to use it."""
        with pytest.raises(SystemExit, match="usage"):
            main(arguments)
