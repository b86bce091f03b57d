from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.sqlite_vfs import quiet


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What SQLite does without isn't worth a warning."""
    with quiet():
        yield
