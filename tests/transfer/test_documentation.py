"""What the documentation says about documents."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dstreams.transfer.records import EXTENSION
from tests.support.servers import ROOT
from tests.transfer.stores import MODES, export, filled, import_

PAGE = (ROOT / "docs" / "reference" / "transfer-format.md").read_text()


def members(value: object, into: set[str]) -> set[str]:
    """The names of all members below a value."""
    if isinstance(value, dict):
        into |= value.keys()
        for each in value.values():
            members(each, into)
    elif isinstance(value, list):
        for each in value:
            members(each, into)
    return into


class TransferFormatTests:
    """``docs/reference/transfer-format.md``."""

    def test_example(self, tmp_path: Path) -> None:
        """The document on the page is one, and comes back as it stands there."""
        found = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
        assert found is not None
        given = json.loads(found[1])
        import_(given, MODES["file-fast"](tmp_path))
        assert export(tmp_path) == given

    def test_every_member(self, tmp_path: Path) -> None:
        """Every member that is ever written is described."""
        filled(MODES["file-fast"](tmp_path))
        written = members(export(tmp_path), set())
        assert EXTENSION in written
        assert {each for each in written if f"`{each}`" not in PAGE and f"`config.{each}`" not in PAGE} == set()
