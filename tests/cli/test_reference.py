"""The reference page of the commands."""

from __future__ import annotations

from dstreams.cli.reference import reference
from tests.support.servers import ROOT


class ReferenceTests:
    """What people read is written from what the commands take."""

    def test_up_to_date(self) -> None:
        """The page in the documentation is what the parsers say: `make reference` writes it."""
        assert (ROOT / "docs" / "reference" / "cli.md").read_text() == reference()

    def test_every_command(self) -> None:
        """Every command has a section, every option a row."""
        page = reference()
        for heading in (
            "serve",
            "list",
            "export",
            "import",
            "check",
            "config",
            "config check",
            "config show",
            "version",
        ):
            assert f"\n## {heading}\n" in page
        assert "| `--on-conflict skip\\|fail\\|replace` |" in page
        assert "| `-o FILE`, `--output FILE` |" in page
